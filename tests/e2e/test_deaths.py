"""An answer under way stands in the list of messages, and becomes partial once its process is known to be dead."""

import os
import signal
from typing import Any

import asyncpg
import httpx
import pytest

from local.suite.processes import Mode
from tests.e2e.conftest import Start
from tests.support.api import Person, ok
from tests.support.model_server import Behaviour, ModelServer
from tests.support.waiting import until

pytestmark = pytest.mark.own_mode


@pytest.mark.parametrize("mode", ["one-process", pytest.param("processes", marks=pytest.mark.long)])
async def test_the_supervisor_tells_of_a_death_before_the_lease_is_over(
    start: Start, model: ModelServer, mode: Mode
) -> None:
    stack = await start(mode=mode)
    admin = await asyncpg.connect(stack.admin_db_url)
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        person = await Person.sign_up(client)
        session = await person.create_session(name="deaths")
        path = f"/sessions/{session['id']}/messages?include_answer_under_way=true"
        model.script(Behaviour(tokens=10, fault="stall", fault_after=3))
        run = ok(await person.call("POST", f"/sessions/{session['id']}/runs", {"content": "Count, please."}))
        page: dict[str, Any] = {}

        async def has_page() -> bool:
            try:
                answer = await person.call("GET", path)
            except httpx.TransportError:  # the gateway died too
                return False
            page.clear()
            page.update(answer.json() if answer.is_success else {})
            return answer.is_success

        async def has_words() -> bool:
            return await has_page() and page["answer_under_way"]["text"] == "t0 t1 t2 "

        await until(has_words, "the answer under way")
        assert (page["answer_under_way"]["run_id"], page["answer_under_way"]["state"]) == (run["id"], "RUNNING")
        assert [message["role"] for message in page["messages"]] == ["user"]

        # Stopped, it renews its lease no more; for an hour that alone would tell nobody anything.
        pid = stack.process("orchestrator")
        os.kill(pid, signal.SIGSTOP)
        await admin.execute(
            "update public.runs set lease_expires_at = now() + interval '1 hour' where id = $1", run["id"]
        )
        os.kill(pid, signal.SIGKILL)

        async def is_interrupted() -> bool:
            return await has_page() and page["answer_under_way"] is None

        await until(is_interrupted, "the end of the answer")
        assert [message["content"] for message in page["messages"]] == ["Count, please.", "t0 t1 t2 "]
        assert page["messages"][1]["metadata"]["error_reason"] == "RUN_INTERRUPTED"
        left = await admin.fetchval(
            "select lease_expires_at - finished_at < interval '0 s' from public.runs where id = $1", run["id"]
        )
        assert left, "the lease was ended, it had not run out"
    await admin.close()
