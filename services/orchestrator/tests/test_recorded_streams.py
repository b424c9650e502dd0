"""Answers of many servers, recorded byte by byte in `streams/`, played from a socket to turns and to OpenAI's API."""

import asyncio
import contextlib
import json
import tomllib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from servicekit.errors import AppError
from services.orchestrator.models.models import Models
from services.orchestrator.models.server_chunks import TURNED, AnswerReader, Part
from services.orchestrator.models.server_events import ErrorData, Events
from services.orchestrator.models.server_usage import counted
from services.orchestrator.openai.completions import Request, ask_provider
from services.orchestrator.openai.terms import Terms
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, ToolCall
from services.orchestrator.tests.test_short_way import Watcher

FOLDER = Path(__file__).parent / "streams"
RECORDED: Mapping[str, dict[str, Any]] = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))
KINDS = {".sse": "text/event-stream", ".json": "application/json", ".txt": "text/html"}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("look", "find")
]


ENDS_MORE_THAN_ONCE = ("ends-twice.sse", "end-said-in-each-chunk.sse")


@dataclass
class Outcome:
    """What an answer comes to."""

    text: str = ""
    thoughts: str = ""
    finish: str = ""
    calls: list[Any] = field(default_factory=list)
    problem: bool = False
    usage: list[int] | None = None
    reason: str = ""
    wait: int | None = None

    def fail(self, error: AppError) -> None:
        self.reason = error.reason
        named = error.metadata.get("retry_after_seconds")
        self.wait = None if named is None else int(named)


@dataclass
class Player:
    """A server that answers each request with the recording that its model is named after."""

    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
            name = json.loads(await reader.readexactly(length))["model"]
            expected, body = RECORDED[name], (FOLDER / name).read_bytes()
            lines = [f"HTTP/1.1 {expected.get('status', 200)} Recorded", f"content-type: {KINDS[Path(name).suffix]}"]
            lines += [f"{key}: {value}" for key, value in expected.get("headers", {}).items()]
            writer.write("\r\n".join([*lines, "connection: close", "\r\n"]).encode() + body)
            await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
async def models() -> AsyncIterator[Models]:
    player = Player()
    listener = await asyncio.start_server(player.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    values: dict[str, Any] = {"openai_base_url": f"http://127.0.0.1:{port}/v1", "model": "m"}
    models = Models(Settings(_env_file=None, **values))
    yield models
    await models.close()
    listener.close()


async def turn(models: Models, name: str) -> Outcome:
    """Ask as turns do."""
    found = Outcome()
    try:
        async for step in models.answer([HumanMessage("?")], model=name, options={"tools": TOOLS}):
            if isinstance(step, Piece):
                found.thoughts = "" if step.takes_back else found.thoughts
                found.text += step.text
                found.finish = step.finish_reason or found.finish
                if step.usage is not None:
                    usage = step.usage
                    found.usage = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
            elif isinstance(step, ToolCall):
                found.calls.append([step.name, dict(step.arguments)])
                found.problem = found.problem or bool(step.problem)
            else:
                if step.takes_back:
                    found.thoughts, found.text = found.thoughts + found.text, ""
                found.thoughts += step.text
    except AppError as error:
        found.fail(error)
    return found


async def ask_api(models: Models, name: str, *, wants_stream: bool) -> Outcome:
    """Ask as OpenAI's clients do, and read the answer as strictly as they do."""
    found = Outcome()
    body = {"model": name, "messages": [{"role": "user", "content": "?"}], "tools": TOOLS, "stream": wants_stream}
    request = Request.read(json.dumps(body), Terms(most_tokens=100))
    assert models.requests is not None
    calls: dict[int, Any] = {}
    ends = 0
    try:
        async for answer in ask_provider(models.requests, request, stall_seconds=30):
            part_name = "delta" if wants_stream else "message"
            assert "error" not in answer, "a server's sentences are nobody's to read"
            if TURNED in answer:
                continue  # no client is shown it
            if (usage := counted(answer.get("usage"))) is not None:
                found.usage = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
            for choice in answer["choices"]:
                part = choice[part_name]
                ends += choice.get("finish_reason") is not None
                found.text += part.get("content") or ""
                found.thoughts += part.get("reasoning_content") or ""
                found.finish = choice.get("finish_reason") or found.finish
                for position, call in enumerate(part.get("tool_calls") or ()):
                    known = calls.setdefault(call["index"] if wants_stream else position, {"name": "", "arguments": ""})
                    if "id" in call:
                        assert "id" not in known
                        assert call["type"] == "function"
                        known["id"] = call["id"]
                    known["name"] += call["function"].get("name") or ""
                    known["arguments"] += call["function"].get("arguments") or ""
            if not wants_stream:
                assert answer["object"] == "chat.completion"
    except AppError as error:
        found.fail(error)
    assert ends <= 1 or name in ENDS_MORE_THAN_ONCE
    found.text = found.text.encode("utf-16", "surrogatepass").decode("utf-16")
    assert all(call["id"] and isinstance(call["id"], str) for call in calls.values())
    with contextlib.suppress(ValueError):
        found.calls = [[call["name"], json.loads(call["arguments"] or "{}")] for _, call in sorted(calls.items())]
    return found


def test_every_recording_has_its_expectation() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.suffix in KINDS}
    assert files == RECORDED.keys()
    assert len(files) >= 128


@pytest.mark.parametrize("name", RECORDED)
async def test_a_turn_and_the_api_read_what_a_server_sends(models: Models, name: str) -> None:
    expected = RECORDED[name]
    found = await turn(models, name)
    assert (found.reason, found.wait) == (expected.get("reason", ""), expected.get("wait"))
    assert (found.text, found.thoughts) == (expected["text"], expected.get("thoughts", ""))
    assert found.usage == expected.get("usage", found.usage)
    if not found.reason:
        assert (found.finish, found.calls) == (expected["finish"], expected.get("calls", []))
        assert found.problem == expected.get("problem", False)
    for wants_stream in (True, False):
        answered = await ask_api(models, name, wants_stream=wants_stream)
        check_api(answered, expected, wants_stream=wants_stream)
        assert answered.usage == expected.get("usage", answered.usage), wants_stream


@pytest.mark.parametrize("name", list(RECORDED)[::8])
async def test_langchains_way_reads_the_same(models: Models, name: str) -> None:
    short = await turn(models, name)
    chat: Any = models.chat
    chat.callbacks = [Watcher()]
    try:
        assert await turn(models, name) == short
    finally:
        chat.callbacks = None


def check_api(found: Outcome, expected: Mapping[str, Any], *, wants_stream: bool) -> None:
    reason = expected.get("api_reason", expected.get("reason", ""))
    assert (found.reason, found.wait) == (reason, expected.get("wait")), wants_stream
    assert not reason or not found.finish, "what is no success does not end like one"
    if not expected.get("api", True):
        return
    if wants_stream or not reason:
        text = expected.get("api_text", expected["text"])
        assert (found.text, found.thoughts) == (text, expected.get("thoughts", "")), wants_stream
    if not reason:
        assert found.finish == expected["finish"], wants_stream
        assert "api_calls" in expected or found.calls == expected.get("calls", []), wants_stream


def test_a_recording_is_the_same_wherever_its_bytes_are_cut() -> None:
    for name in RECORDED:
        content = (FOLDER / name).read_bytes()
        whole = read([content])
        assert read([content[index : index + 1] for index in range(len(content))]) == whole, name
        assert read([content[index : index + 7] for index in range(0, len(content), 7)]) == whole, name


def read(contents: list[bytes]) -> list[Any]:
    """Return the events of a recording."""
    events = Events()
    found = [data for content in contents for data in events.feed(content)] + events.finish()
    return [(type(data) is ErrorData, bytes(data)) for data in found if data.strip()]


def test_a_reader_makes_nothing_of_what_only_looks_like_an_answer() -> None:
    reader, part = AnswerReader(), Part()
    nothing: list[Any] = [None, {}, [], {"choices": None}, {"type": "ping"}]
    for chunk in nothing:
        assert reader.take(chunk, part) is None
    assert reader.is_empty
    assert not part
