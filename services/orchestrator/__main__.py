"""Runs the orchestrator service: `python -m services.orchestrator`."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from servicekit.rpc import server
from servicekit.rpc.identity import Verifier
from servicekit.tls import credentials
from services.orchestrator import reasons
from services.orchestrator.agents.registry import Agents
from services.orchestrator.models.models import Models
from services.orchestrator.models.window import Window
from services.orchestrator.openai.chat import ChatCompletions
from services.orchestrator.openai.terms import Terms
from services.orchestrator.orchestrator_servicer import OrchestratorServicer
from services.orchestrator.runs.calls import Calls
from services.orchestrator.runs.leases import Leases
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.runs.titles import Titles
from services.orchestrator.sessions_client import SessionsClient
from services.orchestrator.settings import Settings


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Sequence[server.Registration]]:
    """Make the servicer; on leaving, end the runs, then close the connections to the provider and to sessions."""
    reasons.register()
    store = SessionsClient.at(
        settings.sessions_target, tls=credentials.load(settings), service_key=settings.service_key
    )
    verifier = Verifier(settings, ask=store.check_sign_in)
    models = Models(settings)
    agents = Agents(settings, models=models, store=store)
    leases = Leases(store)
    calls = Calls(store=store, leases=leases, prices=settings.prices)
    titles = Titles(store=store, models=models, calls=calls, idle=agents.idle, model=settings.title_model)
    window = Window(
        prompt_tokens=settings.context_tokens - settings.answer_tokens,
        refuse_tokens=settings.context_tokens,
        history_messages=settings.history_messages,
        system_prompt=settings.system_prompt,
        given_reasoning=settings.given_reasoning,
    )
    runs = RunRegistry(
        store=store,
        models=models,
        window=window,
        answerer=agents,
        namer=titles,
        leases=leases,
        calls=calls,
        max_runs=settings.max_runs,
        max_user_runs=settings.max_user_runs,
        prices=settings.prices,
        process_id=str(settings.process_id or ""),
    )
    chat = ChatCompletions(
        models=models,
        runs=runs,
        terms=Terms(
            most_tokens=settings.completion_tokens,
            further=settings.openai_parameter_names,
            limit=settings.limit_parameter,
        ),
        context_tokens=settings.context_tokens,
        stall_seconds=settings.stall_seconds,
    )
    try:
        # Without `ready`: while sessions is away each call answers SERVICE_UNAVAILABLE, which says more than no answer.
        yield [
            server.Registration(
                service=orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
                add=orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
                servicer=OrchestratorServicer(runs, store=store, agents=agents, chat=chat),
                drain=runs.drain,
                verifier=verifier,
            )
        ]
    finally:
        await runs.close()
        await titles.close()
        await calls.close()
        await models.close()
        await verifier.close()
        await store.close()


if __name__ == "__main__":
    server.run(Settings.load(), build, name="orchestrator")
