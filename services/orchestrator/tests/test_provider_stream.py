import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from servicekit.errors import AppError
from services.orchestrator.models.provider_errors import MALFORMED
from services.orchestrator.models.provider_stream import MAX_VALUES, parts_of
from services.orchestrator.models.server_chunks import MAX_ANSWER_CHARS, MAX_CHUNKS_AT_ONCE, Part
from services.orchestrator.models.server_events import MAX_EVENT_BYTES, Events
from services.orchestrator.models.thinking import Thinking
from services.orchestrator.steps import TokenUsage

HELLO = "Grüße, 世界 👋"


def chunk(delta: Any, **choice: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, **choice}]}


def sse(*chunks: Any, end: str = "\n") -> bytes:
    return "".join(f"data: {json.dumps(one, ensure_ascii=False)}{end}{end}" for one in chunks).encode()


DONE = b"data: [DONE]\n\n"
STOP = chunk({}, finish_reason="stop")
USAGE = {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


@contextlib.asynccontextmanager
async def answered(body: AsyncIterator[bytes]) -> AsyncIterator[httpx2.Response]:
    """Yield the real client's response, an answer that comes in these pieces."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    client = openai.AsyncOpenAI(
        api_key="x", base_url="http://model.test/v1", http_client=httpx2.AsyncClient(transport=transport)
    )
    async with client:
        response: Any = await client.post(
            "/chat/completions",
            body={},
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        yield response


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def listen(response: httpx2.Response, received: list[Part], *, stall_seconds: float = 5.0) -> None:
    async for part in parts_of(response, stall_seconds=stall_seconds):
        received += [part]


async def read(*contents: bytes) -> list[Part]:
    received: list[Part] = []
    async with answered(pieces(*contents)) as response:
        await listen(response, received)
    return received


def text_of(parts: list[Part]) -> str:
    return "".join(text for part in parts for text in part.texts)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_the_same_wherever_the_bytes_are_cut(end: str) -> None:
    content = f": hello{end}{end}event: x{end}id: 7{end}data: {HELLO}{end}{end}data:one{end}data: two{end}{end}"
    content += f"retry: 5{end}{end}data: last{end}{end}"
    encoded = content.encode()
    whole = [HELLO.encode(), b"one\ntwo", b"last"]
    for first in range(len(encoded) + 1):
        for second in range(first, len(encoded) + 1, 7):
            events = Events()
            found = [*events.feed(encoded[:first]), *events.feed(encoded[first:second])]
            assert [*found, *events.feed(encoded[second:])] == whole, (first, second)


def test_events_are_found_byte_by_byte() -> None:
    events = Events()
    content = sse(chunk({"content": HELLO}), STOP, end="\r\n") + DONE
    found = [one for index in range(len(content)) for one in events.feed(content[index : index + 1])]
    assert json.loads(found[0])["choices"][0]["delta"]["content"] == HELLO
    assert found[-1] == b"[DONE]"
    assert len(found) == 3


def test_an_event_without_its_empty_line_is_none() -> None:
    assert Events().feed(b"data: half\n") == []
    assert Events().feed(b"data: half") == []


async def test_pieces_that_come_with_one_read_are_one_part_and_stay_separate() -> None:
    parts = await read(
        sse(chunk({"role": "assistant", "content": ""}), *(chunk({"content": f"t{n}"}) for n in range(3)))
    )
    assert [list(part.texts) for part in parts] == [["t0", "t1", "t2"]]


async def test_every_cut_gives_the_same_answer() -> None:
    content = sse(chunk({"role": "assistant"}), chunk({"content": HELLO}), chunk({"content": "."}), STOP, USAGE) + DONE
    for index in range(0, len(content), 3):
        parts = await read(content[:index], content[index:])
        assert text_of(parts) == f"{HELLO}."
        assert [part.finish_reason for part in parts if part.finish_reason] == ["stop"]
        (usage,) = [part.usage for part in parts if part.usage]
        assert usage == TokenUsage(prompt_tokens=3, completion_tokens=2)


async def test_what_follows_the_end_is_passed_over() -> None:
    assert text_of(await read(sse(chunk({"content": "a"})) + DONE + b"data: nonsense\n\n", b"more")) == "a"


async def test_empty_choices_empty_deltas_and_nulls_say_nothing() -> None:
    chunks = [{"id": "x", "choices": []}, chunk(None), chunk({}), chunk({"content": None}), chunk({"content": "a"})]
    assert text_of(await read(sse(*chunks))) == "a"


async def test_halves_of_characters_pass_as_they_came() -> None:
    content = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    content += b'data: {"choices": [{"delta": {"content": "\\ude00"}}]}\n\n'
    assert text_of(await read(content)) == "a\ud83d\ude00"


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (b'data: {"choices": [{"delta": {"con\n\n', ValueError),
        (b"data: \xff\xfe\n\n", ValueError),
        (b"data: 7\n\n", TypeError),
        (b'data: {"choices": [7]}\n\n', TypeError),
        (b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n', openai.APIError),
        (b'data: {"error": "overloaded", "choices": []}\n\n', openai.APIError),
    ],
)
async def test_what_came_before_a_failure_is_said_first(broken: bytes, kind: type[Exception]) -> None:
    received: list[Part] = []
    async with answered(pieces(sse(chunk({"content": "a"})) + broken + sse(chunk({"content": "b"})))) as response:
        with pytest.raises(kind):
            await listen(response, received)
        assert response.is_closed
    assert text_of(received) == "a"


@pytest.mark.parametrize(
    "content",
    [sse(chunk({"content": {"text": "x"}})), sse(chunk({"content": 7})), b"data: " + b"[" * 100_000 + b"\n\n"],
)
async def test_what_is_no_answer_counts_as_malformed_and_never_as_text(content: bytes) -> None:
    with pytest.raises(MALFORMED):
        await read(content)


@pytest.mark.parametrize("content", [b"", b'{"choices": []}', b": nothing\n\n", DONE])
async def test_a_stream_without_any_chunk_is_malformed(content: bytes) -> None:
    with pytest.raises(ValueError, match="without any chunk"):
        await read(content)


async def test_comments_are_no_sign_of_life() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield sse(chunk({"content": "a"}))
        while True:
            await asyncio.sleep(0.02)  # comments come far more often than a stall lasts
            yield b": still there\n\n"

    async with answered(body()) as response:
        with pytest.raises(TimeoutError):
            await listen(response, [], stall_seconds=0.2)


def feed(events: Events, content: bytes, *, times: int) -> None:
    for _ in range(times):
        events.feed(content)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_and_an_event_without_an_end_are_no_answer(end: bytes) -> None:
    events = Events()
    with pytest.raises(ValueError, match="without an end"):
        feed(events, b"data: " + b"x" * 65_536 + end, times=MAX_EVENT_BYTES // 65_536 + 2)
    assert not events.finish(), "the error keeps nothing of it"


def test_lines_of_an_event_cost_more_than_their_letters() -> None:
    events = Events()
    with pytest.raises(ValueError, match="without an end"):
        feed(events, b"data:\n" * 1_000, times=MAX_EVENT_BYTES // 64_000 + 2)


def test_events_one_after_the_other_have_no_bound_together() -> None:
    events = Events()
    for _ in range(MAX_EVENT_BYTES // 1_000_000 + 2):
        assert events.feed(b"event: x\ndata: " + b"x" * 1_000_000 + b"\n\n") == [b"x" * 1_000_000]


@pytest.mark.parametrize(
    "delta", [{"content": "x" * 100_000}, {"reasoning": "x" * 100_000}, {"content": " " * 100_000}]
)
async def test_an_answer_without_an_end_is_too_large(delta: Any) -> None:
    with pytest.raises(AppError, match="MODEL_ANSWER_TOO_LARGE"):
        await read(*[sse(chunk(delta))] * (MAX_ANSWER_CHARS // 100_000 + 1))


@pytest.mark.parametrize(
    "content",
    [b"[" + b"{}," * MAX_CHUNKS_AT_ONCE + b"{}]", b'{"choices": [' + b"1," * MAX_VALUES + b"1]}"],
    ids=["chunks", "values"],
)
async def test_more_values_than_an_answer_has_are_not_read(content: bytes) -> None:
    with pytest.raises(ValueError, match="too many"):
        await read(content)


def test_white_space_waits_for_no_tag_without_an_end() -> None:
    thinking = Thinking()
    text = ""
    for _ in range(20):
        if thinking.is_past:
            break
        text += "".join(thinking.feed(" " * 100))
    assert thinking.is_past
    assert text.isspace()
    assert not any(thinking.finish(is_whole=True))
