import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator

import jwt
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from local.settings import ROOT
from servicekit.errors import AppError
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from services.orchestrator.runs.history import SessionChatMessageHistory
from services.orchestrator.sessions_client import SessionsClient
from tests.support.api import Person
from tests.support.certificates import certificates_of
from tests.support.suites import RunningStack

CALL = {"name": "search", "args": {"query": "rain", "limit": 3}, "id": "call_1", "type": "tool_call"}
EXCHANGE: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("Regnet es morgen in 東京?", name="ada"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("Yes.", tool_call_id="call_1", name="search"),
    AIMessage("It will. ☔"),
]
WRITERS = 20


def caller_of(person: Person) -> Caller:
    token = person.tokens["access_token"]
    return Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))


@pytest.fixture
async def store(stack: RunningStack) -> AsyncIterator[SessionsClient]:
    """The real sessions service, as the orchestrator reaches it."""
    store = SessionsClient.at(stack.env["SESSIONS_TARGET"], tls=certificates_of(stack.env))
    yield store
    await store.close()


@pytest.fixture
async def session_id(owner: Person) -> str:
    return str((await owner.create_session(name="history"))["id"])


@pytest.fixture
def acting(owner: Person) -> Iterator[None]:
    """Makes calls carry the owner's token."""
    with acting_as(caller_of(owner)):
        yield


@pytest.fixture
def history(acting: None, store: SessionsClient, session_id: str) -> SessionChatMessageHistory:
    return SessionChatMessageHistory(store, session_id)


async def test_messages_come_back_as_they_were_added(history: SessionChatMessageHistory, owner: Person) -> None:
    await history.aadd_messages(EXCHANGE[:2])
    await history.aadd_messages(EXCHANGE[2:])
    assert await history.aget_messages() == EXCHANGE
    stored = await owner.messages(history.session_id)
    assert [message["order"] for message in stored] == [1, 2, 3, 4, 5]
    assert [message["role"] for message in stored] == ["system", "user", "assistant", "tool", "assistant"]


async def test_more_messages_than_a_page_come_back_in_order(history: SessionChatMessageHistory) -> None:
    messages: list[BaseMessage] = [HumanMessage(f"Message {index}") for index in range(250)]
    await history.aadd_messages(messages)
    assert await history.aget_messages() == messages


async def test_cleared_history_is_empty_and_the_session_keeps_its_messages(
    history: SessionChatMessageHistory, owner: Person
) -> None:
    await history.aadd_messages([HumanMessage("Before")])
    await history.aclear()
    assert await history.aget_messages() == []
    await history.aadd_messages([HumanMessage("After")])
    assert await history.aget_messages() == [HumanMessage("After")]
    kept = [message["content"] for message in await owner.messages(history.session_id)]
    assert (kept[0], kept[-1]) == ("Before", "After")


async def test_synchronous_twins_do_the_same_from_threads(history: SessionChatMessageHistory) -> None:
    def act() -> list[list[BaseMessage]]:
        history.add_messages(EXCHANGE)
        before = history.messages
        history.clear()
        cleared = history.messages
        history.add_user_message("And now?")
        return [before, cleared, history.messages]

    assert await asyncio.to_thread(act) == [EXCHANGE, [], [HumanMessage("And now?")]]
    assert await history.aget_messages() == [HumanMessage("And now?")]


async def test_synchronous_twins_work_in_a_program_without_any_loop(
    stack: RunningStack, owner: Person, session_id: str
) -> None:
    target, files = stack.env["SESSIONS_TARGET"], {name: stack.env[name] for name in stack.env if "_TLS_" in name}
    program = f"""
    import sys
    import jwt
    from langchain_core.messages import AIMessage, HumanMessage
    from servicekit.rpc.identity import Caller
    from servicekit.testing import acting_as
    from services.orchestrator.runs.history import SessionChatMessageHistory
    from services.orchestrator.sessions_client import SessionsClient
    from tests.support.certificates import certificates_of
    token = sys.stdin.read()
    caller = Caller(token, jwt.decode(token, options={{"verify_signature": False}}))
    with acting_as(caller):
        store = SessionsClient.at({target!r}, tls=certificates_of({files!r}))
        history = SessionChatMessageHistory(store, {session_id!r})
        history.add_messages([HumanMessage("Hello"), AIMessage("Hi")])
        print([message.text for message in history.messages])
        history.clear()
        print(history.messages)
    """
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        input=owner.tokens["access_token"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["['Hello', 'Hi']", "[]"], done.stderr


async def test_writers_at_once_lose_nothing_and_mix_nothing(
    history: SessionChatMessageHistory, owner: Person, store: SessionsClient
) -> None:
    def pair(name: str) -> list[BaseMessage]:
        return [HumanMessage(f"{name} asks"), AIMessage(f"{name} is answered")]

    def add(name: str) -> None:
        SessionChatMessageHistory(store, history.session_id).add_messages(pair(name))

    names = [f"task {n}" for n in range(WRITERS)], [f"thread {n}" for n in range(WRITERS)]
    await asyncio.gather(
        *(history.aadd_messages(pair(name)) for name in names[0]),
        *(asyncio.to_thread(add, name) for name in names[1]),
        *(history.aget_messages() for _ in range(WRITERS)),
    )
    texts = [message.text for message in await history.aget_messages()]
    assert sorted(texts[::2]) == sorted(f"{name} asks" for name in (*names[0], *names[1]))
    assert texts[1::2] == [text.replace("asks", "is answered") for text in texts[::2]]
    session = (await owner.call("GET", f"/sessions/{history.session_id}")).json()
    assert session["message_count"] == len(texts) == 4 * WRITERS


async def test_writers_and_clearers_at_once_leave_a_whole_history(
    history: SessionChatMessageHistory, owner: Person
) -> None:
    await asyncio.gather(
        *(history.aadd_messages([HumanMessage(f"{n}"), AIMessage(f"{n}!")]) for n in range(WRITERS)),
        *(history.aclear() for _ in range(3)),
    )
    texts = [message.text for message in await history.aget_messages()]
    assert texts[1::2] == [f"{text}!" for text in texts[::2]]
    assert len(await owner.messages(history.session_id)) == 2 * WRITERS + 3


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory is deprecated")
async def test_it_serves_a_runnable_with_message_history(
    history: SessionChatMessageHistory, store: SessionsClient
) -> None:
    def answer(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage(f"I know {len(messages)} messages.")

    chain = RunnableWithMessageHistory(
        RunnableLambda(answer), lambda session_id: SessionChatMessageHistory(store, session_id)
    )
    config: RunnableConfig = {"configurable": {"session_id": history.session_id}}
    first = await chain.ainvoke([HumanMessage("One")], config)
    second = await asyncio.to_thread(chain.invoke, [HumanMessage("Two")], config)
    kept = [message.text for message in await history.aget_messages()]
    assert (first.text, second.text) == ("I know 1 messages.", "I know 3 messages.")
    assert kept == ["One", "I know 1 messages.", "Two", "I know 3 messages."]


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory is deprecated")
async def test_conversations_at_once_stay_apart_in_runnables(
    acting: None, owner: Person, store: SessionsClient
) -> None:
    def echo(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage(" ".join(message.text for message in messages))

    chain = RunnableWithMessageHistory(
        RunnableLambda(echo), lambda session_id: SessionChatMessageHistory(store, session_id)
    )
    sessions = [await owner.create_session(name=f"apart {n}") for n in range(8)]

    async def converse(name: str, session_id: str) -> str:
        config: RunnableConfig = {"configurable": {"session_id": session_id}}
        await chain.ainvoke([HumanMessage(name)], config)
        return str((await chain.ainvoke([HumanMessage(name)], config)).text)

    answers = await asyncio.gather(*(converse(f"n{n}", session["id"]) for n, session in enumerate(sessions)))
    assert answers == [f"n{n} n{n} n{n}" for n in range(8)]


async def test_a_strangers_history_is_not_found(store: SessionsClient, session_id: str, stranger: Person) -> None:
    with acting_as(caller_of(stranger)):
        history = SessionChatMessageHistory(store, session_id)
        for attempt in (history.aget_messages(), history.aadd_messages([HumanMessage("x")]), history.aclear()):
            with pytest.raises(AppError) as caught:
                await attempt
            assert caught.value.reason == "SESSION_NOT_FOUND"
        with pytest.raises(AppError):
            await asyncio.to_thread(lambda: history.messages)
