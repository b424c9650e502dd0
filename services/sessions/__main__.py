"""Runs the sessions service: `python -m services.sessions`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc

from servicekit import server
from servicekit.database import open_database
from services.sessions.servicer import SessionsServicer
from services.sessions.settings import Settings
from services.sessions.store import SessionStore


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[list[server.Registration]]:
    """Open the database and yield the servicer; close the database on leaving."""
    database = await open_database(settings)
    try:
        yield [
            server.Registration(
                service=sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"],
                add=sessions_pb2_grpc.add_SessionsServiceServicer_to_server,
                servicer=SessionsServicer(SessionStore(database)),
                ready=database.ping,
            )
        ]
    finally:
        await database.close()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    server.run(Settings.load(), build, name="sessions")


if __name__ == "__main__":
    main()
