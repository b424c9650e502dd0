"""What people are told of the model, by the doctor and at a start, with a provider on a real socket."""

import asyncio
from pathlib import Path

from local.doctor import check_model
from local.findings import Finding
from local.settings import load_settings
from local.suite.model import OFFLINE, ModelCheck
from local.suite.processes import service_environment, suite_variables
from tests.support.model_server import ModelServer
from tests.support.waiting import forever

CLOSED = "http://127.0.0.1:9/v1"


async def model_finding(home: Path, **variables: str) -> Finding:
    """Return the doctor's finding, after making sure that a start says the same."""
    settings = load_settings(environment={"CONCERTO_HOME": str(home), "PATH": "/usr/bin", **variables}, env_file=None)
    (found,) = await check_model(settings)
    stopping = asyncio.create_task(forever())
    check = ModelCheck.begin(service_environment("orchestrator", settings, suite_variables(settings, None, None)))
    try:
        # As long as it takes: how long a start waits for it is the start's affair.
        await asyncio.wait({check.task})
        assert await check.result(stopping) == found
    finally:
        await check.close()
        stopping.cancel()
    return found


async def test_the_offline_model_is_named_and_how_to_get_another(tmp_path: Path) -> None:
    found = await model_finding(tmp_path)
    assert found == OFFLINE
    assert (found.advice, "OPENAI_BASE_URL" in found.hint) == ("", True)


async def test_the_model_that_answers_is_named_with_where_it_is(tmp_path: Path) -> None:
    async with ModelServer.running() as model:
        first = await model_finding(tmp_path, OPENAI_BASE_URL=model.base_url)
        named = await model_finding(tmp_path, OPENAI_BASE_URL=model.base_url, CONCERTO_MODEL="test-model")
        unknown = await model_finding(tmp_path, OPENAI_BASE_URL=model.base_url, CONCERTO_MODEL="another")
    assert first.detail == named.detail == f"test-model at {model.base_url}"
    assert (first.advice, named.advice) == ("", "")
    assert unknown.detail == f"another is no model of {model.base_url}: it has test-model"
    assert unknown.advice == "Set CONCERTO_MODEL to one that it has."


async def test_a_dead_address_is_named_and_what_to_do(tmp_path: Path) -> None:
    found = await model_finding(tmp_path, OPENAI_BASE_URL=CLOSED, CONCERTO_MODEL="a-model", OPENAI_API_KEY="a-secret")
    assert found.detail == f"a-model: {CLOSED} is not there: nothing listens at this address"
    assert found.advice == "Start what should answer there, or correct OPENAI_BASE_URL."
    assert "a-secret" not in repr(found)


async def test_who_stops_does_not_wait_for_the_model() -> None:
    stopping = asyncio.create_task(asyncio.sleep(0))
    check = ModelCheck(asyncio.create_task(forever()))
    assert await check.result(stopping) is None
    await check.close()
    assert check.task.cancelled()
