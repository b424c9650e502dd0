"""Agents that use tools, as LangChain runs them. Importing it takes half a second:
`agents/registry.py` does that when needed.

LangChain's create_agent drives the loop of model and tools. Models are asked through `Models`, so that pieces, reasons
and second tries are the same for all agents, and each step passes through one place that counts and shows it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import structlog
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.tools import ToolRuntime
from langchain.tools.tool_node import ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from servicekit.errors import AppError
from servicekit.telemetry import logs
from services.orchestrator.agents.specs import AgentSpec
from services.orchestrator.agents.tool_calls import new_call_id
from services.orchestrator.agents.tools import TOOLS, for_model, for_store, sentence_of
from services.orchestrator.models.messages import REASONING
from services.orchestrator.models.models import Models
from services.orchestrator.models.offline import OfflineModel
from services.orchestrator.models.window import count_message, count_messages, count_text, trim
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, Step, Thought, TokenUsage, ToolCall, ToolResult

_LOG = structlog.stdlib.get_logger(__name__)

# Our own limits end a run; LangGraph's would end it without a reason that anybody knows.
_CONFIG = RunnableConfig(recursion_limit=10_000)
_NOT_REACHED = "The run ended before this was answered."
_LEFT_OUT = "[left out, as the conversation has become too long]"
_FAILED = "The tool failed."


@dataclass
class Job:
    """One run: what all its agents share."""

    model: str
    max_steps: int
    max_tokens: int
    emit: Callable[[Step], None]
    conversation: Sequence[BaseMessage]
    """What the person and the agents have said, the person's last message included."""
    steps: int = 0
    tokens: int = 0
    call_ids: set[str] = field(default_factory=set)
    open_calls: dict[str, ToolCall] = field(default_factory=dict)
    """Calls that were shown and not yet answered."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why calls cannot be carried out, by their ids."""

    def take_steps(self, count: int = 1) -> None:
        """Count steps before they are made. Raises AppError RUN_LIMIT_REACHED."""
        self.steps += count
        if self.steps > self.max_steps:
            raise AppError("RUN_LIMIT_REACHED", metadata={"limit": f"{self.max_steps} steps"})

    def check_tokens(self) -> None:
        """Raise AppError RUN_LIMIT_REACHED when the run has used what it may."""
        if self.tokens >= self.max_tokens:
            raise AppError("RUN_LIMIT_REACHED", metadata={"limit": f"{self.max_tokens} tokens"})


@dataclass
class AgentRun:
    """One agent at work within a job."""

    job: Job
    spec: AgentSpec
    tools: Sequence[Mapping[str, Any]]
    """What its model may call, as OpenAI's API describes tools."""
    is_shown: bool
    """True for the agent that answers the person; the others' texts are outputs of tools."""


class AgentGraphs:
    """Makes answers of agents that use tools. Their graphs are made once and serve all runs."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        store: SessionsClient,
        specs: Mapping[str, AgentSpec],
    ) -> None:
        self._models = models
        self._specs = specs
        self._max_steps = settings.run_max_steps
        self._max_tokens = settings.run_max_tokens
        self._general_prompt = settings.system_prompt
        self._given_reasoning = settings.given_reasoning
        self._prompt_tokens = settings.context_tokens - settings.answer_tokens
        self._tools = {name: make(store) for name, make in TOOLS.items()}
        self._graphs: dict[str, CompiledStateGraph[Any, Any, Any, Any]] = {}

    async def answer(
        self, spec: AgentSpec, messages: Sequence[BaseMessage], *, model: str
    ) -> AsyncGenerator[Step, None]:
        """Yield the steps of the agent's answer. Closing the generator ends all that goes on for it.

        messages: the agent's instructions first.
        Raises AppError: RUN_LIMIT_REACHED, or why the agent's own model failed. Calls are answered even then.
        """
        steps: asyncio.Queue[Step | None] = asyncio.Queue()
        job = Job(
            model=model,
            max_steps=self._max_steps,
            max_tokens=self._max_tokens,
            emit=steps.put_nowait,
            conversation=[message for message in messages if not isinstance(message, SystemMessage)],
        )
        task = asyncio.create_task(self._run(AgentRun(job, spec, self._schemas(spec), is_shown=True), messages))
        task.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (step := await steps.get()) is not None:
                yield step
            for call in job.open_calls.values():
                yield ToolResult(call.call_id, call.name, _NOT_REACHED, is_error=True)
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # taken note of, as nobody may be left to whom it matters

    async def ask(self, run: AgentRun, messages: Sequence[BaseMessage]) -> AIMessage:
        """Ask the agent's model once and show what it says."""
        run.job.check_tokens()
        run.job.take_steps()
        prompt = fit(messages, self._prompt_tokens)
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        usage: TokenUsage | None = None
        try:
            steps = self._models.answer(
                prompt, model=run.job.model, options={"tools": list(run.tools)} if run.tools else {}
            )
            async with contextlib.aclosing(steps):
                async for step in steps:
                    if isinstance(step, ToolCall):
                        calls.append(step)
                        continue
                    if isinstance(step, Thought):
                        if step.takes_back:
                            thoughts += texts
                            texts.clear()
                        thoughts.append(step.text)
                        if run.is_shown:
                            run.job.emit(step)
                        continue
                    if step.takes_back:
                        thoughts.clear()
                    texts.append(step.text)
                    usage = step.usage or usage
                    if run.is_shown:
                        run.job.emit(step)
                    elif step.usage is not None:
                        run.job.emit(Piece(usage=step.usage))
        finally:
            # A call that fails before the model says anything costs nothing.
            if usage is None and (texts or thoughts or calls):
                output_tokens = count_text("".join([*thoughts, *texts]))
                usage = TokenUsage(count_messages(prompt), output_tokens, is_estimated=True)
                run.job.emit(Piece(usage=usage))
            if usage is not None:
                run.job.tokens += usage.prompt_tokens + usage.completion_tokens
        return self._message(run, "".join(texts), "".join(thoughts), calls)

    async def use_tool(
        self, run: AgentRun, request: ToolCallRequest, act: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> ToolMessage:
        """Let a tool act and show what it answers; a failure is an answer too, but the run's limit ends the run."""
        call_id, name = request.tool_call["id"] or "", request.tool_call["name"]
        problem = run.job.problems.pop(call_id, "")
        try:
            if problem:
                output, is_error = self._refusal(run, name, problem), True
            else:
                message = await act(request)
                output, is_error = str(message.text), message.status == "error"
        except AppError as error:
            if error.reason == "RUN_LIMIT_REACHED":
                raise
            output, is_error = sentence_of(error), True
        except Exception as error:  # noqa: BLE001 (a tool never ends a run; the model is told)
            _LOG.error("tool.failed", tool=name, cause=logs.describe(error))
            output, is_error = _FAILED, True
        if run.is_shown and run.job.open_calls.pop(call_id, None) is not None:
            run.job.emit(ToolResult(call_id, name, for_store(output), is_error))
        return ToolMessage(
            for_model(output), tool_call_id=call_id, name=name, status="error" if is_error else "success"
        )

    def _refusal(self, run: AgentRun, name: str, problem: str) -> str:
        """Return what a model is told of a call that could not be read, and how to write it."""
        tool = next((tool["function"] for tool in run.tools if tool["function"]["name"] == name), None)
        takes = json.dumps(tool["parameters"].get("properties", {})) if tool is not None else "nothing: there is none"
        return f"Nothing was done: this was a call {problem}. Call it again; {name} takes {takes}."

    async def _run(self, run: AgentRun, messages: Sequence[BaseMessage]) -> str:
        if not run.spec.uses_tools:
            return (await self.ask(run, messages)).text
        state = await self._graph(run.spec).ainvoke({"messages": list(messages)}, _CONFIG, context=run)
        return str(state["messages"][-1].text)

    async def _delegate(self, spec: AgentSpec, task: str, *, job: Job, with_conversation: bool) -> str:
        parts, instructions = [task], spec.system_prompt or self._general_prompt
        if with_conversation:
            max_tokens = self._prompt_tokens - count_text(task) - count_text(instructions)
            parts.append(f"The conversation so far:\n\n{transcript(job.conversation, max_tokens)}")
        messages: list[BaseMessage] = [SystemMessage(instructions)] if instructions else []
        messages.append(HumanMessage("\n\n".join(parts)))
        run = AgentRun(job, spec, self._schemas(spec), is_shown=False)
        return await self._run(run, messages) or "The agent said nothing."

    def _message(self, run: AgentRun, text: str, thoughts: str, calls: Sequence[ToolCall]) -> AIMessage:
        if calls:
            run.job.take_steps(len(calls))
        known = run.job.call_ids
        made = []
        for call in calls:
            # Some servers count their calls anew in each message.
            call_id = new_call_id() if call.call_id in known else call.call_id
            known.add(call_id)
            if call.problem:
                run.job.problems[call_id] = call.problem
            made.append({"type": "tool_call", "id": call_id, "name": call.name, "args": dict(call.arguments)})
            if run.is_shown:
                run.job.open_calls[call_id] = ToolCall(call_id, call.name, call.arguments)
                run.job.emit(run.job.open_calls[call_id])
        # Some models refuse to go on after a tool's answer without what had led them to ask.
        is_given_back = bool(thoughts) and run.job.model in self._given_reasoning
        return AIMessage(text, tool_calls=made, additional_kwargs={REASONING: thoughts} if is_given_back else {})

    def _graph(self, spec: AgentSpec) -> "CompiledStateGraph[Any, Any, Any, Any]":
        if spec.name not in self._graphs:
            self._graphs[spec.name] = create_agent(
                # Never asked: the middleware answers in its place, with the run's model.
                OfflineModel(),
                self._tools_of(spec),
                middleware=[_Steps(self)],
                context_schema=AgentRun,
                name=spec.name,
            )
        return self._graphs[spec.name]

    def _schemas(self, spec: AgentSpec) -> list[dict[str, Any]]:
        return [convert_to_openai_tool(tool) for tool in self._tools_of(spec)]

    def _tools_of(self, spec: AgentSpec) -> list[BaseTool]:
        for name in spec.sub_agents:
            if name not in self._tools:
                self._tools[name] = self._tool_that_asks(self._specs[name])
        return [self._tools[name] for name in (*spec.tools, *spec.sub_agents)]

    def _tool_that_asks(self, spec: AgentSpec) -> BaseTool:
        async def ask_agent(
            task: Annotated[str, "What to do, with everything that is needed to do it."],
            runtime: ToolRuntime[AgentRun],
            with_conversation: Annotated[bool, "True shows it this conversation, too."] = False,
        ) -> str:
            return await self._delegate(spec, task, job=runtime.context.job, with_conversation=with_conversation)

        return StructuredTool.from_function(coroutine=ask_agent, name=spec.name, description=spec.description)


class _Steps(AgentMiddleware[AgentState[Any], AgentRun]):
    """Leads each call of a model or a tool through AgentGraphs."""

    def __init__(self, graphs: AgentGraphs) -> None:
        super().__init__()
        self._graphs = graphs

    async def awrap_model_call(
        self,
        request: ModelRequest[AgentRun],
        handler: Callable[[ModelRequest[AgentRun]], Awaitable[ModelResponse[Any]]],  # noqa: ARG002 (not needed)
    ) -> ModelResponse[Any]:
        """Ask the run's model."""
        return ModelResponse(result=[await self._graphs.ask(request.runtime.context, request.messages)])

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage:
        """Let the tool act."""
        run: AgentRun = cast(Any, request.runtime).context
        return await self._graphs.use_tool(run, request, handler)


def fit(messages: Sequence[BaseMessage], max_tokens: int) -> list[BaseMessage]:
    """Return what of an agent's messages fits its model: instructions, the newest before, and all since the question.

    Where even that is too much, tools' outputs are left out, the oldest first.
    """
    if count_messages(messages) <= max_tokens:
        return list(messages)
    start = max((index for index, message in enumerate(messages) if isinstance(message, HumanMessage)), default=0)
    head = list(messages[:1]) if start and isinstance(messages[0], SystemMessage) else []
    tail = list(messages[start:])
    left = max_tokens - count_messages([*head, *tail])
    for index, message in enumerate(tail):
        if left >= 0:
            break
        if isinstance(message, ToolMessage):
            tail[index] = message.model_copy(update={"content": _LEFT_OUT})
            left += count_message(message) - count_message(tail[index])
    return [*head, *trim(messages[len(head) : start], left), *tail]


def transcript(messages: Sequence[BaseMessage], max_tokens: int) -> str:
    """Return the newest of a conversation as text, what was said by whom, within `max_tokens`."""
    lines: list[str] = []
    for message in reversed(messages):
        if isinstance(message, ToolMessage) or not message.text:
            continue
        line = f"{'User' if isinstance(message, HumanMessage) else 'Assistant'}: {message.text}"
        max_tokens -= count_text(line)
        if max_tokens < 0:
            break
        lines.append(line)
    return "\n\n".join(reversed(lines))
