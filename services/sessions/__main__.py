"""Runs the sessions service: `python -m services.sessions`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from concerto.sessions.v1 import (
    runs_pb2,
    runs_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    sign_ins_pb2,
    sign_ins_pb2_grpc,
)

from servicekit.database.client import open_database
from servicekit.rpc import server
from servicekit.rpc.identity import Verifier
from services.sessions import reasons
from services.sessions.notifications import Notifications
from services.sessions.runs_servicer import RunsServicer
from services.sessions.runs_store import SYSTEM_OPERATIONS, RunsStore
from services.sessions.sessions_servicer import SessionsServicer
from services.sessions.sessions_store import SessionsStore
from services.sessions.settings import Settings
from services.sessions.sign_ins_servicer import SignInsServicer
from services.sessions.sign_ins_store import SignInsStore
from services.sessions.upkeep import Upkeep


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[list[server.Registration]]:
    """Open the database and yield the servicers; on leaving, close everything in reverse order.

    Notifications and upkeep need database connections; over REST the service does without them and keeps no runs.
    """
    reasons.register()
    async with AsyncExitStack() as opened:
        database = await open_database(settings, system_operations=SYSTEM_OPERATIONS)
        opened.push_async_callback(database.close)
        runs = RunsStore(database)
        verifier = Verifier(settings, ask=SignInsStore(database).check)
        opened.push_async_callback(verifier.close)
        notifications: Notifications | None = None
        if settings.db_url is not None:
            listen_url = settings.notification_url
            notifications = Notifications(listen_url.get_secret_value() if listen_url else None, notify=database.notify)
            notifications.start()
            opened.push_async_callback(notifications.close)
            upkeep = Upkeep(runs, kept_seconds=settings.run_events_kept_seconds)
            upkeep.start()
            opened.push_async_callback(upkeep.close)
        runs_servicer = RunsServicer(runs, notifications)
        yield [
            server.Registration(
                service=sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"],
                add=sessions_pb2_grpc.add_SessionsServiceServicer_to_server,
                servicer=SessionsServicer(SessionsStore(database)),
                ready=database.ping,
                verifier=verifier,
            ),
            server.Registration(
                service=runs_pb2.DESCRIPTOR.services_by_name["RunsService"],
                add=runs_pb2_grpc.add_RunsServiceServicer_to_server,
                servicer=runs_servicer,
                ready=database.ping,
                drain=runs_servicer.drain,
            ),
            server.Registration(
                service=sign_ins_pb2.DESCRIPTOR.services_by_name["SignInsService"],
                add=sign_ins_pb2_grpc.add_SignInsServiceServicer_to_server,
                servicer=SignInsServicer(verifier),
                ready=database.ping,
            ),
        ]


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    server.run(Settings.load(), build, name="sessions")


if __name__ == "__main__":
    main()
