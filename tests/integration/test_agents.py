"""Agents with tools over the real sessions service, with a scripted model."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import jwt
import pytest
from langchain_core.messages import HumanMessage
from pydantic import SecretStr

from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from services.orchestrator.agents.registry import Agents
from services.orchestrator.models.models import Models
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Step, ToolResult
from tests.support.api import Person, ok, reason, text_of
from tests.support.certificates import certificates_of
from tests.support.model_server import Behaviour, ModelServer, ToolUse
from tests.support.suites import RunningStack


@dataclass
class Search:
    """The search agent, its scripted model, and what it finds for a person."""

    agents: Agents
    model: ModelServer

    async def results(self, person: Person, *uses: ToolUse) -> list[ToolResult]:
        self.model.script(Behaviour(tool_calls=uses), Behaviour(text="Done."))
        token = person.tokens["access_token"]
        steps: list[Step] = []
        with acting_as(Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))):
            answer = self.agents.answer("search", [HumanMessage("Find it")], model="test-model")
            async with contextlib.aclosing(answer):
                steps = [step async for step in answer]
        return [step for step in steps if isinstance(step, ToolResult)]


@pytest.fixture
async def search(stack: RunningStack) -> AsyncIterator[Search]:
    async with ModelServer.running() as model:
        settings = Settings(
            _env_file=None, openai_base_url=model.base_url, openai_api_key=SecretStr("k"), model="test-model"
        )
        store, models = (
            SessionsClient.at(stack.env["SESSIONS_TARGET"], tls=certificates_of(stack.env)),
            Models(settings),
        )
        try:
            yield Search(Agents(settings, models=models, store=store), model)
        finally:
            await models.close()
            await store.close()


@pytest.fixture
async def session_id(owner: Person) -> str:
    made = await owner.create_session(name="Journeys")
    for content in ("Which way to the Lighthouse?", "我们明天去东京塔看日落", "Take the coast road."):
        body = {"messages": [{"role": "user", "content": content}]}
        ok(await owner.call("POST", f"/sessions/{made['id']}/messages", body))
    return str(made["id"])


@pytest.mark.parametrize(("query", "order"), [("lighthouse", 1), ("东京塔", 2), ("coast road", 3)])
async def test_search_agent_finds_the_callers_messages(
    search: Search, owner: Person, session_id: str, query: str, order: int
) -> None:
    use = ToolUse("search_messages", {"query": query, "session_id": session_id})
    (result,) = await search.results(owner, use)
    (hit,) = json.loads(result.output)["hits"]
    assert (hit["session_id"], hit["conversation"], hit["order"]) == (session_id, "Journeys", order)
    assert query in hit["excerpt"].lower()


async def test_search_agent_finds_and_reads_nothing_of_others(
    search: Search, stranger: Person, session_id: str
) -> None:
    results = await search.results(
        stranger,
        ToolUse("search_messages", {"query": "lighthouse"}),
        ToolUse("read_messages", {"session_id": session_id, "order": 1}),
    )
    by_name = {result.name: result for result in results}
    found, read = by_name["search_messages"], by_name["read_messages"]
    assert json.loads(found.output)["hits"] == []
    assert read.is_error
    assert read.output.startswith("SESSION_NOT_FOUND: ")


async def test_search_agent_reads_around_a_hit(search: Search, owner: Person, session_id: str) -> None:
    use = ToolUse("read_messages", {"session_id": session_id, "order": 2, "before": 1, "after": 5})
    (result,) = await search.results(owner, use)
    assert [message["order"] for message in json.loads(result.output)["messages"]] == [1, 2, 3]


async def test_agents_and_models_are_listed_over_rest(owner: Person) -> None:
    agents = ok(await owner.call("GET", "/agents"))
    assert [agent["name"] for agent in agents["agents"]] == ["assistant", "summariser", "search", "orchestrator"]
    assert [agent["is_default"] for agent in agents["agents"]] == [True, False, False, False]
    assert agents["next_page_token"] == ""
    models = ok(await owner.call("GET", "/models"))
    assert [(model["name"], model["is_offline"]) for model in models["models"]] == [("offline", True)]


async def test_offline_a_turn_may_name_any_agent_that_exists(owner: Person) -> None:
    session_id = (await owner.create_session(name="Agents"))["id"]
    async with contextlib.aclosing(owner.turn(session_id, "Hello", agent="orchestrator")) as turn:
        events = [event async for event in turn]
    assert text_of(events).startswith("The agent “orchestrator” works with tools")
    refused = await owner.call("POST", f"/sessions/{session_id}/runs", {"content": "Hello", "agent": "nobody"})
    assert (refused.status_code, reason(refused)) == (400, "AGENT_NOT_FOUND")
    assert len(await owner.messages(session_id)) == 2
