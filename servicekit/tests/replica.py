"""A sessions service as a program that says in each answer where it listens: python replica.py HOST PORT AGE DRAIN."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from concerto.sessions.v1 import runs_pb2, runs_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from pydantic import SecretStr

from servicekit.rpc import server
from servicekit.settings import ServiceSettings
from servicekit.testing import JWT_SECRET


class Sessions(sessions_pb2_grpc.SessionsServiceServicer):
    """Answers after a moment, so that calls are under way whenever something happens."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def GetSession(self, request: Any, context: Any) -> sessions_pb2.GetSessionResponse:
        await asyncio.sleep(0.01)  # a call is under way for a moment
        return sessions_pb2.GetSessionResponse(session=sessions_pb2.Session(id=request.session_id, name=self._address))

    async def CreateSession(self, request: Any, context: Any) -> sessions_pb2.CreateSessionResponse:
        await asyncio.sleep(0.01)  # a call is under way for a moment
        return sessions_pb2.CreateSessionResponse(session=sessions_pb2.Session(name=self._address))

    # The contract calls this one not idempotent, so gRPC repeats it only when it has not reached a server.
    async def DeleteSession(self, request: Any, context: Any) -> sessions_pb2.DeleteSessionResponse:
        await asyncio.sleep(0.01)  # a call is under way for a moment
        return sessions_pb2.DeleteSessionResponse()


class Runs(runs_pb2_grpc.RunsServiceServicer):
    """Counts to 30 within three seconds."""

    async def WatchRunEvents(self, request: Any, context: Any) -> AsyncIterator[runs_pb2.WatchRunEventsResponse]:
        for index in range(1, 31):
            yield runs_pb2.WatchRunEventsResponse(events=[runs_pb2.RunEvent(seq=index)])
            await asyncio.sleep(0.1)  # a stream lasts three seconds


@contextlib.asynccontextmanager
async def build(settings: ServiceSettings) -> AsyncIterator[list[server.Registration]]:
    yield [
        server.Registration(
            sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"],
            sessions_pb2_grpc.add_SessionsServiceServicer_to_server,
            Sessions(settings.host),
        ),
        server.Registration(
            runs_pb2.DESCRIPTOR.services_by_name["RunsService"],
            runs_pb2_grpc.add_RunsServiceServicer_to_server,
            Runs(),
        ),
    ]


if __name__ == "__main__":
    host, port, age_seconds, drain_seconds = sys.argv[1:]
    server.run(
        ServiceSettings(
            _env_file=None,
            host=host,
            port=int(port),
            connection_age_seconds=float(age_seconds),
            drain_seconds=float(drain_seconds),
            supabase_jwt_secret=SecretStr(JWT_SECRET),
        ),
        build,
        name="replica",
    )
