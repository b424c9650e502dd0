import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import jwt
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from servicekit.errors import AppError
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as, make_caller, mint_token
from services.orchestrator.agents.registry import Agents
from services.orchestrator.agents.specs import AGENTS, AgentSpec, checked
from services.orchestrator.agents.tools import MODEL_CHARS, STORED_BYTES
from services.orchestrator.models.models import Models
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import DEFAULT_SYSTEM_PROMPT, Settings
from services.orchestrator.steps import Piece, Step, ToolCall, ToolResult
from services.orchestrator.tests.fakes import FakeSessions, sessions_running
from tests.support.model_server import FAULTS, Behaviour, Json, ModelServer, ToolUse
from tests.support.waiting import until

HELLO: list[BaseMessage] = [SystemMessage(DEFAULT_SYSTEM_PROMPT), HumanMessage("Hello")]


@dataclass
class Bench:
    """Agents between a model server and a sessions service, and one user."""

    agents: Agents
    models: Models
    model: ModelServer
    sessions: FakeSessions
    caller: Caller

    async def answer(
        self, agent: str, prompt: list[BaseMessage] | None = None, *, model: str = "test-model", caller: Any = None
    ) -> list[Step]:
        steps: list[Step] = []
        await self.collect(steps, agent, prompt, model=model, caller=caller)
        return steps

    async def collect(
        self,
        steps: list[Step],
        agent: str,
        prompt: list[BaseMessage] | None = None,
        *,
        model: str = "test-model",
        caller: Any = None,
    ) -> None:
        with acting_as(caller or self.caller):
            async with contextlib.aclosing(self.agents.answer(agent, prompt or HELLO, model=model)) as answer:
                async for step in answer:
                    steps.append(step)  # noqa: PERF401 (what came before a failure is looked at, too)

    def tool_texts(self) -> list[str]:
        """Contents of the tool messages in the newest request."""
        return [entry["content"] for entry in self.model.chats[-1]["messages"] if entry["role"] == "tool"]


MakeBench = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> MakeBench:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CONCERTO_MODEL", "CONCERTO_AGENT", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)

    @contextlib.asynccontextmanager
    async def make(*, offline: bool = False, specs: Any = AGENTS, **values: Any) -> AsyncIterator[Bench]:
        async with ModelServer.running() as model, sessions_running() as sessions:
            if not offline:
                values = {"openai_base_url": model.base_url, "openai_api_key": "k", "model": "test-model", **values}
            settings = Settings(_env_file=None, **values)
            store, models = SessionsClient.at(sessions.target), Models(settings)
            agents = Agents(settings, models=models, store=store, specs=specs)
            try:
                yield Bench(agents, models, model, sessions.fake, make_caller(str(uuid4())))
            finally:
                await models.close()
                await store.close()

    return make


@pytest.fixture
async def bench(make_bench: MakeBench) -> AsyncIterator[Bench]:
    async with make_bench() as made:
        yield made


def text_of(steps: list[Step]) -> str:
    return "".join(step.text for step in steps if isinstance(step, Piece))


def calls_of(steps: list[Step]) -> list[ToolCall]:
    return [step for step in steps if isinstance(step, ToolCall)]


def results_of(steps: list[Step]) -> list[ToolResult]:
    return [step for step in steps if isinstance(step, ToolResult)]


def calling(name: str, *, text: str | None = None, call_id: str | None = None, **arguments: Any) -> Behaviour:
    return Behaviour(text=text, tool_calls=(ToolUse(name, arguments, call_id),))


def agent_asked(body: Json) -> str:
    """Which agent a request comes from, by the tools that it offers."""
    offered = {tool["function"]["name"] for tool in body.get("tools", ())}
    if "search_messages" in offered:
        return "search"
    if "summariser" in offered:
        return "orchestrator"
    return "summariser" if "sum things up" in body["messages"][0]["content"] else "assistant"


# The plain agents


async def test_assistant_is_the_plain_model_with_the_prompt_as_it_is(bench: Bench) -> None:
    steps = await bench.answer("assistant")
    assert text_of(steps).startswith("You said: Hello")
    (body,) = bench.model.chats
    assert "tools" not in body
    assert [entry["content"] for entry in body["messages"]] == [DEFAULT_SYSTEM_PROMPT, "Hello"]
    assert [step.finish_reason for step in steps if isinstance(step, Piece) and step.finish_reason] == ["stop"]


async def test_agent_framework_is_loaded_only_for_agents_with_tools() -> None:
    program = (
        "import sys, services.orchestrator.agents.registry, services.orchestrator.runs.titles\n"
        "assert not {'langchain', 'langgraph', 'services.orchestrator.agents.graphs'} & set(sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def test_summariser_has_instructions_after_the_operators_and_no_tools(bench: Bench) -> None:
    await bench.answer("summariser")
    (body,) = bench.model.chats
    system = body["messages"][0]["content"]
    assert system.startswith(DEFAULT_SYSTEM_PROMPT)
    assert "You sum things up" in system
    assert "tools" not in body


async def test_agent_keeps_a_system_message_that_is_not_the_operators(make_bench: MakeBench) -> None:
    async with make_bench(system_prompt="") as bench:
        await bench.answer("summariser", [SystemMessage("Kept."), HumanMessage("Hello")])
        contents = [entry["content"] for entry in bench.model.chats[0]["messages"]]
        assert contents[0].startswith("You sum things up")
        assert contents[0].endswith("\n\nKept.")
        assert contents[1:] == ["Hello"]


async def test_unknown_agent_is_refused_before_anything_happens(bench: Bench) -> None:
    with pytest.raises(AppError) as caught:
        bench.agents.agent_for("nobody")
    assert caught.value.reason == "AGENT_NOT_FOUND"
    assert caught.value.metadata == {"agent": "nobody"}
    assert bench.agents.agent_for("") == "assistant"
    assert bench.agents.agent_for("search") == "search"


async def test_configured_agent_answers_when_none_is_named(make_bench: MakeBench) -> None:
    async with make_bench(agent="summariser") as bench:
        assert bench.agents.agent_for("") == "summariser"
    with pytest.raises(SystemExit, match="Set CONCERTO_AGENT to one of: assistant"):
        async with make_bench(agent="nobody"):
            pass


def test_registry_refuses_what_does_not_fit_together() -> None:
    assert list(checked(AGENTS)) == ["assistant", "summariser", "search", "orchestrator"]
    one = AgentSpec("one", "One.", sub_agents=("two",))
    with pytest.raises(ValueError, match="does not exist: two"):
        checked([one])
    with pytest.raises(ValueError, match="circle: one -> two -> one"):
        checked([one, AgentSpec("two", "Two.", sub_agents=("one",))])
    with pytest.raises(ValueError, match="two agents or tools"):
        checked([AgentSpec("one", "One."), AgentSpec("one", "Again.")])
    with pytest.raises(ValueError, match="does not exist: hammer"):
        checked([AgentSpec("one", "One.", tools=("hammer",))])


# Tools


async def test_search_finds_reads_and_answers_from_the_callers_messages(bench: Bench) -> None:
    session_id = bench.sessions.add_session(bench.caller.user_id, name="Holidays")
    bench.sessions.fill(session_id, ["Where to?", "Lisbon in May", "Which hotel?", "The Blue House"])
    stranger = bench.sessions.add_session(str(uuid4()), name="Secret")
    bench.sessions.fill(stranger, ["Lisbon is a secret"])
    bench.model.script(
        calling("search_messages", text="Let me look.", query="lisbon"),
        calling("read_messages", session_id=session_id, order=2, before=0, after=2),
        Behaviour(text="You said it in Holidays."),
    )
    steps = await bench.answer("search")
    assert text_of(steps) == "Let me look.You said it in Holidays."
    search, read = calls_of(steps)
    assert (search.name, search.arguments) == ("search_messages", {"query": "lisbon"})
    found, context_read = results_of(steps)
    assert [found.call_id, context_read.call_id] == [search.call_id, read.call_id]
    (hit,) = json.loads(found.output)["hits"]
    assert (hit["conversation"], hit["session_id"], hit["order"]) == ("Holidays", session_id, 2)
    assert [entry["text"] for entry in json.loads(context_read.output)["messages"]] == [
        "Lisbon in May",
        "Which hotel?",
        "The Blue House",
    ]
    assert not found.is_error
    # What the model was told is what is shown and stored.
    assert bench.tool_texts() == [found.output, context_read.output]


async def test_text_before_a_call_comes_before_it_and_is_said_at_once(bench: Bench) -> None:
    bench.model.script(calling("search_messages", text="One moment please.", query="x"), Behaviour(text="Done."))
    steps = await bench.answer("search")
    kinds = [type(step).__name__ for step in steps if not isinstance(step, Piece) or step.text]
    assert kinds == ["Piece"] * 3 + ["ToolCall", "ToolResult", "Piece"]
    assert [step.finish_reason for step in steps if isinstance(step, Piece) and step.finish_reason] == [
        "tool_calls",
        "stop",
    ]


async def test_tools_that_are_called_together_all_answer(bench: Bench) -> None:
    session_id = bench.sessions.add_session(bench.caller.user_id)
    bench.sessions.fill(session_id, ["apple", "pear"])
    uses = tuple(ToolUse("search_messages", {"query": query}) for query in ("apple", "pear", "plum"))
    bench.model.script(Behaviour(tool_calls=uses), Behaviour(text="Done."))
    steps = await bench.answer("search")
    names = [type(step).__name__ for step in steps if not isinstance(step, Piece)]
    assert names == ["ToolCall"] * 3 + ["ToolResult"] * 3
    assert {step.call_id for step in calls_of(steps)} == {step.call_id for step in results_of(steps)}
    outputs = {result.call_id: result.output for result in results_of(steps)}
    assert ["apple" in outputs[call.call_id] for call in calls_of(steps)] == [True, False, False]


async def test_calls_whose_ids_are_used_again_or_missing_get_ids_of_their_own(bench: Bench) -> None:
    uses = (ToolUse("search_messages", {"query": "a"}, "same"), ToolUse("search_messages", {"query": "b"}, ""))
    bench.model.script(
        Behaviour(tool_calls=uses), calling("search_messages", query="c", call_id="same"), Behaviour(text="Done.")
    )
    steps = await bench.answer("search")
    ids = [call.call_id for call in calls_of(steps)]
    assert len(set(ids)) == 3
    assert all(ids)
    assert [call.arguments["query"] for call in calls_of(steps)] == ["a", "b", "c"]
    assert {result.call_id for result in results_of(steps)} == set(ids)


@pytest.mark.parametrize(
    ("behaviour", "hint"),
    [
        (calling("search_messages", session_id="x"), "query"),
        (Behaviour(tool_calls=(ToolUse("search_messages", '{"query": "hal'),)), "query"),
        (Behaviour(tool_calls=(ToolUse("search_messages", "[1, 2]"),)), "query"),
        (Behaviour(tool_calls=(ToolUse("search_messages", {"query": "x" * 30_000}),)), "query"),
        (Behaviour(tool_calls=(ToolUse("search_messages", '{"query": ' + "[" * 200 + "]" * 200 + "}"),)), "query"),
        (calling("hammer", nail=1), "hammer"),
        (calling("read_messages", session_id="no uuid", order=1), "session_id"),
    ],
)
async def test_wrong_call_is_answered_with_an_error_and_the_run_goes_on(
    bench: Bench, behaviour: Behaviour, hint: str
) -> None:
    bench.model.script(behaviour, Behaviour(text="I see."))
    steps = await bench.answer("search")
    (result,) = results_of(steps)
    assert result.is_error
    assert hint in result.output
    assert text_of(steps) == "I see."


async def test_failing_tool_is_an_error_result_and_the_run_goes_on(bench: Bench) -> None:
    bench.sessions.refuse["SearchMessages"] = "DATABASE_UNAVAILABLE"
    bench.model.script(calling("search_messages", query="x"), Behaviour(text="I could not look."))
    steps = await bench.answer("search")
    (result,) = results_of(steps)
    assert result.is_error
    assert result.output.startswith("DATABASE_UNAVAILABLE: ")
    assert text_of(steps) == "I could not look."


async def test_token_that_expired_during_the_run_is_told_to_the_model(bench: Bench) -> None:
    token = mint_token(bench.caller.user_id, expires_in=-60)
    expired = Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))
    bench.model.script(calling("search_messages", query="x"), Behaviour(text="Please ask again."))
    steps = await bench.answer("search", caller=expired)
    (result,) = results_of(steps)
    assert result.is_error
    assert result.output.startswith("TOKEN_EXPIRED: The access token has expired.")
    assert "they can ask again" in result.output
    assert text_of(steps) == "Please ask again."


async def test_long_output_is_cut_for_the_model_and_longer_for_the_store(bench: Bench) -> None:
    session_id = bench.sessions.add_session(bench.caller.user_id)
    bench.sessions.fill(session_id, ["ä" * 2_900] * 21)
    bench.model.script(
        calling("read_messages", session_id=session_id, order=11, before=99, after=99), Behaviour(text="Done.")
    )
    steps = await bench.answer("search")
    (result,) = results_of(steps)
    assert MODEL_CHARS * 2 < len(result.output.encode()) <= STORED_BYTES
    (shown,) = bench.tool_texts()
    assert MODEL_CHARS < len(shown) < MODEL_CHARS + 100
    assert shown.endswith("more characters were left out]")


async def test_earlier_outputs_of_tools_are_cut_as_well(bench: Bench) -> None:
    call = {"type": "tool_call", "id": "call_1", "name": "search_messages", "args": {"query": "x"}}
    prompt = [
        *HELLO,
        AIMessage("", tool_calls=[call]),
        ToolMessage("y" * 50_000, tool_call_id="call_1"),
        AIMessage("Found."),
        HumanMessage("And now?"),
    ]
    await bench.answer("assistant", prompt)
    assert len(bench.tool_texts()[0]) < MODEL_CHARS + 100


async def test_characters_that_no_text_may_hold_do_not_reach_the_store(bench: Bench) -> None:
    bench.model.script(
        Behaviour(tool_calls=(ToolUse("search_messages", '{"query": "a\\u0000b"}'),)), Behaviour(text="Done.")
    )
    steps = await bench.answer("search")
    assert calls_of(steps)[0].arguments == {"query": "a\ufffdb"}


# Delegation


async def test_orchestrator_asks_its_agents_and_answers_in_its_own_words(bench: Bench) -> None:
    session_id = bench.sessions.add_session(bench.caller.user_id, name="Holidays")
    bench.sessions.fill(session_id, ["Lisbon in May"])
    answers = {
        "orchestrator": [
            Behaviour(
                text="I ask two agents.",
                tool_calls=(
                    ToolUse("search", {"task": "Find Lisbon."}),
                    ToolUse("summariser", {"task": "Sum up.", "with_conversation": True}),
                ),
            ),
            Behaviour(text="All in all: May."),
        ],
        "search": [calling("search_messages", text="SUBTEXT", query="lisbon"), Behaviour(text="It was in May.")],
        "summariser": [Behaviour(text="A greeting.")],
    }
    bench.model.choose = lambda body: answers[agent_asked(body)].pop(0)
    steps = await bench.answer("orchestrator")
    assert text_of(steps) == "I ask two agents.All in all: May."
    assert [call.name for call in calls_of(steps)] == ["search", "summariser"]
    outputs = {result.name: result.output for result in results_of(steps)}
    assert outputs == {"search": "It was in May.", "summariser": "A greeting."}
    asked = {agent_asked(body): body["messages"] for body in bench.model.chats}
    assert [entry["role"] for entry in asked["summariser"]] == ["system", "user"]
    assert asked["summariser"][1]["content"] == "Sum up.\n\nThe conversation so far:\n\nUser: Hello"
    assert asked["search"][1]["content"] == "Find Lisbon."
    # Every call of a model counts, those of the agents that were asked, too.
    assert len([step for step in steps if isinstance(step, Piece) and step.usage]) == len(bench.model.chats) == 5


async def test_agent_that_fails_is_an_error_result(bench: Bench) -> None:
    answers = {
        "orchestrator": [calling("assistant", task="Think."), Behaviour(text="It failed.")],
        "assistant": [FAULTS["rate_limited"]],
    }
    bench.model.choose = lambda body: answers[agent_asked(body)].pop(0)
    steps = await bench.answer("orchestrator")
    (result,) = results_of(steps)
    assert result.is_error
    assert result.output.startswith("MODEL_RATE_LIMITED: ")
    assert text_of(steps) == "It failed."


async def test_offline_orchestrator_answers_plainly_and_says_so(make_bench: MakeBench) -> None:
    async with make_bench(offline=True) as bench:
        text = text_of(await bench.answer("orchestrator"))
        assert text.startswith("The agent “orchestrator” works with tools")
        assert "offline model" in text
        assert text_of(await bench.answer("assistant")).startswith("I am Concerto's offline model")
        assert bench.model.requests == []


# Limits and ends


async def refusal(bench: Bench, agent: str, **values: Any) -> tuple[AppError, list[Step]]:
    steps: list[Step] = []
    with pytest.raises(AppError) as caught:
        await bench.collect(steps, agent, **values)
    return caught.value, steps


@pytest.mark.parametrize("model", ["fault:loop", "fault:parallel_loop"])
@pytest.mark.parametrize("agent", ["search", "orchestrator"])
async def test_runaway_loop_ends_at_the_limit_of_steps(bench: Bench, agent: str, model: str) -> None:
    error, steps = await refusal(bench, agent, model=model)
    assert error.reason == "RUN_LIMIT_REACHED"
    assert error.metadata == {"limit": "25 steps"}
    assert len(bench.model.chats) + len(calls_of(steps)) <= 25
    assert len(calls_of(steps)) >= 1
    assert sorted(call.call_id for call in calls_of(steps)) == sorted(result.call_id for result in results_of(steps))


async def test_loop_of_an_agent_that_is_asked_counts_for_the_run(make_bench: MakeBench) -> None:
    async with make_bench(run_max_steps=8) as bench:

        def choose(body: Json) -> Behaviour:
            return FAULTS["loop"] if agent_asked(body) == "search" else calling("search", task="Find it.")

        bench.model.choose = choose
        error, steps = await refusal(bench, "orchestrator")
        assert error.metadata == {"limit": "8 steps"}
        (call,) = calls_of(steps)
        (result,) = results_of(steps)
        assert (result.call_id, result.is_error) == (call.call_id, True)
        assert "ended" in result.output


async def test_run_ends_at_the_limit_of_tokens(make_bench: MakeBench) -> None:
    async with make_bench(run_max_tokens=100) as bench:
        error, steps = await refusal(bench, "search", model="fault:loop")
        assert error.reason == "RUN_LIMIT_REACHED"
        assert error.metadata == {"limit": "100 tokens"}
        assert len(calls_of(steps)) == len(results_of(steps)) >= 1


async def test_tokens_are_estimated_where_the_provider_does_not_count(make_bench: MakeBench) -> None:
    async with make_bench(run_max_tokens=100) as bench:
        bench.model.default = Behaviour(tool_calls=(ToolUse("search_messages"),), usage=False)
        error, steps = await refusal(bench, "search")
        assert error.metadata == {"limit": "100 tokens"}
        usages = [step.usage for step in steps if isinstance(step, Piece) and step.usage]
        assert usages
        assert all(usage.is_estimated and usage.prompt_tokens for usage in usages)


async def test_failure_of_the_agents_own_model_ends_the_run_with_its_reason(bench: Bench) -> None:
    bench.model.script(calling("search_messages", query="x"), FAULTS["unauthorized"])
    error, steps = await refusal(bench, "search")
    assert error.reason == "MODEL_CREDENTIALS_REJECTED"
    assert len(results_of(steps)) == 1


async def test_what_was_said_before_the_model_broke_off_stays_said(bench: Bench) -> None:
    bench.model.script(Behaviour(tokens=10, fault="cut", fault_after=4))
    error, steps = await refusal(bench, "search")
    assert error.reason == "MODEL_CONNECTION_LOST"
    assert text_of(steps) == "t0 t1 t2 t3 "


async def test_prompt_that_outgrows_the_window_loses_what_is_oldest(make_bench: MakeBench) -> None:
    async with make_bench(context_tokens=4_000, max_output_tokens=500) as bench:
        session_id = bench.sessions.add_session(bench.caller.user_id)
        bench.sessions.fill(session_id, ["word " * 600] * 4)
        read = calling("read_messages", session_id=session_id, order=1, before=0, after=2)
        bench.model.script(read, read, Behaviour(text="Done."))
        prompt = [HELLO[0], HumanMessage("Earlier " * 1_000), AIMessage("Answer"), HumanMessage("Question")]
        steps = await bench.answer("search", prompt)
        assert text_of(steps) == "Done."
        contents = [entry["content"] for entry in bench.model.chats[-1]["messages"]]
        assert "Question" in contents
        assert not any(str(content).startswith("Earlier") for content in contents)
        assert bench.tool_texts()[0].startswith("[left out")


async def test_closing_the_answer_ends_everything_that_goes_on_for_it(bench: Bench) -> None:
    def choose(body: Json) -> Behaviour:
        if agent_asked(body) == "orchestrator":
            return Behaviour(tool_calls=(ToolUse("assistant", {"task": "a"}), ToolUse("summariser", {"task": "b"})))
        return FAULTS["slow"]

    bench.model.choose = choose
    with acting_as(bench.caller):
        async with contextlib.aclosing(bench.agents.answer("orchestrator", HELLO, model="test-model")) as answer:
            while not isinstance(await anext(answer), ToolCall):
                pass
            await until(lambda: bench.model.open_streams == 2)
    assert bench.agents.idle.is_set()
    await until(lambda: not bench.model.open_streams)
    left = [task.get_coro() for task in asyncio.all_tasks() if "agent_graphs" in repr(task)]
    assert left == []


async def test_limit_ends_what_other_agents_of_the_run_still_do(make_bench: MakeBench) -> None:
    async with make_bench(run_max_steps=12) as bench:
        both = (ToolUse("search", {"task": "a"}), ToolUse("summariser", {"task": "b"}))
        answers = {
            "orchestrator": Behaviour(tool_calls=both),
            "search": FAULTS["loop"],
            "summariser": FAULTS["slow"],
        }
        bench.model.choose = lambda body: answers[agent_asked(body)]
        error, steps = await refusal(bench, "orchestrator")
        assert error.reason == "RUN_LIMIT_REACHED"
        assert [result.is_error for result in results_of(steps)] == [True, True]
        await until(lambda: not bench.model.open_streams)
        assert bench.agents.idle.is_set()


async def test_agents_are_busy_while_they_answer(bench: Bench) -> None:
    assert bench.agents.idle.is_set()
    async with contextlib.aclosing(bench.agents.answer("assistant", HELLO, model="test-model")) as answer:
        await anext(answer)
        assert not bench.agents.idle.is_set()
    assert bench.agents.idle.is_set()


async def test_runs_side_by_side_do_not_mix(bench: Bench) -> None:
    callers = [make_caller(str(uuid4())) for _ in range(5)]
    for index, caller in enumerate(callers):
        session_id = bench.sessions.add_session(caller.user_id)
        bench.sessions.fill(session_id, [f"number {index}"])

    def choose(body: Json) -> Behaviour:
        done = any(entry["role"] == "tool" for entry in body["messages"])
        return Behaviour(text="Done.") if done else calling("search_messages", query="number")

    bench.model.choose = choose

    async def one(caller: Caller) -> list[Step]:
        return await bench.answer("search", caller=caller)

    every = await asyncio.gather(*(asyncio.create_task(one(caller)) for caller in callers))
    for index, steps in enumerate(every):
        (result,) = results_of(steps)
        assert [hit["excerpt"] for hit in json.loads(result.output)["hits"]] == [f"number {index}"]


async def test_agents_with_tools_reach_no_other_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING_V2", "LANGGRAPH_TRACING"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "a-key-of-another-program")
    called: set[Any] = set()
    loop, real = asyncio.get_running_loop(), socket.socket.connect
    real_async, real_names = loop.sock_connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> Any:
        called.add(address)
        return real(self, address)

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        called.add(address)
        await real_async(sock, address)

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        called.add((host.decode() if isinstance(host, bytes) else host, None))
        return real_names(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    bench.model.script(calling("assistant", task="Think."), Behaviour(text="Thought."), Behaviour(text="Done."))
    assert text_of(await bench.answer("orchestrator")) == "Done."
    await asyncio.sleep(0.2)  # that nothing else is called later has no event
    monkeypatch.undo()
    assert called
    assert {address[0] for address in called} == {"127.0.0.1"}


async def test_logs_hold_no_words_of_anybody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="services")
    bench.sessions.refuse["SearchMessages"] = "INTERNAL"
    bench.model.script(calling("search_messages", text="SECRET-A", query="SECRET-B"), Behaviour(text="SECRET-C"))
    await bench.answer("search", [HumanMessage("SECRET-D")])
    assert "SECRET" not in caplog.text


# Lists


async def test_lists_say_what_may_be_asked_for(make_bench: MakeBench) -> None:
    async with make_bench(agent="search", models="big-model, test-model,,small-model") as bench:
        answer = bench.agents.list_agents(orchestrator_pb2.ListAgentsRequest())
        assert [agent.name for agent in answer.agents] == ["assistant", "summariser", "search", "orchestrator"]
        assert [agent.name for agent in answer.agents if agent.is_default] == ["search"]
        assert list(answer.agents[2].tools) == ["search_messages", "read_messages"]
        assert list(answer.agents[3].sub_agents) == ["assistant", "summariser", "search"]
        assert all(agent.description.endswith(".") for agent in answer.agents)
        models = (await bench.agents.list_models(orchestrator_pb2.ListModelsRequest())).models
        assert [model.name for model in models] == ["test-model", "big-model", "small-model"]
        assert [model.is_default for model in models] == [True, False, False]
        assert [model.context_tokens for model in models] == [128_000, 0, 0]
        assert not any(model.is_offline for model in models)


async def test_offline_model_is_the_only_one_that_is_listed(make_bench: MakeBench) -> None:
    async with make_bench(offline=True, models="other") as bench:
        (model,) = (await bench.agents.list_models(orchestrator_pb2.ListModelsRequest())).models
        assert (model.name, model.is_default, model.is_offline) == ("offline", True, True)


async def test_lists_come_in_pages(bench: Bench) -> None:
    names, token = [], ""
    while True:
        request = orchestrator_pb2.ListAgentsRequest(page_size=3, page_token=token)
        answer = bench.agents.list_agents(request)
        names += [agent.name for agent in answer.agents]
        token = answer.next_page_token
        if not token:
            break
    assert names == [spec.name for spec in AGENTS]
    with pytest.raises(AppError) as caught:
        await bench.agents.list_models(orchestrator_pb2.ListModelsRequest(page_token="x"))
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
