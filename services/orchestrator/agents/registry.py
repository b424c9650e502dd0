"""How an agent answers: which one is asked, with which prompt, by the plain model or by a graph of tools."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from concerto.orchestrator.v1 import orchestrator_pb2
from langchain_core.messages import BaseMessage, SystemMessage, ToolMessage

from servicekit.errors import AppError
from servicekit.messages import paging
from services.orchestrator.agents.specs import AGENTS, AgentSpec, checked
from services.orchestrator.agents.tools import for_model
from services.orchestrator.models.models import Models
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, Step

if TYPE_CHECKING:
    from services.orchestrator.agents.graphs import AgentGraphs

MAX_PAGE = 100
T = TypeVar("T")


OFFLINE_NOTE = (
    "The agent “{agent}” works with tools, which need a language model; offline it answers plainly, without them.\n\n"
)


class Agents:
    """Makes answers by the agents' names, and lists agents and models."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        store: SessionsClient,
        specs: Sequence[AgentSpec] = AGENTS,
    ) -> None:
        self._settings = settings
        self._models = models
        self._store = store
        self._specs = checked(specs)
        self._graphs: AgentGraphs | None = None
        self._answering = 0
        self.idle = asyncio.Event()
        """Set while nobody answers; what can wait for that (a title) does not compete for the model."""
        self.idle.set()
        if settings.agent not in self._specs:
            raise SystemExit(
                f"There is no agent named {settings.agent}. Set CONCERTO_AGENT to one of: {', '.join(self._specs)}."
            )

    def agent_for(self, wanted: str) -> str:
        """Return the agent that answers when a run asks for `wanted`; empty asks for the configured one.

        Raises AppError AGENT_NOT_FOUND.
        """
        name = wanted or self._settings.agent
        if name not in self._specs:
            raise AppError("AGENT_NOT_FOUND", metadata={"agent": name})
        return name

    async def answer(self, agent: str, prompt: Sequence[BaseMessage], *, model: str) -> AsyncGenerator[Step, None]:
        """Yield the steps of the agent's answer to a prompt, text as it is said; see steps.Answerer.

        agent, model: as `agent_for` and `Models.name_for` give them.
        Raises AppError: those of Models.answer, RUN_LIMIT_REACHED.
        """
        spec = self._specs[self.agent_for(agent)]
        self._answering += 1
        self.idle.clear()
        try:
            async with contextlib.aclosing(self._steps(spec, prompt, model=model)) as steps:
                async for step in steps:
                    yield step
        finally:
            self._answering -= 1
            if self._answering == 0:
                self.idle.set()

    def list_agents(self, request: orchestrator_pb2.ListAgentsRequest) -> orchestrator_pb2.ListAgentsResponse:
        """Return a page of the agents. Raises AppError INVALID_PAGE_TOKEN."""
        specs, token = _page(self._specs.values(), request.page_size, request.page_token)
        agents = [
            orchestrator_pb2.Agent(
                name=spec.name,
                description=spec.description,
                tools=spec.tools,
                sub_agents=spec.sub_agents,
                is_default=spec.name == self._settings.agent,
            )
            for spec in specs
        ]
        return orchestrator_pb2.ListAgentsResponse(agents=agents, next_page_token=token)

    async def list_models(self, request: orchestrator_pb2.ListModelsRequest) -> orchestrator_pb2.ListModelsResponse:
        """Return a page of the models that are offered, the default one first.

        Raises AppError INVALID_PAGE_TOKEN, and while the provider does not say which model answers what
        `Models.learn_names` does.
        """
        await self._models.learn_names()
        default = self._models.name_for("")
        names, token = _page(self._models.names, request.page_size, request.page_token)
        models = [
            orchestrator_pb2.Model(
                name=name,
                is_default=name == default,
                is_offline=self._models.is_offline,
                # The setting describes the default model; of the others nothing is known.
                context_tokens=self._settings.context_tokens if name == default else 0,
            )
            for name in names
        ]
        return orchestrator_pb2.ListModelsResponse(models=models, next_page_token=token)

    async def _steps(self, spec: AgentSpec, prompt: Sequence[BaseMessage], *, model: str) -> AsyncGenerator[Step, None]:
        messages = self._instructed(spec, prompt)
        steps: AsyncGenerator[Step, None]
        if spec.uses_tools and not self._models.is_offline:
            steps = (await self._loaded_graphs()).answer(spec, messages, model=model)
        else:
            if spec.uses_tools:
                yield Piece(text=OFFLINE_NOTE.format(agent=spec.name))
            steps = self._models.answer(messages, model=model)
        async with contextlib.aclosing(steps):
            async for step in steps:
                yield step

    def _instructed(self, spec: AgentSpec, prompt: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """Return the prompt with the agent's instructions, and with earlier tools' outputs cut to what a model gets."""
        messages = [_shortened(message) if isinstance(message, ToolMessage) else message for message in prompt]
        if not spec.system_prompt:
            return messages
        general = self._settings.system_prompt
        if general and messages and isinstance(messages[0], SystemMessage) and messages[0].content == general:
            return [SystemMessage(f"{general}\n\n{spec.system_prompt}"), *messages[1:]]
        return [SystemMessage(spec.system_prompt), *messages]

    async def _loaded_graphs(self) -> "AgentGraphs":
        if self._graphs is None:
            # Half a second and 14 MB that only runs with tools need; in a thread, as the other runs go on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "services.orchestrator.agents.graphs")
            self._graphs = self._graphs or module.AgentGraphs(
                self._settings, models=self._models, store=self._store, specs=self._specs
            )
        return self._graphs


def _shortened(message: ToolMessage) -> ToolMessage:
    text = message.text
    short = for_model(text)
    return message if short == text else message.model_copy(update={"content": short})


def _page(entries: Iterable[T], page_size: int, page_token: str) -> tuple[list[T], str]:
    every = list(entries)
    (start,) = paging.decode(page_token, (int,)) if page_token else (0,)
    end = max(0, start) + min(page_size or MAX_PAGE, MAX_PAGE)
    return every[max(0, start) : end], paging.encode(end) if end < len(every) else ""
