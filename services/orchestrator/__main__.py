"""Runs the orchestrator service: `python -m services.orchestrator`."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from servicekit.rpc import server
from servicekit.tls import credentials
from services.orchestrator import reasons
from services.orchestrator.agents.registry import Agents
from services.orchestrator.models.models import Models
from services.orchestrator.models.window import Window
from services.orchestrator.openai.chat import ChatCompletions
from services.orchestrator.orchestrator_servicer import OrchestratorServicer
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.runs.titles import Titles
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Sequence[server.Registration]]:
    """Make the servicer; on leaving, end the runs, then close the connections to the provider and to sessions."""
    reasons.register()
    store = SessionsClient.at(settings.sessions_target, tls=credentials.load(settings))
    models = Models(settings)
    agents = Agents(settings, models=models, store=store)
    titles = Titles(store=store, models=models, idle=agents.idle, model=settings.title_model)
    window = Window(
        prompt_tokens=settings.context_tokens - settings.answer_tokens,
        refuse_tokens=settings.context_tokens,
        history_messages=settings.history_messages,
        system_prompt=settings.system_prompt,
    )
    runs = RunRegistry(
        store=store,
        models=models,
        window=window,
        answerer=agents,
        namer=titles,
        max_runs=settings.max_runs,
        max_user_runs=settings.max_user_runs,
        prices=settings.prices,
    )
    chat = ChatCompletions(
        models=models, runs=runs, context_tokens=settings.context_tokens, stall_seconds=settings.stall_seconds
    )
    try:
        # Without `ready`: while sessions is away each call answers SERVICE_UNAVAILABLE, which says more than no answer.
        yield [
            server.Registration(
                service=orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
                add=orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
                servicer=OrchestratorServicer(runs, store=store, agents=agents, chat=chat),
                drain=runs.drain,
            )
        ]
    finally:
        await runs.close()
        await titles.close()
        await models.close()
        await store.close()


if __name__ == "__main__":
    server.run(Settings.load(), build, name="orchestrator")
