import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from servicekit.errors import AppError
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as, make_caller
from services.orchestrator.runs.history import SessionChatMessageHistory
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.tests.fakes import FakeSessions, sessions_running

CALL = {"name": "search", "args": {"query": "rain", "limit": 3}, "id": "call_1", "type": "tool_call"}
EXCHANGE: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("Will it rain?", name="ada"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("Yes.", tool_call_id="call_1", name="search"),
    AIMessage("It will."),
]


class Setting:
    def __init__(self, fake: FakeSessions, store: SessionsClient, target: str, caller: Caller) -> None:
        self.fake, self.store, self.target, self.caller = fake, store, target, caller
        self.session_id = fake.add_session(caller.user_id)

    def history(self, **options: int) -> SessionChatMessageHistory:
        return SessionChatMessageHistory(self.store, self.session_id, **options)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with sessions_running() as sessions, contextlib.aclosing(Closing(sessions.target)) as closing:
        yield Setting(sessions.fake, closing.store, sessions.target, make_caller())


class Closing:
    def __init__(self, target: str) -> None:
        self.store = SessionsClient.at(target)

    async def aclose(self) -> None:
        await self.store.close()


async def test_messages_come_back_as_they_were_added(setting: Setting) -> None:
    with acting_as(setting.caller):
        history = setting.history()
        await history.aadd_messages(EXCHANGE[:2])
        await history.aadd_messages(EXCHANGE[2:])
        assert await history.aget_messages() == EXCHANGE


async def test_more_than_a_hundred_messages_are_added_and_read_in_order(setting: Setting) -> None:
    messages = [HumanMessage(f"Message {index}") for index in range(250)]
    with acting_as(setting.caller):
        history = setting.history()
        await history.aadd_messages(messages)
        assert await history.aget_messages() == messages
    assert setting.fake.calls == {"AppendMessages": 3, "ListMessages": 3}


async def test_nothing_is_added_when_one_message_cannot_be(setting: Setting) -> None:
    with acting_as(setting.caller):
        history = setting.history()
        with pytest.raises(ValueError, match="no JSON form"):
            await history.aadd_messages([HumanMessage("Hello"), ToolMessage("x", tool_call_id="1", artifact=object())])
        assert await history.aget_messages() == []


async def test_adding_no_messages_does_nothing(setting: Setting) -> None:
    with acting_as(setting.caller):
        await setting.history().aadd_messages([])
    assert not setting.fake.calls


async def test_cleared_history_is_empty_and_keeps_the_session_whole(setting: Setting) -> None:
    with acting_as(setting.caller):
        history = setting.history()
        await history.aadd_messages([HumanMessage("Before")])
        await history.aclear()
        assert await history.aget_messages() == []
        await history.aadd_messages([HumanMessage("After")])
        assert await history.aget_messages() == [HumanMessage("After")]
    assert [message.content for message in setting.fake.messages[setting.session_id]][::2] == ["Before", "After"]


async def test_what_was_cleared_is_not_read(setting: Setting) -> None:
    setting.fake.fill(setting.session_id, [f"Message {index}" for index in range(500)])
    with acting_as(setting.caller):
        history = setting.history()
        await history.aclear()
        setting.fake.calls.clear()
        assert await history.aget_messages() == []
    assert setting.fake.calls["ListMessages"] == 1


async def test_history_may_be_limited_by_tokens(setting: Setting) -> None:
    setting.fake.fill(setting.session_id, ["word " * 20 for _ in range(20)])
    with acting_as(setting.caller):
        kept = await setting.history(max_tokens=200).aget_messages()
    assert 0 < len(kept) < 10
    assert isinstance(kept[0], HumanMessage)


async def test_strangers_history_is_not_found(setting: Setting) -> None:
    with acting_as(make_caller()), pytest.raises(AppError) as caught:
        await setting.history().aget_messages()
    assert caught.value.reason == "SESSION_NOT_FOUND"


async def test_synchronous_twins_work_from_a_thread(setting: Setting) -> None:
    def act(history: SessionChatMessageHistory) -> tuple[list[BaseMessage], list[BaseMessage]]:
        history.add_messages(EXCHANGE)
        before = history.messages
        history.clear()
        return before, history.messages

    with acting_as(setting.caller):
        history = setting.history()
        assert await history.aget_messages() == []
        assert await asyncio.to_thread(act, history) == (EXCHANGE, [])


async def test_thread_without_the_requests_context_acts_for_the_caller_who_made_the_history(setting: Setting) -> None:
    found: list[list[BaseMessage]] = []
    with acting_as(setting.caller):
        history = setting.history()
        await history.aadd_messages(EXCHANGE)
    thread = threading.Thread(target=lambda: found.append(history.messages))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert found == [EXCHANGE]
    assert await history.aget_messages() == EXCHANGE


async def test_current_caller_comes_before_the_one_who_made_the_history(setting: Setting) -> None:
    with acting_as(setting.caller):
        history = setting.history()
    with acting_as(make_caller()):
        with pytest.raises(AppError):
            await history.aget_messages()
        with pytest.raises(AppError):
            await asyncio.to_thread(lambda: history.messages)


async def test_synchronous_twins_refuse_to_block_a_running_loop(setting: Setting) -> None:
    with acting_as(setting.caller):
        history = setting.history()
        with pytest.raises(RuntimeError, match="aget_messages"):
            _ = history.messages
        with pytest.raises(RuntimeError, match="aadd_messages"):
            history.add_messages(EXCHANGE)
        with pytest.raises(RuntimeError, match="aclear"):
            history.clear()


async def test_synchronous_twins_work_in_a_program_without_any_loop(setting: Setting) -> None:
    program = f"""
    import jwt
    from langchain_core.messages import AIMessage, HumanMessage
    from servicekit.rpc.identity import Caller
    from servicekit.testing import acting_as
    from services.orchestrator.runs.history import SessionChatMessageHistory
    from services.orchestrator.sessions_client import SessionsClient
    token = {setting.caller.token!r}
    caller = Caller(token, jwt.decode(token, options={{"verify_signature": False}}))
    with acting_as(caller):
        history = SessionChatMessageHistory(SessionsClient.at({setting.target!r}), {setting.session_id!r})
        history.add_messages([HumanMessage("Hello"), AIMessage("Hi")])
        print([message.text for message in history.messages])
        history.clear()
        print(history.messages)
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode().splitlines() == ["['Hello', 'Hi']", "[]"], err.decode()
    assert process.returncode == 0
    assert len(setting.fake.messages[setting.session_id]) == 3


async def test_store_outlives_the_loop_that_first_used_it(setting: Setting) -> None:
    store = SessionsClient.at(setting.target)

    def in_own_loop() -> list[BaseMessage]:
        async def read() -> list[BaseMessage]:
            return await SessionChatMessageHistory(store, setting.session_id).aget_messages()

        return asyncio.run(read())

    with acting_as(setting.caller):
        await setting.history().aadd_messages(EXCHANGE)
        assert await asyncio.to_thread(in_own_loop) == EXCHANGE
        history = SessionChatMessageHistory(store, setting.session_id)
        assert await asyncio.to_thread(lambda: history.messages) == EXCHANGE
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(store.close(), store.loop))  # type: ignore[arg-type]


async def test_many_writers_at_once_lose_nothing(setting: Setting) -> None:
    def add(index: int) -> None:
        setting.history().add_messages([HumanMessage(f"{index} from a thread")])

    with acting_as(setting.caller):
        await asyncio.gather(
            *(setting.history().aadd_messages([HumanMessage(f"{index}")]) for index in range(20)),
            *(asyncio.to_thread(add, index) for index in range(20)),
        )
        assert len(await setting.history().aget_messages()) == 40


def answer(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(f"I know {len(messages)} messages.")


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory is deprecated")
async def test_history_serves_a_runnable_with_message_history(setting: Setting) -> None:
    with acting_as(setting.caller):
        chain = RunnableWithMessageHistory(
            RunnableLambda(answer), lambda session_id: SessionChatMessageHistory(setting.store, session_id)
        )
        config: RunnableConfig = {"configurable": {"session_id": setting.session_id}}
        first = await chain.ainvoke([HumanMessage("One")], config)
        second = await asyncio.to_thread(chain.invoke, [HumanMessage("Two")], config)
        kept = await setting.history().aget_messages()
    assert (first.text, second.text) == ("I know 1 messages.", "I know 3 messages.")
    assert [message.text for message in kept] == ["One", "I know 1 messages.", "Two", "I know 3 messages."]
