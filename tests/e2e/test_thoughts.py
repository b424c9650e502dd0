"""What a model thinks, over the whole path: streamed, read again, kept when its process dies, in no log."""

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Start, until_ready
from tests.support.api import Event, Person, ok, read_events, text_of
from tests.support.model_server import Behaviour, ModelServer
from tests.support.waiting import until

THOUGHTS = "Sechs mal zwei — the-duchess-thinks-at-dawn-7519 — \u590f\u306e夢."
SECRET = "the-duchess-thinks-at-dawn-7519"


def thoughts_of(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.type == "reasoning.delta")


@pytest.mark.long
@pytest.mark.own_mode
async def test_thoughts_stay_apart_over_the_whole_path_and_outlive_their_process(
    start: Start, model: ModelServer
) -> None:
    stack = await start(mode="processes")
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
        await until_ready(client)
        person = await Person.sign_up(client)
        session = await person.create_session()
        path = f"/sessions/{session['id']}"

        model.script(Behaviour(text="Zwölf.", thoughts=THOUGHTS))
        events = [event async for event in person.turn(session["id"], "6 mal 2?")]
        assert (thoughts_of(events), text_of(events)) == (THOUGHTS, "Zwölf.")
        answer = (await person.messages(session["id"]))[-1]
        assert (answer["content"], answer["reasoning"]) == ("Zwölf.", THOUGHTS)
        run = f"/runs/{events[0].data['run_id']}/events"
        second = next(event.id for event in events if event.type == "reasoning.delta")
        headers = {**person.headers, "Last-Event-ID": str(second)}
        async with client.stream("GET", run, headers=headers) as response:
            assert [event async for event in read_events(response)] == events[int(str(second)) :]
        folded = ok(await client.get(run, headers={**person.headers, "Accept": "application/json"}))
        assert (folded["message"]["content"], folded["message"]["reasoning"]) == ("Zwölf.", THOUGHTS)
        assert ok(await person.call("GET", f"/messages/search?query={SECRET}"))["hits"] == []

        body: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": "6 mal 2?"}]}
        model.script(Behaviour(text="Zwölf.", thoughts=THOUGHTS))
        whole = ok(await client.post("/v1/chat/completions", json=body, headers=person.headers))
        message = whole["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("Zwölf.", THOUGHTS)

        model.script(Behaviour(text="never said", thoughts=THOUGHTS, rest=asyncio.Event(), fault_after=0))
        under_way: dict[str, Any] = {}

        async def has_thought() -> bool:
            page = ok(await person.call("GET", f"{path}/messages?include_answer_under_way=true"))
            under_way.update(page["answer_under_way"] or {})
            return bool(under_way.get("reasoning") == THOUGHTS)

        ok(await person.call("POST", f"{path}/runs", {"content": "Sicher?"}))
        assert THOUGHTS not in str(model.chats[-1])
        await until(has_thought, "the thought")
        assert (under_way["text"], under_way["reasoning_milliseconds"] >= 0) == ("", True)
        os.kill(stack.process("orchestrator"), signal.SIGKILL)

        async def is_kept() -> bool:
            return len(await person.messages(session["id"])) == 4

        await until(is_kept, "the partial message")
        answer = (await person.messages(session["id"]))[-1]
        assert (answer["content"], answer["reasoning"]) == ("", THOUGHTS)
        assert answer["metadata"]["error_reason"] == "RUN_INTERRUPTED"
    logs = {entry.name: entry.read_text(errors="replace") for entry in (stack.home / "logs").iterdir()}
    assert [name for name, text in logs.items() if SECRET in text] == []
