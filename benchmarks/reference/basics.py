"""What both reference programs need: settings, who is calling, operations of the database, error answers, the server.

The tables, operations and access rules are the suite's own: each call runs as the token's user, under row level
security, in one round trip.
"""

import socket
import sys
import time
from typing import Annotated, Any

import asyncpg
import jwt
import orjson
import uvicorn
from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_settings import BaseSettings

POOL_SIZE = 10
"""Connections to the database, as many as the suite's sessions service has."""
LEEWAY_SECONDS = 10
REMEMBERED_TOKENS = 10_000


class Settings(BaseSettings):
    """What the programs read from the environment."""

    database_url: str
    """As the role concerto_login."""
    jwt_secret: str
    keys_url: str
    """Where the project's key set is."""
    model_url: str = ""
    model: str = ""


class ApiError(Exception):
    """A failure that has an answer of its own."""

    def __init__(
        self, code: int, status: str, reason: str, message: str, metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.body = {
            "error": {
                "code": code,
                "status": status,
                "message": message,
                "details": [{"reason": reason, "domain": "concerto", "metadata": metadata or {}}],
            }
        }


class Caller:
    """Whom a verified token names."""

    __slots__ = ("claims", "expires_at")

    def __init__(self, claims: dict[str, Any]) -> None:
        self.claims = orjson.dumps(claims).decode()
        self.expires_at = float(claims["exp"]) + LEEWAY_SECONDS


class Tokens:
    """Verifies access tokens, and remembers those that it has verified until they expire."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._keys = jwt.PyJWKClient(settings.keys_url)
        self._known: dict[str, Caller] = {}

    def caller(self, token: str) -> Caller:
        """Return the token's user. Raises ApiError."""
        known = self._known.get(token)
        if known is not None and known.expires_at > time.time():
            return known
        try:
            algorithm = jwt.get_unverified_header(token)["alg"]
            claims = jwt.decode(
                token,
                self._secret if algorithm == "HS256" else self._keys.get_signing_key_from_jwt(token),
                algorithms=["HS256" if algorithm == "HS256" else "ES256"],
                audience="authenticated",
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "role", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise ApiError(401, "UNAUTHENTICATED", "TOKEN_EXPIRED", "The access token has expired.") from None
        except jwt.PyJWTError:
            raise ApiError(401, "UNAUTHENTICATED", "TOKEN_INVALID", "The access token is not valid.") from None
        if claims["role"] != "authenticated":
            raise ApiError(401, "UNAUTHENTICATED", "TOKEN_INVALID", "The access token is not valid.")
        if len(self._known) >= REMEMBERED_TOKENS:
            self._known.pop(next(iter(self._known)))
        caller = self._known[token] = Caller(claims)
        return caller


async def signed_in(request: Request, authorization: Annotated[str | None, Header()] = None) -> Caller:
    """Return who is calling. Raises ApiError when nobody is signed in."""
    if not authorization:
        raise ApiError(401, "UNAUTHENTICATED", "TOKEN_MISSING", "Nobody is signed in.")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ApiError(401, "UNAUTHENTICATED", "TOKEN_INVALID", "The access token is not valid.")
    tokens: Tokens = request.app.state.tokens
    return tokens.caller(token)


class Operations:
    """The database's operations, run as a caller."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def call(self, operation: str, args: dict[str, Any], caller: Caller) -> str:
        """Return the answer of `api.<operation>` as JSON. Raises ApiError."""
        try:
            answer: str = await self._pool.fetchval(
                "select private.call($1::jsonb, $2, $3::jsonb)::text",
                caller.claims,
                operation,
                orjson.dumps(args).decode(),
                timeout=10,
            )
        except asyncpg.PostgresError as error:
            if error.sqlstate == "PT404" and error.message == "SESSION_NOT_FOUND":
                metadata = orjson.loads(error.detail)
                message = f"Session {metadata['session_id']} was not found."
                raise ApiError(404, "NOT_FOUND", "SESSION_NOT_FOUND", message, metadata) from error
            raise
        return answer


async def operations(request: Request) -> Operations:
    """Return the program's operations."""
    found: Operations = request.app.state.operations
    return found


SignedIn = Annotated[Caller, Depends(signed_in)]
Database = Annotated[Operations, Depends(operations)]


def add_error_answers(app: FastAPI) -> None:
    """Answer ApiError and FastAPI's own refusals in one shape."""

    @app.exception_handler(ApiError)
    async def on_api_error(_: Request, error: ApiError) -> JSONResponse:
        headers = {"www-authenticate": "Bearer"} if error.code == 401 else None
        return JSONResponse(error.body, status_code=error.code, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field, problem = ".".join(str(part) for part in first["loc"][1:]), str(first["msg"])
        refusal = ApiError(
            400,
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            f"{field} is invalid: {problem}.",
            {"field": field, "problem": problem},
        )
        return await on_api_error(request, refusal)


def serve(app: FastAPI) -> None:
    """Serve on a free port of the loopback address, and print the address, until SIGINT."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])
