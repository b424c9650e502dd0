"""OpenAI's own client and LangChain's ChatOpenAI against the running suite, with an access token as their key."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.support.api import Person, ok
from tests.support.model_server import FAULT_MODELS, FAULTS, Behaviour, ModelServer, ToolUse
from tests.support.suites import RunningStack
from tests.support.waiting import until

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


@dataclass(frozen=True)
class Clients:
    """The clients under test; each kind shares one pool of connections, which the fixture closes."""

    pool: openai.DefaultAsyncHttpxClient
    sync_pool: openai.DefaultHttpxClient

    def official(self, person: Person, **options: Any) -> openai.AsyncOpenAI:
        """Return the official client of a person; without retries, so that each error is seen."""
        settings = {"api_key": person.tokens["access_token"], "max_retries": 0, **options}
        return openai.AsyncOpenAI(base_url=_base_url(person), http_client=self.pool, **settings)

    def official_sync(self, person: Person) -> openai.OpenAI:
        key = person.tokens["access_token"]
        return openai.OpenAI(api_key=key, base_url=_base_url(person), max_retries=0, http_client=self.sync_pool)

    def langchain(self, person: Person, model: str = "offline", **options: Any) -> ChatOpenAI:
        return ChatOpenAI(
            model=model,
            api_key=SecretStr(person.tokens["access_token"]),
            base_url=_base_url(person),
            http_async_client=self.pool,
            http_client=self.sync_pool,
            max_retries=0,
            **options,
        )


def _base_url(person: Person) -> str:
    return str(person.client.base_url.join("/v1"))


@pytest.fixture(scope="module")
async def clients() -> AsyncIterator[Clients]:
    async with openai.DefaultAsyncHttpxClient() as pool:
        with openai.DefaultHttpxClient() as sync_pool:
            yield Clients(pool, sync_pool)


async def text_of(stream: openai.AsyncStream[Any]) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


# The offline model, as a fresh suite has it


async def test_the_client_gets_a_whole_answer(clients: Clients, owner: Person) -> None:
    answer = await clients.official(owner).chat.completions.create(model="offline", messages=HELLO)
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == ("chat.completion", "offline", "stop")
    assert "You said: “Hello”" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


async def test_the_client_gets_a_stream_with_the_same_text(clients: Clients, owner: Person) -> None:
    client = clients.official(owner)
    whole = await client.chat.completions.create(model="offline", messages=HELLO)
    stream = await client.chat.completions.create(model="offline", messages=HELLO, stream=True)
    assert await text_of(stream) == whole.choices[0].message.content
    options: Any = {"include_usage": True}
    stream = await client.chat.completions.create(model="offline", messages=HELLO, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


async def test_the_synchronous_client_gets_the_same(clients: Clients, owner: Person) -> None:
    def ask() -> tuple[str | None, str]:
        client = clients.official_sync(owner)
        whole = client.chat.completions.create(model="offline", messages=HELLO)
        stream = client.chat.completions.create(model="offline", messages=HELLO, stream=True)
        return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    whole, streamed = await asyncio.to_thread(ask)
    assert whole == streamed
    assert whole


async def test_the_clients_limits_are_kept(clients: Clients, owner: Person) -> None:
    create = clients.official(owner).chat.completions.create
    short = await create(model="offline", messages=HELLO, max_tokens=5, temperature=0.2)
    assert short.choices[0].finish_reason == "length"
    stopped = await create(model="offline", messages=HELLO, stop=["Concerto"])
    assert stopped.choices[0].message.content == "I am "


async def test_the_client_lists_the_models(clients: Clients, owner: Person) -> None:
    client = clients.official(owner)
    names = [model.id async for model in client.models.list()]
    assert names == ["offline"]
    assert (await client.models.retrieve("offline")).owned_by == "concerto"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("org/other")
    assert caught.value.code == "model_not_found"


async def test_an_unknown_model_is_not_found(clients: Clients, owner: Person) -> None:
    for wants_stream in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            await clients.official(owner).chat.completions.create(model="gpt-0", messages=HELLO, stream=wants_stream)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("key", ["sk-nothing", "x.y.z"])
async def test_a_bad_key_is_an_authentication_error(clients: Clients, owner: Person, key: str) -> None:
    client = clients.official(owner, api_key=key)
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.chat.completions.create(model="offline", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    with pytest.raises(openai.AuthenticationError):
        await client.models.list()


async def test_an_overlong_prompt_is_a_bad_request_with_its_code(clients: Clients, owner: Person) -> None:
    long = [{"role": "user", "content": "word " * 200_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        await clients.official(owner).chat.completions.create(model="offline", messages=long)  # type: ignore[arg-type]
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(ContextOverflowError):
        await clients.langchain(owner).ainvoke("word " * 200_000)


async def test_bad_requests_name_their_parameter(clients: Clients, owner: Person) -> None:
    client = clients.official(owner)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"messages": []}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": HELLO, "n": 2}, "n"),
        ({"messages": HELLO, "model": ""}, "model"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 10**9}, "max_tokens"),
        ({"messages": HELLO, "max_completion_tokens": 2**63}, "max_completion_tokens"),
        ({"messages": HELLO, "service_tier": "priority"}, "service_tier"),
        ({"messages": HELLO, "extra_body": {"vendor_option": 1}}, "vendor_option"),
        ({"messages": HELLO, "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ]
    for fields, param in bad:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**{"model": "offline", **fields})
        assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    with pytest.raises(openai.APIStatusError) as large:
        await client.chat.completions.create(
            model="offline", messages=[{"role": "user", "content": "x" * 5 * 1024 * 1024}]
        )
    assert large.value.status_code == 413


async def test_chat_openai_answers_and_streams(clients: Clients, owner: Person) -> None:
    model = clients.langchain(owner, stream_usage=True)
    answer = await model.ainvoke([HumanMessage("Hello")])
    assert isinstance(answer, AIMessage)
    assert "You said: “Hello”" in answer.text
    assert answer.usage_metadata is not None
    chunks = [chunk async for chunk in model.astream("Hello")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.text == answer.text
    assert whole.usage_metadata == answer.usage_metadata
    assert (await asyncio.to_thread(model.invoke, "Hello")).text == answer.text


async def test_an_exchange_is_kept_in_its_session_and_in_the_ledger(clients: Clients, owner: Person) -> None:
    session = await owner.create_session()
    client = clients.official(owner, default_headers={"X-Session-Id": session["id"]})
    whole = await client.chat.completions.create(model="offline", messages=HELLO)
    stream = await client.chat.completions.create(
        model="offline", messages=[*HELLO, {"role": "user", "content": "And now?"}], stream=True
    )
    text = await text_of(stream)
    stored = await owner.messages(session["id"])
    assert [(message["role"], message["content"]) for message in stored] == [
        ("user", "Hello"),
        ("assistant", whole.choices[0].message.content),
        ("user", "And now?"),
        ("assistant", text),
    ]
    runs = ok(await owner.call("GET", f"/runs?session_id={session['id']}"))["runs"]
    assert [run["state"] for run in runs] == ["SUCCEEDED", "SUCCEEDED"]
    usage = ok(await owner.call("GET", "/usage?group_by=session"))["entries"]
    (entry,) = [entry for entry in usage if entry["key"] == session["id"]]
    assert whole.usage is not None
    assert entry["runs"] == 2
    assert entry["prompt_tokens"] > whole.usage.prompt_tokens


async def test_without_a_session_nothing_is_kept_but_what_was_used(clients: Clients, owner: Person) -> None:
    async def stored() -> tuple[object, ...]:
        answers = [ok(await owner.call("GET", path)) for path in ("/sessions", "/runs", "/usage")]
        return answers[0]["sessions"], answers[1]["runs"], answers[2]["total"]

    sessions, runs, before = await stored()
    create = clients.official(owner).chat.completions.create
    whole = await create(model="offline", messages=HELLO)
    await text_of(await create(model="offline", messages=HELLO, stream=True))
    *kept, after = await stored()
    assert kept == [sessions, runs]
    assert whole.usage is not None
    for name in ("prompt_tokens", "completion_tokens"):
        assert after[name] - before[name] == 2 * getattr(whole.usage, name)  # type: ignore[index]
    assert after["runs"] == before["runs"] + 2  # type: ignore[index]


async def test_a_repeated_request_gets_the_first_answer(clients: Clients, owner: Person) -> None:
    session = await owner.create_session()
    headers = {"X-Session-Id": session["id"], "Idempotency-Key": str(uuid4())}
    create = clients.official(owner, default_headers=headers).chat.completions.create
    first = await create(model="offline", messages=HELLO)
    second = await create(model="offline", messages=HELLO)
    assert second.choices[0].message.content == first.choices[0].message.content
    assert second.usage == first.usage
    assert len(await owner.messages(session["id"])) == 2


async def test_somebody_elses_session_is_not_found(clients: Clients, owner: Person, stranger: Person) -> None:
    session = await owner.create_session()
    client = clients.official(stranger, default_headers={"X-Session-Id": session["id"]})
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="offline", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("session_not_found", "X-Session-Id")
    assert await owner.messages(session["id"]) == []


async def test_nothing_that_was_said_is_in_any_log(clients: Clients, stack: RunningStack, owner: Person) -> None:
    words = "the-duke-stays-ashore-2291"
    written: list[Any] = [{"role": "user", "content": words}]
    session = await owner.create_session()
    client: Any = clients.official(owner, default_headers={"X-Session-Id": session["id"]})
    await client.chat.completions.create(model="offline", messages=written)
    for fields in ({"n": 2}, {"stop": 7}, {"model": "other"}, {"messages": [words]}):
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(**{"model": "offline", "messages": written, **fields})
    with pytest.raises(openai.AuthenticationError):
        await clients.official(owner, api_key=words).models.list()
    logs = {entry.name: entry.read_text(errors="replace") for entry in (stack.home / "logs").iterdir()}
    assert {f"{name}.log" for name in stack.own_processes} <= logs.keys()
    for secret in (words, owner.tokens["access_token"]):
        assert [name for name, text in logs.items() if secret in text] == []


# A provider behind the suite


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    """The provider."""
    async with ModelServer.running() as server:
        yield server


@pytest.fixture(scope="module")
async def person(model: ModelServer, launch: Callable[..., RunningStack]) -> AsyncIterator[Person]:
    """Somebody at a suite that asks the provider."""
    running = await asyncio.to_thread(
        launch,
        OPENAI_BASE_URL=model.base_url,
        OPENAI_API_KEY="providers-key",
        CONCERTO_MODEL="test-model",
        CONCERTO_MODELS=f"second-model,{FAULT_MODELS}",
        CONCERTO_TITLE_MODEL="off",
        CONCERTO_OPENAI_PARAMETERS="vendor_option",
        CONCERTO_MODEL_PRICES='{"test-model": {"prompt": 1000000, "completion": 1000000}}',
        CONCERTO_MAX_RUNS_PER_USER="20",
        CONCERTO_MODEL_TIMEOUT_SECONDS="5",
    )
    async with httpx.AsyncClient(base_url=running.gateway_url, timeout=30) as client:
        yield await Person.sign_up(client)


async def test_the_configured_models_are_listed(clients: Clients, person: Person) -> None:
    names = [model.id async for model in clients.official(person).models.list()]
    assert names[:2] == ["test-model", "second-model"]


async def test_parameters_reach_the_provider_unchanged(clients: Clients, person: Person, model: ModelServer) -> None:
    extra = {"logit_bias": {"7": -1}, "metadata": {"zeta": "1", "alpha": "2"}, "vendor_option": {"deep": [1.5, None]}}
    await clients.official(person).chat.completions.create(
        model="second-model",
        messages=HELLO,
        seed=2**60 + 1,
        tools=[TOOL],
        tool_choice="auto",
        extra_body=extra,  # type: ignore[call-overload]
    )
    asked = model.chats[-1]
    assert {name: asked[name] for name in extra} == extra
    assert list(asked["metadata"]) == ["zeta", "alpha"]
    assert (asked["seed"], asked["tools"], asked["tool_choice"]) == (2**60 + 1, [TOOL], "auto")
    assert model.requests[-1].headers["authorization"] == "Bearer providers-key"


async def test_tools_go_to_the_model_and_their_calls_to_the_client(
    clients: Clients, person: Person, model: ModelServer
) -> None:
    use = Behaviour(tool_calls=(ToolUse(name="look", arguments={"place": "here"}),))
    model.script(use, use, use, Behaviour(text="Nothing there."))
    create = clients.official(person).chat.completions.create
    whole = await create(model="test-model", messages=HELLO, tools=[TOOL])  # type: ignore[list-item]
    assert whole.choices[0].finish_reason == "tool_calls"
    calls = whole.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"place": "here"}]  # type: ignore[union-attr]
    stream: Any = await create(model="test-model", messages=HELLO, tools=[TOOL], stream=True)  # type: ignore[list-item]
    arguments = ""
    async for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or ():
            arguments += (part.function and part.function.arguments) or ""
    assert json.loads(arguments) == {"place": "here"}

    bound = clients.langchain(person, "test-model").bind_tools([TOOL])
    answer = await bound.ainvoke("Hello")
    assert isinstance(answer, AIMessage)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("look", {"place": "here"})]
    result = ToolMessage("empty", tool_call_id=answer.tool_calls[0]["id"])
    assert (await bound.ainvoke([HumanMessage("Hello"), answer, result])).text == "Nothing there."
    assert [message["role"] for message in model.chats[-1]["messages"]] == ["user", "assistant", "tool"]


FAILURES: list[tuple[str, type[openai.APIStatusError], int, str]] = [
    ("unauthorized", openai.InternalServerError, 502, "model_credentials_rejected"),
    ("no_model", openai.NotFoundError, 404, "model_not_found"),
    ("rate_limited", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("no_quota", openai.RateLimitError, 429, "insufficient_quota"),
    ("too_long", openai.BadRequestError, 400, "context_length_exceeded"),
    ("bad_request", openai.BadRequestError, 400, "model_request_refused"),
    ("prompt_filtered", openai.BadRequestError, 400, "content_filter"),
    ("server_error", openai.InternalServerError, 503, "model_unavailable"),
    ("overloaded", openai.InternalServerError, 503, "model_unavailable"),
    ("silent", openai.InternalServerError, 504, "model_timeout"),
]


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(("fault", "raised", "status", "code"), FAILURES)
async def test_a_failing_provider_is_the_error_that_the_client_expects(
    clients: Clients,
    person: Person,
    fault: str,
    raised: type[openai.APIStatusError],
    status: int,
    code: str,
    is_kept: bool,
) -> None:
    headers = {"X-Session-Id": (await person.create_session())["id"]} if is_kept else {}
    client = clients.official(person, default_headers=headers)
    with pytest.raises(raised) as caught:
        await client.chat.completions.create(model=f"fault:{fault}", messages=HELLO, stream=True)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    if fault == "rate_limited":
        assert caught.value.response.headers["retry-after"] == "7"
    if is_kept:
        answer = await client.chat.completions.create(model="test-model", messages=HELLO)
        assert answer.choices[0].message.content


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("stall", "model_timeout"),
        ("cut", "model_connection_lost"),
        ("invalid_json", "model_answer_malformed"),
        ("error_chunk", "model_unavailable"),
        ("no_finish", "model_connection_lost"),
    ],
)
async def test_a_stream_that_breaks_raises_after_what_was_said(
    clients: Clients, person: Person, fault: str, code: str, is_kept: bool
) -> None:
    session = await person.create_session()
    client = clients.official(person, default_headers={"X-Session-Id": session["id"]} if is_kept else {})
    written = []

    async def listen() -> None:
        stream = await client.chat.completions.create(model=f"fault:{fault}", messages=HELLO, stream=True)
        async for chunk in stream:
            written.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 (a list would be lost)

    with pytest.raises(openai.APIError) as caught:
        await listen()
    assert caught.value.code == code
    assert "".join(written) == "You said: Hello"
    stored = [message["content"] for message in await person.messages(session["id"])]
    assert stored == (["Hello", "You said: Hello"] if is_kept else [])


async def test_the_clients_own_retries_work(clients: Clients, person: Person, model: ModelServer) -> None:
    model.script(FAULTS["overloaded"], Behaviour(text="Here I am."))
    answer = await clients.official(person, max_retries=2).chat.completions.create(model="test-model", messages=HELLO)
    assert answer.choices[0].message.content == "Here I am."
    before = len(model.chats)
    with pytest.raises(openai.InternalServerError):
        await clients.official(person, max_retries=2).chat.completions.create(
            model="fault:unauthorized", messages=HELLO
        )
    assert len(model.chats) == before + 1, "another try with the same bad key is of no use"


async def test_a_client_that_leaves_its_stream_pays_for_what_was_said(
    clients: Clients, person: Person, model: ModelServer
) -> None:
    async def used() -> dict[str, Any]:
        return dict(ok(await person.call("GET", "/usage?group_by=model"))["total"])

    before = await used()
    model.script(FAULTS["slow"])
    stream = await clients.official(person).chat.completions.create(model="test-model", messages=HELLO, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()

    async def is_counted() -> bool:
        return bool((await used())["runs"] == before["runs"] + 1)

    await until(is_counted, "the row in the ledger")
    after = await used()
    assert after["completion_tokens"] > before["completion_tokens"]
    assert after["cost_micro_usd"] > before["cost_micro_usd"]


async def test_streams_without_a_session_are_limited_like_runs(
    clients: Clients, person: Person, model: ModelServer
) -> None:
    model.default = FAULTS["slow"]
    create = clients.official(person).chat.completions.create
    try:
        asked = (create(model="test-model", messages=HELLO, stream=True) for _ in range(24))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        model.default = Behaviour()
    streams = [answer for answer in answers if isinstance(answer, openai.AsyncStream)]
    refusals = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert (len(streams), len(refusals)) == (20, 4)
    assert {(refusal.code, refusal.response.headers["retry-after"]) for refusal in refusals} == {
        ("rate_limit_exceeded", "2")
    }
    for stream in streams:
        await stream.close()

    async def is_free() -> bool:
        try:
            await create(model="test-model", messages=HELLO)
        except openai.RateLimitError:
            return False
        return True

    await until(is_free, "room for another call")


async def test_many_clients_stream_at_once(clients: Clients, person: Person, model: ModelServer) -> None:
    model.default = Behaviour(tokens=30, delay_seconds=0.01)
    try:
        create = clients.official(person).chat.completions.create
        streams = await asyncio.gather(*(create(model="test-model", messages=HELLO, stream=True) for _ in range(20)))
        texts = await asyncio.gather(*(text_of(stream) for stream in streams))
    finally:
        model.default = Behaviour()
    assert set(texts) == {"".join(f"t{index} " for index in range(30))}
