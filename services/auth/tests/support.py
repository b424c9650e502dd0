"""What the tests of the auth service share: a caller of its rpcs, and small servers that answer as they are told."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
from concerto.auth.v1 import auth_pb2, auth_pb2_grpc
from pydantic import SecretStr

from servicekit import testing
from servicekit.errors import AppError
from servicekit.rpc import channel, server
from servicekit.rpc.identity import Caller, Verifier
from servicekit.testing import JWT_SECRET
from services.auth.auth_servicer import AuthServicer
from services.auth.auth_store import AuthStore
from services.auth.gotrue import GoTrue
from services.auth.settings import Settings

PASSWORD = "correct horse battery staple"


def new_email(name: str = "ada") -> str:
    return f"{name}-{uuid4().hex[:12]}@example.com"


def read_link(link: str) -> tuple[str, httpx.QueryParams]:
    """Return where a mail's link leads, and what the page there finds in the address."""
    target, _, fragment = link.partition("#")
    return target, httpx.QueryParams(fragment)


def caller_of(access_token: str) -> Caller:
    return Caller(token=access_token, claims=jwt.decode(access_token, options={"verify_signature": False}))


class Client:
    """Calls the service as nobody, or as whom `token` names. Failures are AppErrors."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self._stub = auth_pb2_grpc.AuthServiceStub(connection)

    async def call(self, method: str, message: Any, *, token: str | None = None, timeout_seconds: float = 30) -> Any:
        with testing.acting_as(caller_of(token) if token else None):
            return await channel.call(getattr(self._stub, method), message, timeout_seconds=timeout_seconds)

    async def sign_up(self, email: str, password: str = PASSWORD, **fields: str) -> auth_pb2.SignUpResponse:
        return await self.call("SignUp", auth_pb2.SignUpRequest(email=email, password=password, **fields))

    async def log_in(self, email: str, password: str = PASSWORD) -> auth_pb2.LogInResponse:
        return await self.call("LogIn", auth_pb2.LogInRequest(email=email, password=password))

    async def refresh(self, refresh_token: str) -> auth_pb2.RefreshSessionResponse:
        return await self.call("RefreshSession", auth_pb2.RefreshSessionRequest(refresh_token=refresh_token))

    async def log_out(self, token: str, scope: str = "UNSPECIFIED") -> None:
        await self.call(
            "LogOut", auth_pb2.LogOutRequest(scope=auth_pb2.LogOutScope.Value(f"LOG_OUT_SCOPE_{scope}")), token=token
        )

    async def get_me(self, token: str) -> auth_pb2.User:
        return (await self.call("GetMe", auth_pb2.GetMeRequest(), token=token)).user

    async def update_me(self, token: str, **changes: Any) -> auth_pb2.User:
        return (await self.call("UpdateMe", auth_pb2.UpdateMeRequest(**changes), token=token)).user

    async def update_password(self, token: str, password: str) -> None:
        await self.call("UpdatePassword", auth_pb2.UpdatePasswordRequest(password=password), token=token)

    async def request_reset(self, email: str, redirect_to: str = "") -> auth_pb2.RequestPasswordResetResponse:
        message = auth_pb2.RequestPasswordResetRequest(email=email, redirect_to=redirect_to)
        return await self.call("RequestPasswordReset", message)

    async def verify_otp(self, otp_type: str, **proof: str) -> auth_pb2.VerifyOtpResponse:
        message = auth_pb2.VerifyOtpRequest(type=auth_pb2.OtpType.Value(f"OTP_TYPE_{otp_type}"), **proof)
        return await self.call("VerifyOtp", message)

    async def start_social(
        self, provider: str = "GITHUB", callback_url: str = "http://127.0.0.1:9/auth/callback"
    ) -> auth_pb2.StartSocialLogInResponse:
        number = auth_pb2.SocialProvider.Value(f"SOCIAL_PROVIDER_{provider}")
        message = auth_pb2.StartSocialLogInRequest(provider=number, callback_url=callback_url)
        return await self.call("StartSocialLogIn", message)

    async def complete_social(self, code: str, code_verifier: str) -> auth_pb2.CompleteSocialLogInResponse:
        message = auth_pb2.CompleteSocialLogInRequest(code=code, code_verifier=code_verifier)
        return await self.call("CompleteSocialLogIn", message)


class UnreachableDatabase:
    """A database that cannot be reached, for tests of the auth server alone."""

    async def call(
        self,
        operation: str,
        args: Any,
        caller: Caller,
        *,
        row: str = "",
        statement_seconds: float | None = None,
    ) -> dict[str, Any]:
        raise AppError("DATABASE_UNAVAILABLE")

    async def ping(self) -> None:
        raise AppError("DATABASE_UNAVAILABLE")

    async def close(self) -> None:
        return


def registration_of(servicer: AuthServicer) -> server.Registration:
    return server.Registration(
        service=auth_pb2.DESCRIPTOR.services_by_name["AuthService"],
        add=auth_pb2_grpc.add_AuthServiceServicer_to_server,
        servicer=servicer,
        ready=servicer.ready,
    )


@contextlib.asynccontextmanager
async def served_without_database(supabase_url: str, http: Any, *, jwt_secret: str | None = JWT_SECRET) -> Any:
    """Serve the real servicer against any auth server, with a database that is down.

    It counts as ready all the same: callers would be sent away as soon as somebody had looked.
    """
    settings = Settings(
        _env_file=None,
        supabase_url=supabase_url,
        supabase_jwt_secret=None if jwt_secret is None else SecretStr(jwt_secret),
        supabase_publishable_key=SecretStr("key"),
    )
    database: Any = UnreachableDatabase()
    gotrue = GoTrue(supabase_url, SecretStr("key"), http)
    verifier = Verifier(settings, httpx.AsyncClient())
    servicer = AuthServicer(gotrue, AuthStore(database), verifier)
    registration = replace(registration_of(servicer), ready=None)
    async with testing.served([registration], secret=JWT_SECRET) as connection:
        yield Client(connection)
    await gotrue.close()
    await verifier.close()


Answer = tuple[int, Any]


class AnsweringServer:
    """Answers HTTP requests with what `answer(method, path, body)` returns: a status, and JSON or bytes."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, bytes], Answer] = lambda *_: (404, {})
        self.requests: list[tuple[str, str, bytes]] = []
        self.heads: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.command, self.path, body))
                outer.heads.append({name.lower(): value for name, value in self.headers.items()})
                status, content = outer.answer(self.command, self.path, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["AnsweringServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
