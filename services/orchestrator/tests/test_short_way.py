from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from servicekit.errors import AppError
from services.orchestrator.models.models import Models
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, Thought, ToolCall
from tests.support.model_server import FAULTS, Behaviour, ModelServer, ToolUse, patience_for

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "required": ["q"]}}}
CALL = {"name": "search", "args": {"q": "x"}, "id": "one", "type": "tool_call"}
BROKEN_CALL = {"name": "search", "args": "{", "id": "two", "error": None, "type": "invalid_tool_call"}
CONVERSATION: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("Rain?", name="Ada"),
    AIMessage("", tool_calls=[CALL], additional_kwargs={"reasoning_content": "I look it up. 五"}),
    ToolMessage("Yes", tool_call_id="one"),
    AIMessage("It will. Grüße 👋", additional_kwargs={"metadata": {"run_id": "1"}}),
    HumanMessage("And tomorrow?", additional_kwargs={"metadata": {"client": "web"}}),
    AIMessage("", name="Grace", invalid_tool_calls=[BROKEN_CALL]),
    ToolMessage("No such tool.", tool_call_id="two"),
    AIMessage(""),
    HumanMessage("Sure?"),
]


class Watcher(AsyncCallbackHandler):
    """A handler, for whose sake LangChain's own way is taken."""

    def __init__(self) -> None:
        self.tokens = 0

    async def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        self.tokens += 1


async def answer_of(
    models: Models, messages: list[BaseMessage], *, model: str = "test-model", **options: Any
) -> dict[str, Any]:
    """Tell what an answer comes to, whatever its pieces."""
    found: dict[str, Any] = {"text": "", "thoughts": "", "finish_reason": "", "usage": None, "calls": [], "error": ""}
    try:
        async for step in models.answer(messages, model=model, options=options):
            if isinstance(step, Piece):
                found["text"] += step.text
                found["finish_reason"] = step.finish_reason or found["finish_reason"]
                found["usage"] = step.usage or found["usage"]
            elif isinstance(step, Thought):
                found["thoughts"] += step.text
            elif isinstance(step, ToolCall):
                found["calls"].append((step.name, dict(step.arguments)))
    except AppError as error:
        found["error"] = error.reason
    return found


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer.running() as server:
        yield server


async def both(
    server: ModelServer,
    behaviour: Behaviour,
    *,
    fault: str = "",
    model: str = "test-model",
    fields: dict[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Ask the same in both ways; return what each has told, and what the server was asked. fields: of the settings."""
    server.default = behaviour
    answers = []
    for watcher in (None, Watcher()):
        settings = Settings(
            _env_file=None,
            openai_base_url=server.base_url,
            model=model,
            stall_seconds=patience_for(fault),
            **(fields or {}),
        )
        models = Models(settings)
        chat: Any = models.chat
        chat.callbacks = [watcher] if watcher else None
        server.requests.clear()
        answers.append(await answer_of(models, CONVERSATION, model=model, **options) | {"asked": server.chats})
        await models.close()
        assert watcher is None or watcher.tokens or not answers[-1]["text"]
    return answers


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(text="Grüße, 世界 👋, and more of it."),
        Behaviour(tokens=200),
        Behaviour(tokens=3, usage=False),
        Behaviour(text="x", cached_tokens=2),
        Behaviour(text="Ja.", thoughts="Grüße, 世界 👋 …"),
    ],
)
async def test_both_ways_ask_and_answer_alike(server: ModelServer, behaviour: Behaviour) -> None:
    short, long = await both(server, behaviour, temperature=0.5, max_completion_tokens=77)
    assert short == long
    assert short["text"]
    assert short["asked"][0]["max_completion_tokens"] == 77
    assert short["asked"][0]["stream_options"] == {"include_usage": True}
    assert short["asked"][0]["messages"][2]["reasoning_content"] == "I look it up. 五"
    assert short["thoughts"] == behaviour.thoughts


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
@pytest.mark.parametrize(("options", "bound"), [({}, 50), ({"max_completion_tokens": 7}, 7)])
async def test_the_bound_on_an_answer_has_the_providers_name(
    server: ModelServer, name: str, options: dict[str, Any], bound: int
) -> None:
    fields = {"limit_parameter": name, "max_output_tokens": 50}
    for way in await both(server, Behaviour(text="x"), fields=fields, **options):
        [asked] = way["asked"]
        assert {key: value for key, value in asked.items() if key.startswith("max_")} == {name: bound}


@pytest.mark.parametrize(("model", "role"), [("o3", "developer"), ("gpt-5", "system"), ("gpt-4o", "system")])
async def test_both_ways_name_the_systems_role_as_the_model_knows_it(
    server: ModelServer, model: str, role: str
) -> None:
    short, long = await both(server, Behaviour(text="Yes."), model=model)
    assert short == long
    assert short["asked"][0]["messages"][0] == {"role": role, "content": "Be brief."}


async def test_both_ways_bring_tool_calls_alike(server: ModelServer) -> None:
    tools = (ToolUse(arguments={"q": "Grüße"}), ToolUse(arguments={"q": "two"}))
    short, long = await both(server, Behaviour(text="Let me see.", tool_calls=tools), tools=[TOOL])
    assert short == long
    assert short["calls"] == [("search", {"q": "Grüße"}), ("search", {"q": "two"})]


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"slow"}))
async def test_both_ways_fail_alike(server: ModelServer, fault: str) -> None:
    short, long = await both(server, FAULTS[fault], fault=fault)
    assert short == long


async def test_messages_with_blocks_take_langchains_own_way(server: ModelServer) -> None:
    models = Models(Settings(_env_file=None, openai_base_url=server.base_url, model="test-model"))
    blocks = [HumanMessage([{"type": "text", "text": "Hello"}])]
    assert (await answer_of(models, list(blocks)))["text"].startswith("You said: Hello")
    await models.close()
