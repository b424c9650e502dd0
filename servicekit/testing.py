"""What tests of a service need: a server in the process, tokens, a caller."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from unittest import mock
from uuid import uuid4

import grpc
import jwt
from pydantic import SecretStr

from servicekit.rpc import channel, health, identity, server
from servicekit.rpc.identity import Caller
from servicekit.rpc.inprocess import transport
from servicekit.settings import ServiceKeySettings, ServiceSettings

JWT_SECRET = "a-secret-of-the-tests-that-is-long-enough"  # noqa: S105
SERVICE_KEY = SecretStr("a-key-that-the-services-of-the-tests-share")


class ServedSettings(ServiceSettings, ServiceKeySettings):
    """Settings of a server in a test, which knows other services by SERVICE_KEY."""


def claims_of(user_id: str | None = None, *, expires_in: float = 3600, **claims: Any) -> dict[str, Any]:
    """Return the claims of a tool's access token: of no sign-in that could end. `claims` replace or add claims."""
    now = int(time.time())
    return {"sub": user_id or str(uuid4()), "aud": "authenticated", "role": "authenticated",
            "iat": now, "exp": now + int(expires_in), **claims}  # fmt: skip


def mint_token(user_id: str | None = None, *, secret: str = JWT_SECRET, expires_in: float = 3600, **claims: Any) -> str:
    """Return an access token (HS256) with such claims."""
    return jwt.encode(claims_of(user_id, expires_in=expires_in, **claims), secret, algorithm="HS256")


def make_caller(user_id: str | None = None, *, expires_in: float = 3600) -> Caller:
    """Return a caller with a minted token."""
    return caller_of(mint_token(user_id, expires_in=expires_in))


def caller_of(token: str) -> Caller:
    """Return whom a token names, unchecked."""
    return Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))


BRIEF_SECONDS = 3 - identity.LEEWAY_SECONDS
"""With this `expires_in` a token is accepted for two to three seconds more; `expiry` waits for its end."""


def make_brief_caller(user_id: str) -> Caller:
    """Return a caller whose token is accepted for BRIEF_SECONDS."""
    return make_caller(user_id, expires_in=BRIEF_SECONDS)


async def expiry(caller: Caller) -> None:
    """Return once no service accepts the caller's token any more."""
    ends_at = float(caller.claims["exp"]) + identity.LEEWAY_SECONDS
    await asyncio.sleep(max(0.0, ends_at - time.time() + 0.05))


@contextlib.contextmanager
def acting_as(caller: Caller | None) -> Iterator[None]:
    """Make calls through servicekit.rpc.channel carry this caller's token while the block runs."""
    before = identity.current_caller_or_none()
    identity.set_current_caller(caller)
    try:
        yield
    finally:
        identity.set_current_caller(before)


@contextlib.asynccontextmanager
async def served(
    registrations: Sequence[server.Registration],
    *,
    secret: str = JWT_SECRET,
    supabase_url: str = "http://127.0.0.1:9",
    within_process: bool = False,
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve the registrations on a free port with the real interceptor, and yield a channel to them.

    secret: of HS256 tokens. supabase_url: the project whose key set verifies others; by default there is none.
    within_process: the channel calls them within the process, not over the port.
    """
    settings = ServedSettings(
        _env_file=None,
        service_key=SERVICE_KEY,
        port=0,
        drain_seconds=1.0,
        supabase_jwt_secret=SecretStr(secret),
        supabase_url=supabase_url,
    )
    async with contextlib.AsyncExitStack() as serving:
        port = await serving.enter_async_context(server.serving(settings, registrations))
        target = transport.TARGET if within_process else f"127.0.0.1:{port}"
        async with channel.connect(target, registrations[0].service) as connection:
            if not within_process:
                # A channel shares what gRPC knows of an address: a server of before that had the same port is gone.
                await connection.channel_ready()
            yield connection
        # Its one client is gone. A server may not hear of that, as a refusal that a test still holds keeps gRPC's
        # connection, and would leave it the time to hear that the server goes.
        with mock.patch.object(health, "LAST_CALLS_SECONDS", 0):
            await serving.aclose()
