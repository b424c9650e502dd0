"""Starts the auth service: settings, servicer, server."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from concerto.auth.v1 import auth_pb2, auth_pb2_grpc

from servicekit.database.client import open_database
from servicekit.rpc import server
from servicekit.rpc.identity import Verifier
from services.auth import reasons
from services.auth.auth_servicer import AuthServicer
from services.auth.auth_store import AuthStore
from services.auth.gotrue import GoTrue, open_http
from services.auth.settings import Settings


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Sequence[server.Registration]]:
    """Make the servicer and what it calls; close all of it on leaving."""
    reasons.register()
    async with contextlib.AsyncExitStack() as opened:
        http = await opened.enter_async_context(open_http())
        database = await open_database(settings)
        opened.push_async_callback(database.close)
        # Over the same connections, which are closed above.
        store = AuthStore(database)
        verifier = Verifier(settings, http, ask=store.check_sign_in)
        gotrue = GoTrue(
            settings.supabase_url,
            settings.supabase_publishable_key,
            http,
            browser_url=settings.browser_supabase_url,
            forwarding_key=settings.forwarding_key,
        )
        opened.push_async_callback(gotrue.close)
        servicer = AuthServicer(gotrue, store, verifier)
        yield [
            server.Registration(
                service=auth_pb2.DESCRIPTOR.services_by_name["AuthService"],
                add=auth_pb2_grpc.add_AuthServiceServicer_to_server,
                servicer=servicer,
                ready=servicer.ready,
                verifier=verifier,
            )
        ]


if __name__ == "__main__":
    server.run(Settings.load(), build, name="auth")
