"""Asks the sessions service whether callers' sign-ins still stand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from concerto.sessions.v1 import sign_ins_pb2, sign_ins_pb2_grpc

from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.tls.credentials import Certificates

SERVICE = sign_ins_pb2.DESCRIPTOR.services_by_name["SignInsService"]


@asynccontextmanager
async def asking(target: str, *, tls: Certificates) -> AsyncIterator[Callable[[Caller], Awaitable[None]]]:
    """Yield what asks the service at `target`: it raises AppError SIGN_IN_ENDED, or why it cannot be told."""
    async with channel.connect(target, SERVICE, tls=tls) as connection:
        check = sign_ins_pb2_grpc.SignInsServiceStub(connection).CheckSignIn

        async def ask(caller: Caller) -> None:
            await channel.call(check, sign_ins_pb2.CheckSignInRequest(access_token=caller.token))

        yield ask
