import asyncio
import socket
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langsmith.utils import tracing_is_enabled
from pydantic import ValidationError

from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models.models import Models, TextSanitizer
from services.orchestrator.models.offline import OfflineModel
from services.orchestrator.settings import DEFAULT_SYSTEM_PROMPT, Settings
from services.orchestrator.steps import Piece
from tests.support.model_server import Behaviour, ModelServer


@pytest.fixture(autouse=True)
def _no_provider_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CONCERTO_MODEL", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


async def test_nothing_but_the_provider_is_ever_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING_V2"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "a-key-of-another-program")
    monkeypatch.setenv("LANGSMITH_GATEWAY", "true")
    called: set[Any] = set()
    real = socket.socket.connect
    loop = asyncio.get_running_loop()
    real_async, real_names = loop.sock_connect, socket.getaddrinfo

    # Other fixtures' tasks share the loop and reconnect to their own servers; what this test begins, threads included,
    # counts without exception.
    mine: ContextVar[bool] = ContextVar("mine", default=False)
    mine.set(True)
    loop_thread = threading.get_ident()

    def note(address: Any) -> None:
        if mine.get() or threading.get_ident() != loop_thread:
            called.add(address)

    def connect(self: socket.socket, address: Any) -> Any:
        note(address)
        return real(self, address)

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        note(address)
        await real_async(sock, address)

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        called.add(("name", host))
        return real_names(host, *rest, **named)

    async with ModelServer.running() as server:
        models = Models(settings(openai_api_key="test-key", openai_base_url=server.base_url))
        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        pieces = [piece async for piece in models.answer([HumanMessage("Hello")], model="test-model")]
        await asyncio.sleep(0.2)  # that nothing else is called later has no event
        monkeypatch.undo()
        await models.close()
        assert {index for index in called if index[0] != "name"} == {("127.0.0.1", server.port)}
        assert {index[1] for index in called if index[0] == "name"} <= {"127.0.0.1", b"127.0.0.1"}
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)).startswith("You said: Hello")


def test_tracing_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "true")
    Models(settings())
    assert not tracing_is_enabled()
    Models(settings(tracing=True))
    assert tracing_is_enabled()
    Models(settings())
    assert not tracing_is_enabled()


async def test_connections_are_shared_between_turns() -> None:
    async with ModelServer.running() as server:
        models = Models(settings(openai_api_key="test-key", openai_base_url=server.base_url))
        for _ in range(3):
            async for _piece in models.answer([HumanMessage("Hello")], model="test-model"):
                pass
        assert server.connections == 1
        await models.close()


async def test_answer_larger_than_a_message_is_cut() -> None:
    async with ModelServer.running() as server:
        models = Models(settings(openai_base_url=server.base_url))
        server.script(Behaviour(text=" ".join(["x" * (MAX_CONTENT_BYTES // 5 * 2)] * 4)))
        pieces = [piece async for piece in models.answer([HumanMessage("Hello")], model="test-model")]
        assert all(isinstance(piece, Piece) for piece in pieces)
        assert sum(len(piece.text) for piece in pieces if isinstance(piece, Piece)) <= MAX_CONTENT_BYTES
        assert pieces[-1] == Piece(finish_reason="length")
        await models.close()


async def test_offline_model_answers_alike_in_each_way_of_asking() -> None:
    model = OfflineModel(pause_seconds=0)
    conversation = [SystemMessage("Be brief."), HumanMessage("One"), AIMessage("Two"), HumanMessage("Three " * 50)]
    whole = await model.ainvoke(conversation)
    streamed = [chunk async for chunk in model.astream(conversation)]
    assert "".join(chunk.text for chunk in streamed) == whole.text == model.invoke(conversation).text
    assert "".join(chunk.text for chunk in model.stream(conversation)) == whole.text
    assert streamed[-1].usage_metadata == whole.usage_metadata
    assert "2 earlier messages" in whole.text
    assert "“One”" in whole.text


def test_mender_joins_halves_and_replaces_what_no_text_may_hold() -> None:
    sanitizer = TextSanitizer()
    assert sanitizer.feed("a\ud83d") + sanitizer.feed("\ude00b") + sanitizer.finish() == "a😀b"
    assert sanitizer.feed("\ud83d") + sanitizer.feed("x\0") + sanitizer.finish() == "\ufffdx\ufffd"
    assert sanitizer.feed("\udc00\ud83d") + sanitizer.finish() == "\ufffd\ufffd"


def test_settings_say_when_no_provider_is_configured() -> None:
    assert settings().offline
    assert not settings(openai_api_key="k").offline
    assert not settings(openai_base_url="http://localhost:11434/v1/").offline
    assert settings(openai_base_url="http://localhost:11434/v1/").openai_base_url == "http://localhost:11434/v1"


@pytest.mark.parametrize(
    "values",
    [
        {"openai_base_url": "localhost:11434"},
        {"openai_api_key": "your-key"},
        {"openai_api_key": "sk-a b"},
        {"openai_api_key": "sk-ab\n"},
        {"openai_api_key": " sk-ab"},
        {"openai_api_key": "sk-\u200bab"},
        {"openai_api_key": "„sk-ab“"},
        {"context_tokens": 10},
        {"stall_seconds": 0},
        {"port": 70_000},
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**values)


def test_a_key_that_no_header_may_hold_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-swordfish\u00a0")
    with pytest.raises(SystemExit) as caught:
        Settings.load(_env_file=None)
    assert "OPENAI_API_KEY: " in str(caught.value)
    assert "white space" in str(caught.value)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "line", "prompt"),
    [
        (None, "", DEFAULT_SYSTEM_PROMPT),
        ("", "", ""),
        ("Be brief.", "", "Be brief."),
        (None, "CONCERTO_SYSTEM_PROMPT=", ""),
        (None, "CONCERTO_SYSTEM_PROMPT=In short.", "In short."),
        ("Be brief.", "CONCERTO_SYSTEM_PROMPT=", "Be brief."),
        ("", "CONCERTO_SYSTEM_PROMPT=In short.", ""),
    ],
)
def test_an_empty_system_prompt_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None, line: str, prompt: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("CONCERTO_SYSTEM_PROMPT", variable)
    file = tmp_path / ".env"
    file.write_text(f"{line}\nCONCERTO_MODEL=\n", encoding="utf-8")
    loaded = Settings(_env_file=file)
    assert loaded.system_prompt == prompt
    assert loaded.model, "other empty variables are as if they were absent"


def test_answer_always_leaves_room_for_the_prompt() -> None:
    assert settings(context_tokens=512).answer_tokens == 128
    assert settings(context_tokens=128_000).answer_tokens == 8_192
    assert settings(context_tokens=1_000, max_output_tokens=900).answer_tokens == 500
    assert settings(max_output_tokens=100).answer_tokens == 100
