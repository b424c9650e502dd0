import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.model_server import FAULTS, Behaviour, ModelServer, ToolUse

ROOT = Path(__file__).resolve().parents[2]
HELLO: Any = [{"role": "user", "content": "Hello"}]


def client_of(base_url: str) -> Any:
    return openai.AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0)


async def test_official_client_gets_whole_and_streamed_answers() -> None:
    async with ModelServer.running() as server, client_of(server.base_url) as client:
        whole = await client.chat.completions.create(model="m", messages=HELLO)
        stream = await client.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        models = await client.models.list()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert whole.choices[0].message.content == text == "You said: Hello I was given 1 messages."
        assert chunks[-1].usage == whole.usage
        assert [model.id for model in models.data] == ["test-model"]
        assert [body["messages"] for body in server.chats] == [HELLO, HELLO]


async def test_usage_is_streamed_only_when_asked_for() -> None:
    async with ModelServer.running() as server, client_of(server.base_url) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert [chunk.usage async for chunk in stream if chunk.usage] == []


async def test_script_model_name_and_mark_choose_the_behaviour() -> None:
    async with ModelServer.running(default=Behaviour(tokens=3)) as server, client_of(server.base_url) as client:
        server.script(Behaviour(text="Scripted"))
        first = await client.chat.completions.create(model="fault:rate_limited", messages=HELLO)
        assert first.choices[0].message.content == "Scripted"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="fault:rate_limited", messages=HELLO)
        assert caught.value.response.headers["retry-after"] == "7"
        marked: Any = [{"role": "user", "content": "Hello [[fault:unauthorized]]"}]
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=marked)
        last = await client.chat.completions.create(model="m", messages=HELLO)
        assert last.choices[0].message.content == "t0 t1 t2 "


async def test_scripted_tool_calls_come_whole_and_in_parts() -> None:
    tools: Any = [
        {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": {}, "required": ["place"]}},
        }
        for name in ("weather", "news")
    ]
    asks = Behaviour(text="Let me see.", tool_calls=(ToolUse(), ToolUse("news", {"place": "Köln", "days": 3}, "mine")))
    async with ModelServer.running() as server, client_of(server.base_url) as client:
        server.script(asks, asks, asks)
        whole = await client.chat.completions.create(model="m", messages=HELLO, tools=tools)
        message = whole.choices[0].message
        assert (message.content, whole.choices[0].finish_reason) == ("Let me see.", "tool_calls")
        assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()] == [
            ("call_1", "weather", '{"place": "x"}'),
            ("mine", "news", '{"place": "K\\u00f6ln", "days": 3}'),
        ]
        stream = await client.chat.completions.create(model="m", messages=HELLO, tools=tools, stream=True)
        arguments = {0: "", 1: ""}
        names: dict[int, str] = {}
        reasons = []
        async for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or ():
                arguments[call.index] += call.function.arguments
                names[call.index] = names.get(call.index) or call.function.name
            reasons.append(chunk.choices[0].finish_reason)
        assert arguments == {0: '{"place": "x"}', 1: '{"place": "K\\u00f6ln", "days": 3}'}
        assert names == {0: "weather", 1: "news"}
        assert reasons[-1] == "tool_calls"
        plain = await client.chat.completions.create(model="m", messages=HELLO)
        assert plain.choices[0].message.tool_calls is None
        assert plain.choices[0].finish_reason == "stop"


async def test_server_ends_although_a_stream_stalls() -> None:
    async with ModelServer.running() as server, client_of(server.base_url) as client:
        server.script(FAULTS["stall"])
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        await anext(aiter(stream))
        assert server.open_streams == 1
        await stream.close()


@pytest.mark.parametrize(
    "program", [("-m", "tests.support.model_server"), ("-I", "-S", str(ROOT / "tests" / "support" / "model_server.py"))]
)
async def test_program_prints_its_address_and_records(tmp_path: Path, program: tuple[str, ...]) -> None:
    record = tmp_path / "calls.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, "--record", str(record), "--tokens", "5", "--delay-ms", "1",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        base_url = (await process.stdout.readline()).decode().strip()
        async with client_of(base_url) as client:
            answer = await client.chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == "t0 t1 t2 t3 t4 "
        (line,) = record.read_text().splitlines()
        assert json.loads(line)["body"]["messages"] == HELLO
    finally:
        process.terminate()
        await process.wait()
