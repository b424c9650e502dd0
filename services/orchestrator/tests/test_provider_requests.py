import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from servicekit.errors import AppError
from services.orchestrator.models.models import Models
from services.orchestrator.models.provider_requests import joined
from services.orchestrator.openai.completions import Request, ask_provider
from services.orchestrator.openai.terms import Terms
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece
from services.orchestrator.tests.conftest import Suite, state_of
from tests.support.model_server import FAULTS, Behaviour, ModelServer, patience_for

Json = dict[str, Any]
QUESTION: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Rain?")]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer.running() as server:
        yield server


@pytest.fixture
async def models(server: ModelServer) -> AsyncIterator[Models]:
    values: dict[str, Any] = {"openai_base_url": server.base_url, "model": "test-model"}
    models = Models(Settings(_env_file=None, **values))
    yield models
    await models.close()


def refusing(when: Callable[[Json], bool], status: int = 400, **error: Any) -> Callable[[Json], Behaviour | None]:
    """Refuse requests of a kind; answer all others."""

    def choose(body: Json) -> Behaviour | None:
        return Behaviour(status=status, error={"message": "no", "type": None, **error}) if when(body) else None

    return choose


async def turn(models: Models, messages: Sequence[BaseMessage] = QUESTION, **options: Any) -> str:
    steps = models.answer(messages, model="test-model", options=options)
    return "".join([step.text async for step in steps if isinstance(step, Piece)])


async def ask_api(models: Models, **fields: Any) -> Json:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "Rain?"}], **fields}
    request = Request.read(json.dumps(body), Terms(most_tokens=100))
    assert models.requests is not None
    answers = ask_provider(models.requests, request, stall_seconds=30, body=request.counting())
    return [answer async for answer in answers][-1]


def has(name: str) -> Callable[[Json], bool]:
    return lambda body: name in body


def speaks(role: str) -> Callable[[Json], bool]:
    return lambda body: any(message["role"] == role for message in body["messages"])


PARAMETERS: list[tuple[str, int, Json]] = [
    ("stream_options", 400, {"message": "Unrecognized request argument supplied: stream_options"}),
    (
        "stream_options",
        422,
        {"message": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra"}]},
    ),
    ("stream_options", 400, {"message": "Unknown parameter.", "param": "stream_options.include_usage"}),
    ("stream_options", 400, {"message": 'json: unknown field "stream_options"'}),
    (
        "temperature",
        400,
        {
            "message": "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default is.",
            "param": "temperature",
            "code": "unsupported_value",
        },
    ),
    ("parallel_tool_calls", 400, {"message": "parallel_tool_calls is not supported by this server"}),
]


@pytest.mark.parametrize(("name", "status", "error"), PARAMETERS)
async def test_a_refused_parameter_is_left_out_and_remembered(
    server: ModelServer, models: Models, name: str, status: int, error: Json
) -> None:
    server.choose = refusing(has(name), status, **error)
    options: Json = {"temperature": 0.5, "parallel_tool_calls": False}
    for asked in (2, 3):
        assert await turn(models, **options)
        assert len(server.chats) == asked, "one further try, and none the next time"
    assert name not in server.chats[-1]
    kept = {"stream_options", *options} - {name}
    assert kept <= server.chats[-1].keys()
    await ask_api(models, stream=True, temperature=0.5)
    assert len(server.chats) == 4
    assert name not in server.chats[-1]


@pytest.mark.parametrize(
    ("refused", "taken"), [("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")]
)
@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: '{refused}' is not supported with this model. Use '{taken}' instead.",
        "Extra inputs are not permitted: {refused}",
    ],
)
async def test_the_bound_on_an_answer_is_renamed_and_never_left_out(
    server: ModelServer, models: Models, refused: str, taken: str, message: str
) -> None:
    server.choose = refusing(has(refused), message=message.format(refused=refused, taken=taken))
    await ask_api(models, **{refused: 7})
    assert [body.get(taken) for body in server.chats] == [None, 7]
    await turn(models, **dict[str, Any]({refused: 8}))
    assert (server.chats[-1][taken], refused in server.chats[-1], len(server.chats)) == (8, False, 3)
    server.choose = refusing(lambda body: True, message="max_tokens and max_completion_tokens are not supported")
    with pytest.raises(AppError) as caught:
        await turn(models, **dict[str, Any]({refused: 8}))
    assert caught.value.reason == "MODEL_REQUEST_REFUSED"
    assert all(refused in body or taken in body for body in server.chats)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "System role not supported"}),
        (500, {"message": "Jinja Exception: System role not supported"}),
        (400, {"message": "'messages[0].role' does not support 'system' here.", "param": "messages[0].role"}),
        (422, {"message": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user' or 'assistant'"}]}),
        (400, {"message": "Developer instruction is not enabled for models/x"}),
        (400, {"message": "Only user and assistant roles are supported!"}),
    ],
)  # fmt: skip
async def test_a_server_without_the_systems_role_is_told_by_the_user(
    server: ModelServer, models: Models, status: int, error: Json
) -> None:
    server.choose = refusing(speaks("system"), status, **error)
    for asked in (2, 3):
        assert await turn(models)
        assert len(server.chats) == asked
    assert server.chats[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nRain?"}]
    await ask_api(
        models,
        messages=[
            {"role": "system", "content": "Rhyme."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
    )
    (message,) = server.chats[-1]["messages"]
    assert message["content"] == [{"type": "text", "text": "Rhyme."}, {"type": "text", "text": "Hi"}]


async def test_a_server_without_the_developers_role_knows_the_systems(server: ModelServer, models: Models) -> None:
    server.choose = refusing(speaks("developer"), message="Unexpected role: developer role is not supported")
    await ask_api(models, messages=[{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": "Hi"}])
    assert [message["role"] for message in server.chats[-1]["messages"]] == ["system", "user"]


def takes_turns(body: Json) -> bool:
    roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
    return roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


@pytest.mark.parametrize("fault", ["overloaded", "no_quota", "error_chunk", "content_filter", "no_finish", "silent"])
async def test_a_session_stays_usable_where_roles_must_alternate(make_suite: Any, fault: str) -> None:
    async with make_suite(stall_seconds=patience_for(fault)) as suite:
        session_id = suite.add_session()
        await suite.turn(session_id, "First", model=f"fault:{fault}")
        await suite.turn(session_id, "Second", model=f"fault:{fault}")
        before = len(suite.model.chats)
        suite.model.choose = refusing(
            lambda body: not takes_turns(body), message="Roles must alternate user/assistant/…"
        )
        assert state_of(await suite.turn(session_id, "Third")) == "SUCCEEDED"
        assert len(suite.model.chats) == before + 1, "what is sent alternates before anybody insists"
        assert suite.texts(session_id)[0] == "First"
        assert "Third" in suite.texts(session_id), "what is stored stays as it is"


async def test_a_conversation_of_a_clients_is_made_to_alternate_where_a_server_insists(
    server: ModelServer, models: Models
) -> None:
    server.choose = refusing(
        lambda body: not takes_turns(body),
        500,
        message="Conversation roles must alternate user/assistant/user/assistant/...",
    )
    messages = [("assistant", "Hello!"), ("user", "One"), ("user", "Two"), ("system", "Rhyme."), ("user", "Three")]
    await ask_api(models, messages=[{"role": role, "content": text} for role, text in messages])
    assert [(message["role"], message["content"]) for message in server.chats[-1]["messages"]] == [
        ("user", "…"),
        ("assistant", "Hello!"),
        ("user", "One\n\nTwo\n\nRhyme.\n\nThree"),
    ]


async def test_a_refusal_within_an_answer_is_learnt_from_too(models: Models, server: ModelServer) -> None:
    server.choose = refusing(has("stream_options"), 200, message="unknown field: stream_options")
    assert await turn(models)
    await ask_api(models, stream=True)
    assert ["stream_options" in body for body in server.chats] == [True, False, False]


async def test_several_refusals_are_learnt_one_after_the_other(server: ModelServer, models: Models) -> None:
    def choose(body: Json) -> Behaviour | None:
        for name in ("stream_options", "temperature", "seed"):
            if name in body:
                return Behaviour(status=400, error={"message": f"Unknown parameter: {name}"})
        return None

    server.choose = choose
    assert await turn(models, temperature=0.5, seed=1)
    assert len(server.chats) == 4


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "max_tokens is too large: 100", "param": "max_tokens"}),
        (400, {"message": "tools are not supported by this model"}),
        (400, {"message": "`tools` is not supported", "param": "tools"}),
        (400, {"message": "response_format is not supported", "param": "response_format"}),
        (401, {"message": "stream_options is not allowed for this key"}),
        (400, {"message": "no"}),
    ],
)
async def test_what_would_change_the_answer_is_refused_at_once(
    server: ModelServer, models: Models, status: int, error: Json
) -> None:
    server.choose = refusing(lambda body: True, status, **error)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    with pytest.raises(AppError):
        await turn(models, tools=tools, max_tokens=100, response_format={"type": "json_object"})
    assert len(server.chats) == 1


async def test_what_one_model_refuses_is_no_matter_of_another(server: ModelServer, models: Models) -> None:
    server.choose = refusing(
        lambda body: body["model"] == "a" and "stream_options" in body, message="unknown: stream_options"
    )
    for model in ("a", "b"):
        async for _ in models.answer(QUESTION, model=model):
            pass
    assert [("stream_options" in body, body["model"]) for body in server.chats] == [
        (True, "a"),
        (False, "a"),
        (True, "b"),
    ]


def test_only_plain_messages_of_one_speaker_are_joined() -> None:
    call: Json = {"role": "assistant", "content": None, "tool_calls": [{}]}
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    ada, grace = ({"role": "user", "content": "Hi", "name": name} for name in ("Ada", "Grace"))
    assert joined([ada, grace]) == [ada, grace]
    assert joined([call, call]) == [call, call]
    assert joined([{"role": "tool", "content": "a", "tool_call_id": "1"}] * 2)[1]["content"] == "a"
    (both,) = joined([{"role": "user", "content": "See"}, picture])
    assert both["content"] == [{"type": "text", "text": "See"}, *picture["content"]]
    assert joined([]) == []


async def test_answers_that_were_cut_stand_alone_too(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(FAULTS["overloaded"], FAULTS["overloaded"])
    await suite.turn(session_id, "First")
    await suite.turn(session_id, "Second")
    assert [message["content"] for message in suite.model.chats[-1]["messages"]][1:] == ["First\n\nSecond"]
    assert suite.texts(session_id)[:2] == ["First", "Second"]


async def test_messages_with_blocks_are_joined_alike(server: ModelServer, models: Models) -> None:
    blocks = HumanMessage([{"type": "text", "text": "One"}])
    await turn(models, [blocks, HumanMessage("Two"), AIMessage("So."), HumanMessage("Three")])
    assert [message["role"] for message in server.chats[-1]["messages"]] == ["user", "assistant", "user"]
