import asyncio
import contextlib
import unicodedata
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import structlog

from servicekit.rpc.identity import Caller
from servicekit.testing import SERVICE_KEY, acting_as, make_caller
from services.orchestrator.models.models import Models
from services.orchestrator.runs.calls import Calls
from services.orchestrator.runs.leases import Leases
from services.orchestrator.runs.titles import MAX_TITLE_CHARS, Titles, clean_title, title_of
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings
from services.orchestrator.tests.fakes import FakeSessions, sessions_running
from tests.support.model_server import FAULTS, Behaviour, ModelServer
from tests.support.waiting import until

FAMILY = "👨\u200d👩\u200d👧\u200d👦"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  Plan   my\ttrip ", "Plan my trip"),
        ("\n\n  \nFirst\nSecond", "First"),
        ("First\u2028Second", "First"),
        ("a\x07b", "a b"),
        ("x" * 60, "x" * 60),
        ("", ""),
        (" \n\t ", ""),
        (" \n" * 500_000 + "Late", "Late"),
        ("x" * 1_000_000, "x" * 59 + "…"),
        ("word " * 20, "word word word word word word word word word word word word…"),
        ("x" * 61, "x" * 59 + "…"),
        ("今" * 80, "今" * 59 + "…"),
        ("short " + "x" * 80, "short " + "x" * 53 + "…"),
    ],
)
def test_title_is_the_first_line_cut_where_a_reader_would(text: str, title: str) -> None:
    assert title_of(text) == title


@pytest.mark.parametrize("unit", ["e\u0301", "👍🏽", FAMILY, "🇩🇪", "❤\ufe0f", "नी", "🏴\U000e0067\U000e007f"])
@pytest.mark.parametrize("lead", range(8))
def test_no_character_is_cut_in_two(unit: str, lead: int) -> None:
    title = title_of("x" * lead + unit * 60)
    assert len(title) <= MAX_TITLE_CHARS
    whole = title.removesuffix("…").removeprefix("x" * lead)
    assert whole == unit * (len(whole) // len(unit))
    assert whole


def test_marks_without_end_still_give_a_title() -> None:
    title = title_of("a" + "\u0301" * 200)
    assert 0 < len(title) <= MAX_TITLE_CHARS
    assert unicodedata.normalize("NFC", title)


# Titles that the model writes


@dataclass
class Bench:
    """Titles between a model server and a sessions service, and one user."""

    titles: Titles
    model: ModelServer
    sessions: FakeSessions
    caller: Caller
    idle: asyncio.Event

    def add_session(self, *contents: str, name: str = "") -> str:
        session_id = self.sessions.add_session(self.caller.user_id, name=name)
        self.sessions.fill(session_id, list(contents))
        return session_id

    async def name(self, session_id: str, order: int = 1) -> str:
        """Name the session as a run does, and return the name that it has at once."""
        with acting_as(self.caller):
            message = self.sessions.messages[session_id][order - 1]
            await self.titles.name_session(session_id, message, model="test-model")
        return self.sessions.sessions[session_id].name

    async def written(self, session_id: str) -> str:
        """Return the name once nothing is being written any more."""
        await until(lambda: not self.titles.waiting)
        return self.sessions.sessions[session_id].name


MakeBench = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> MakeBench:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CONCERTO_MODEL", "CONCERTO_TITLE_MODEL", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)

    @contextlib.asynccontextmanager
    async def make(*, offline: bool = False, model: str = "", max_wait_seconds: float = 30.0) -> AsyncIterator[Bench]:
        async with ModelServer.running() as server, sessions_running() as sessions:
            values: dict[str, Any] = {} if offline else {"openai_base_url": server.base_url, "openai_api_key": "k"}
            models = Models(Settings(_env_file=None, **values))
            store = SessionsClient.at(sessions.target, service_key=SERVICE_KEY)
            leases = Leases(store)
            calls = Calls(store=store, leases=leases, prices={})
            idle = asyncio.Event()
            idle.set()
            titles = Titles(
                store=store,
                models=models,
                calls=calls,
                idle=idle,
                model=model,
                pause_seconds=0,
                max_wait_seconds=max_wait_seconds,
            )
            try:
                yield Bench(titles, server, sessions.fake, make_caller(str(uuid4())), idle)
            finally:
                await titles.close()
                await calls.close()
                await leases.close()
                await models.close()
                await store.close()

    return make


@pytest.fixture
async def bench(make_bench: MakeBench) -> AsyncIterator[Bench]:
    async with make_bench() as made:
        yield made


async def test_first_line_is_the_name_at_once_and_the_models_title_follows(bench: Bench) -> None:
    session_id = bench.add_session("Please help me to plan\na trip")
    bench.model.script(Behaviour(text='"Planning a Trip."\n\nI hope that helps!'))
    assert await bench.name(session_id) == "Please help me to plan"
    assert await bench.written(session_id) == "Planning a Trip"
    (body,) = bench.model.chats
    assert body["model"] == "test-model"
    assert body["max_completion_tokens"] == 256
    assert body["messages"][-1]["content"] == "Please help me to plan\na trip"
    assert "tools" not in body


@pytest.mark.parametrize(
    "behaviour",
    [
        FAULTS["rate_limited"],
        FAULTS["bad_request"],
        FAULTS["cut"],
        FAULTS["content_filter"],
        Behaviour(text=""),
        Behaviour(text='"..."\n \n'),
    ],
)
async def test_first_line_stays_when_the_model_writes_nothing_of_use(bench: Bench, behaviour: Behaviour) -> None:
    session_id = bench.add_session("Hello there")
    bench.model.script(behaviour)
    await bench.name(session_id)
    assert await bench.written(session_id) == "Hello there"
    assert len(bench.model.chats) == 1


async def test_name_of_the_users_own_is_never_replaced(bench: Bench) -> None:
    named = bench.add_session("Hello", name="Mine")
    assert await bench.name(named) == "Mine"
    assert bench.model.chats == []
    renamed = bench.add_session("Hello")
    bench.idle.clear()
    await bench.name(renamed)
    bench.sessions.sessions[renamed].name = "Changed meanwhile"
    bench.idle.set()
    assert await bench.written(renamed) == "Changed meanwhile"
    assert len(bench.model.chats) == 1


async def test_title_waits_until_no_answer_is_under_way(bench: Bench) -> None:
    session_id = bench.add_session("Hello")
    bench.model.script(Behaviour(text="A Greeting"))
    bench.idle.clear()
    assert await bench.name(session_id) == "Hello"
    await asyncio.sleep(0.1)  # that nothing is asked has no event
    assert bench.model.chats == []
    bench.idle.set()
    assert await bench.written(session_id) == "A Greeting"


async def test_title_does_not_wait_for_ever(make_bench: MakeBench) -> None:
    async with make_bench(max_wait_seconds=0.05) as bench:
        session_id = bench.add_session("Hello")
        bench.model.script(Behaviour(text="A Greeting"))
        bench.idle.clear()
        await bench.name(session_id)
        assert await bench.written(session_id) == "A Greeting"


async def test_later_run_names_a_session_after_its_first_message(bench: Bench) -> None:
    session_id = bench.add_session("First words", "An answer", "Second words")
    bench.model.script(Behaviour(text="Of Words"))
    assert await bench.name(session_id, order=3) == "First words"
    assert await bench.written(session_id) == "Of Words"
    assert await bench.name(session_id, order=3) == "Of Words"
    assert len(bench.model.chats) == 1


@pytest.mark.parametrize("values", [{"offline": True}, {"model": "off"}])
async def test_first_line_is_all_offline_and_when_titles_are_off(make_bench: MakeBench, values: dict[str, Any]) -> None:
    async with make_bench(**values) as bench:
        session_id = bench.add_session("Hello")
        await bench.name(session_id)
        assert await bench.written(session_id) == "Hello"
        assert bench.model.chats == []


async def test_configured_model_writes_titles(make_bench: MakeBench) -> None:
    async with make_bench(model="small-model") as bench:
        session_id = bench.add_session("Hello")
        await bench.name(session_id)
        await bench.written(session_id)
        assert bench.model.chats[0]["model"] == "small-model"


async def test_closing_gives_up_titles_that_are_not_written_yet(bench: Bench) -> None:
    session_id = bench.add_session("Hello")
    bench.idle.clear()
    await bench.name(session_id)
    await bench.titles.close()
    assert bench.titles.waiting == 0
    assert bench.sessions.sessions[session_id].name == "Hello"


async def test_naming_raises_nothing_when_the_sessions_service_fails(bench: Bench) -> None:
    session_id = bench.add_session("Hello")
    bench.sessions.refuse["UpdateSession"] = "DATABASE_UNAVAILABLE"
    assert await bench.name(session_id) == ""
    assert bench.model.chats == []


async def test_what_a_title_cost_is_logged_without_its_words(bench: Bench) -> None:
    session_id = bench.add_session("SECRET question")
    bench.model.script(Behaviour(text="SECRET title"))
    with structlog.testing.capture_logs() as entries:
        await bench.name(session_id)
        await bench.written(session_id)
    (entry,) = [entry for entry in entries if entry["event"] == "title.written"]
    assert entry["prompt_tokens"] > 0
    assert entry["completion_tokens"] == 2
    assert "SECRET" not in str(entries)


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("Plans for Lisbon", "Plans for Lisbon"),
        ("**Title: Plans for Lisbon**", "Plans for Lisbon"),
        ("# „Reise nach Lissabon“.", "Reise nach Lissabon"),
        ("\n\n---\nPlans", "Plans"),
        ("旅行计划。", "旅行计划"),
        ("And then...", "And then..."),
        ("Learning C#", "Learning C#"),
        ("", ""),
        ("***", ""),
        ("word " * 40, "word word word word word word word word word word word word…"),
    ],
)
def test_models_title_is_freed_of_what_models_put_around_it(answer: str, title: str) -> None:
    assert clean_title(answer) == title
