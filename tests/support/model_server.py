"""A small OpenAI-compatible HTTP server that records what it is asked and misbehaves on demand.

In tests:

    async with ModelServer.running() as server:
        server.script(Behaviour(text="Hello"), FAULTS["rate_limited"])   # for the next two requests
        ... point OPENAI_BASE_URL at server.base_url ...
        server.requests[0].body["messages"]

Without a script the model's name (`fault:stall`) or a mark in the user's last paragraph (`[[fault:stall]]`) chooses a
fault of FAULTS; otherwise the answer tells what was asked. As a program, which needs the standard library alone as it
also runs in a container (prints its address, serves until SIGINT):

    python -m tests.support.model_server --port 9999 --record calls.jsonl --delay-ms 20 --tokens 100
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Json = dict[str, Any]
MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class ToolUse:
    """One call of a tool by the model."""

    name: str = ""
    """The tool; empty means the first one that the request offers."""
    arguments: Mapping[str, Any] | str | None = None
    """JSON object, or text that is sent as it is; None sends a text for each argument that the tool requires."""
    id: str | None = None
    """The call's id; None gives each call of the server one of its own."""


@dataclass(frozen=True)
class Behaviour:
    """How one request is answered. By default: fully, at once, telling what was asked."""

    text: str | None = None
    """The answer; None tells what was asked, or counts tokens when `tokens` is set."""
    tokens: int | None = None
    """Answer with this many tokens ("t0 t1 t2 …") instead of a text."""
    thoughts: str = ""
    """What the model thinks before it answers."""
    thoughts_field: str = "reasoning_content"
    """The field of a message or delta that brings the thoughts."""
    delay_seconds: float = 0.0
    """Pause before each token."""
    status: int = 200
    """Any other status answers with an error object."""
    error: Mapping[str, Any] | None = None
    """The error object's fields for such a status, or in place of an answer; None sends a body that is not JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Additional headers of the answer."""
    fault: Literal[
        "", "stall", "cut", "invalid_json", "wrong_shape", "error_chunk", "no_finish", "no_answer", "not_a_stream"
    ] = ""
    """What happens after `fault_after` tokens of a stream; the last two instead of any stream."""
    fault_after: int = 3
    rest: asyncio.Event | None = None
    """Set by a test: what a stream holds after `fault_after` tokens waits for it."""
    finish_reason: str = "stop"
    usage: bool = True
    """False: sends no usage, as older servers do."""
    counts_in_each_chunk: bool = False
    """True: each chunk of a stream counts what there was so far, as some servers do."""
    cached_tokens: int = 0
    tool_calls: tuple[ToolUse, ...] = ()
    """Tools that are called after the text, which is empty unless it is set; only when the request offers tools."""


def _error(status: int, kind: str, code: str | None = None, message: str = "no", **headers: str) -> Behaviour:
    return Behaviour(
        status=status,
        error={"message": message, "type": kind, "param": None, "code": code},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


FAULTS: Mapping[str, Behaviour] = {
    "unauthorized": _error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "forbidden": _error(403, "permission_error", None, "Country not supported."),
    "no_model": _error(404, "invalid_request_error", "model_not_found", "The model `x` does not exist."),
    "no_model_plain": _error(404, "NotFoundError", None, "The model `x` does not exist."),
    "wrong_address": Behaviour(status=404),
    "rate_limited": _error(429, "requests", "rate_limit_exceeded", "Rate limit reached.", retry_after="7"),
    "no_quota": _error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "too_long": _error(400, "invalid_request_error", "context_length_exceeded", "maximum context length is 8"),
    "too_long_plain": _error(400, "BadRequestError", None, "This model's maximum context length is 8 tokens."),
    "bad_request": _error(400, "invalid_request_error", "unsupported_value", "Unsupported value."),
    "prompt_filtered": _error(400, "invalid_request_error", "content_filter", "The prompt was filtered."),
    "server_error": _error(500, "server_error"),
    "bad_gateway": Behaviour(status=502),
    "overloaded": _error(503, "server_error", None, "The engine is overloaded."),
    "gateway_timeout": Behaviour(status=504),
    "silent": Behaviour(fault="stall", fault_after=0),
    "no_answer": Behaviour(fault="no_answer"),
    "not_a_stream": Behaviour(fault="not_a_stream"),
    "stall": Behaviour(fault="stall"),
    "cut": Behaviour(fault="cut"),
    "invalid_json": Behaviour(fault="invalid_json"),
    "wrong_shape": Behaviour(fault="wrong_shape"),
    "error_chunk": Behaviour(fault="error_chunk"),
    "no_finish": Behaviour(fault="no_finish"),
    "content_filter": Behaviour(finish_reason="content_filter"),
    "length": Behaviour(finish_reason="length"),
    "no_usage": Behaviour(usage=False),
    "slow": Behaviour(tokens=1000, delay_seconds=0.02),
    "loop": Behaviour(tool_calls=(ToolUse(),)),
    "parallel_loop": Behaviour(tool_calls=(ToolUse(), ToolUse(), ToolUse())),
}

WITHOUT_AN_END = frozenset({"stall", "silent", "no_answer"})
"""The faults that last until the client has waited long enough."""


FAULT_MODELS = ",".join(f"fault:{name}" for name in FAULTS)
"""The models that choose a fault by their name, as CONCERTO_MODELS offers them."""


def patience_for(fault: str) -> float:
    """Return how many seconds a client should wait for the model's next words: a busy machine is late with them too."""
    return 3.0 if fault in WITHOUT_AN_END else 30.0


_MARK = re.compile(r"\[\[fault:([a-z_]+)\]\]")


@dataclass(frozen=True)
class Request:
    """One recorded request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json
    at: float
    """Seconds since the epoch."""


class ModelServer:
    """The server; its requests, its script, and how many streams it has open."""

    def __init__(self, *, default: Behaviour | None = None, record: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.default = default or Behaviour()
        self.choose: Callable[[Json], Behaviour | None] | None = None
        """Set by a test: picks the behaviour by the request's body; None leaves it to script, mark and default."""
        self.open_streams = 0
        self.sent_tokens = 0
        self.port = 0
        self.sent_calls = 0
        self._script: deque[Behaviour] = deque()
        self._record = record
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, *, host: str = "127.0.0.1", port: int = 0, default: Behaviour | None = None, record: Path | None = None
    ) -> AsyncIterator["ModelServer"]:
        """Serve on `host` while the block runs; port 0 picks a free one."""
        server = cls(default=default, record=record)
        listener = await asyncio.start_server(server._accept, host, port, limit=MAX_BODY_BYTES)
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            listener.close()
            for connection in list(server._connections):
                connection.cancel()
            if server._connections:
                await asyncio.wait(set(server._connections))
            await listener.wait_closed()

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def chats(self) -> list[Json]:
        """Bodies of the chat completion requests so far."""
        return [request.body for request in self.requests if request.path.endswith("/chat/completions")]

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next chat requests like this, one each."""
        self._script.extend(behaviours)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _read_request(reader)
                if request is None or not await self._answer(request, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is done with."""
        self.requests.append(request)
        if self._record is not None:
            line = json.dumps({"path": request.path, "at": request.at, "body": request.body})
            with self._record.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if request.method == "GET" and request.path.endswith("/models"):
            models = [{"id": "test-model", "object": "model", "created": 0, "owned_by": "tests"}]
            return await _send_json(writer, 200, {"object": "list", "data": models})
        if request.method != "POST" or not request.path.endswith("/chat/completions"):
            return await _send_json(writer, 404, {"detail": "Not Found"})
        behaviour = self._behaviour_for(request.body)
        if behaviour.status != 200 or behaviour.error is not None:
            if behaviour.error is None:
                return await _send(writer, behaviour.status, b"<html>no</html>", "text/html", behaviour.headers)
            return await _send_json(writer, behaviour.status, {"error": dict(behaviour.error)}, behaviour.headers)
        if behaviour.fault == "no_answer":
            await asyncio.Event().wait()
        if not request.body.get("stream") or behaviour.fault == "not_a_stream":
            return await self._send_whole(writer, request.body, behaviour)
        self.open_streams += 1
        try:
            return await self._send_stream(writer, request.body, behaviour)
        finally:
            self.open_streams -= 1

    def _behaviour_for(self, body: Json) -> Behaviour:
        chosen = self.choose(body) if self.choose is not None else None
        if chosen is not None:
            return chosen
        if self._script:
            return self._script.popleft()
        name = str(body.get("model", ""))
        # A question that was never answered may stand before the last one, in the same message.
        mark = _MARK.search(_last_user_text(body).rpartition("\n\n")[2])
        found = name.removeprefix("fault:") if name.startswith("fault:") else mark.group(1) if mark else ""
        return FAULTS.get(found, self.default)

    async def _send_whole(self, writer: asyncio.StreamWriter, body: Json, behaviour: Behaviour) -> bool:
        tokens, calls = _tokens(body, behaviour), self._calls(body, behaviour)
        await asyncio.sleep(behaviour.delay_seconds * len(tokens))  # the speed of the model
        message: Json = {"role": "assistant", "content": "".join(tokens)}
        if behaviour.thoughts:
            message[behaviour.thoughts_field] = behaviour.thoughts
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        answer = {
            **_head(body, "chat.completion"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": "tool_calls" if calls else behaviour.finish_reason,
                }
            ],
            "usage": _usage(body, tokens, behaviour),
        }
        self.sent_tokens += len(tokens)
        return await _send_json(writer, 200, answer, behaviour.headers)

    async def _send_stream(self, writer: asyncio.StreamWriter, body: Json, behaviour: Behaviour) -> bool:
        extra = "".join(f"{name}: {value}\r\n" for name, value in behaviour.headers.items())
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode()
        )
        tokens, calls = _tokens(body, behaviour), self._calls(body, behaviour)
        head = _head(body, "chat.completion.chunk")

        def chunk(delta: Json, finish_reason: str | None = None) -> Json:
            return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

        if behaviour.fault != "stall" or behaviour.fault_after:
            await _send_event(writer, json.dumps(chunk({"role": "assistant", "content": ""})))
        for thought in _words(behaviour.thoughts) if behaviour.thoughts else ():
            if behaviour.delay_seconds:
                await asyncio.sleep(behaviour.delay_seconds)  # the speed of the model
            await _send_event(writer, json.dumps(chunk({behaviour.thoughts_field: thought})))
        for position, token in enumerate(tokens):
            if behaviour.fault and position >= behaviour.fault_after:
                return await self._misbehave(writer, behaviour)
            if behaviour.rest is not None and position >= behaviour.fault_after:
                await behaviour.rest.wait()
            if behaviour.delay_seconds:
                await asyncio.sleep(behaviour.delay_seconds)  # the speed of the model
            so_far = (
                {"usage": _usage(body, tokens[: position + 1], behaviour)} if behaviour.counts_in_each_chunk else {}
            )
            await _send_event(writer, json.dumps({**chunk({"content": token}), **so_far}))
            self.sent_tokens += 1
        for delta in _call_deltas(calls):
            await _send_event(writer, json.dumps(chunk({"tool_calls": [delta]})))
        await _send_event(writer, json.dumps(chunk({}, "tool_calls" if calls else behaviour.finish_reason)))
        if behaviour.usage and (body.get("stream_options") or {}).get("include_usage"):
            await _send_event(writer, json.dumps({**head, "choices": [], "usage": _usage(body, tokens, behaviour)}))
        await _send_event(writer, "[DONE]")
        return await _end_stream(writer)

    def _calls(self, body: Json, behaviour: Behaviour) -> list[Json]:
        offered = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
        calls: list[Json] = []
        for use in behaviour.tool_calls if offered else ():
            self.sent_calls += 1
            name = use.name or offered[0]["name"]
            arguments = use.arguments
            if arguments is None:
                parameters: Json = next((tool["parameters"] for tool in offered if tool["name"] == name), {})
                arguments = dict.fromkeys(parameters.get("required", ()), "x")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            call_id = f"call_{self.sent_calls}" if use.id is None else use.id
            calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": text}})
        return calls

    async def _misbehave(self, writer: asyncio.StreamWriter, behaviour: Behaviour) -> bool:
        await writer.drain()
        match behaviour.fault:
            case "stall":
                await asyncio.Event().wait()
            case "cut":
                # A chunk that promises more bytes than come.
                writer.write(b'400\r\ndata: {"id": "chatcmpl-1", "choi')
                await writer.drain()
                return False
            case "invalid_json":
                await _send_event(writer, '{"id": "chatcmpl-1", "choices": [{"delta": {"con')
            case "wrong_shape":
                await _send_event(writer, '{"id": "chatcmpl-1", "choices": [7]}')
            case "error_chunk":
                await _send_event(writer, json.dumps({"error": {"message": "overloaded", "type": "server_error"}}))
            case _:
                pass
        return await _end_stream(writer)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target.partition("?")[0], headers, json.loads(body) if body else {}, time.time())


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
) -> bool:
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True


async def _send_json(
    writer: asyncio.StreamWriter, status: int, body: Json, headers: Mapping[str, str] | None = None
) -> bool:
    return await _send(writer, status, json.dumps(body).encode(), "application/json", headers)


async def _send_event(writer: asyncio.StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
    await writer.drain()


async def _end_stream(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _call_deltas(calls: list[Json]) -> Iterable[Json]:
    """Yield the parts in which a stream brings calls: first the name, then the arguments in two halves."""
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        yield {"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"index": index, "function": {"arguments": arguments[:half]}}
        yield {"index": index, "function": {"arguments": arguments[half:]}}


def _tokens(body: Json, behaviour: Behaviour) -> list[str]:
    if behaviour.text is None and behaviour.tool_calls and body.get("tools"):
        return []
    if behaviour.text is None and behaviour.tokens is not None:
        return [f"t{position} " for position in range(behaviour.tokens)]
    text = behaviour.text
    if text is None:
        text = f"You said: {_last_user_text(body)} I was given {len(body.get('messages', []))} messages."
    return _words(text)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or [text]


def _last_user_text(body: Json) -> str:
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "user":
            return _text_of(message.get("content"))
    return ""


def _text_of(content: str | Iterable[Json] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or ())


def _usage(body: Json, tokens: list[str], behaviour: Behaviour) -> Json:
    prompt = sum(len(_text_of(message.get("content")).split()) for message in body.get("messages", []))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(tokens),
        "total_tokens": prompt + len(tokens),
        "prompt_tokens_details": {"cached_tokens": behaviour.cached_tokens},
    }


def _head(body: Json, kind: str) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": body.get("model", "test-model")}


async def _main(arguments: argparse.Namespace) -> None:
    default = replace(Behaviour(), tokens=arguments.tokens, delay_seconds=arguments.delay_ms / 1000)
    record = Path(arguments.record) if arguments.record else None
    address = {"host": arguments.host, "port": arguments.port}
    async with ModelServer.running(**address, default=default, record=record) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A recording OpenAI-compatible model server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--record", help="file that gets one JSON line per request")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="pause before each token")
    parser.add_argument("--tokens", type=int, help="answer with this many tokens instead of an echo")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(parser.parse_args()))
