"""schemathesis asks the running suite whatever its own OpenAPI document allows, and what it does not allow."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.api import Person
from tests.support.suites import RunningStack

EXAMPLES = 20
SEED = 20261120
# Every operation is asked and nothing is left out. These checks fail for any 5xx (501 and 503 too) and for answers
# that the document does not describe.
# Not reached: a log-in and a change of password that succeed (it knows no password, and logs itself out on the way)
# and a provider's callback. Sessions, messages and turns are reached with ids that it has got from earlier answers.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture
async def person(stack: RunningStack) -> AsyncIterator[Person]:
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        yield await Person.sign_up(client)


async def test_no_request_makes_a_server_error(stack: RunningStack, person: Person, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{stack.gateway_url}/openapi.json",
        f"--header=Authorization:{person.headers['Authorization']}",
        f"--checks={CHECKS}",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--generation-database=none",
        "--phases=examples,coverage,fuzzing",
        "--max-redirects=0",
        "--request-timeout=20",
        # More workers meet a race of Python 3.11's ast module (python/cpython#106905), which hypothesis uses.
        "--workers=1",
        "--continue-on-failure",
        "--no-color",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]
    operations = (await person.client.get("/openapi.json")).json()["paths"]
    assert f"{sum(map(len, operations.values()))} selected" in output.decode()
