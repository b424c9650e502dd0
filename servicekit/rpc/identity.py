"""Who is calling: verification of Supabase access tokens, and the caller of the current request."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import jwt
import orjson
import structlog
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from servicekit.errors import AppError
from servicekit.settings import TokenSettings

_LOG = structlog.stdlib.get_logger(__name__)

AUDIENCE = "authenticated"
LEEWAY_SECONDS = 10.0
# A project's key set is cached 10 minutes at the edge; clients keep it no longer than that.
KEYS_TTL_SECONDS = 600.0
KEYS_REFETCH_SECONDS = 30.0
# After a fetch that failed: a project that was away for a moment must not be one for half a minute.
KEYS_RETRY_SECONDS = 1.0
VERIFIED_TOKENS = 10_000
# In place of an issuer: whoever signs with the project's keys. The embedded project's address moves with its port.
ANY_ISSUER = "*"
MAX_TOKEN_BYTES = 16_384
# A NUL as JSON writes it; with another backslash before it, it would be a text of six characters.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Caller:
    """The user a request acts for, as the verified token says."""

    token: str = field(repr=False)
    """The access token; forwarded, never logged."""
    claims: Mapping[str, Any] = field(repr=False)
    """The token's verified claims."""
    claims_json: str = field(init=False, repr=False, compare=False)
    """The same as JSON, written once for all calls to the database."""
    user_id: str = field(init=False, compare=False)
    """The user (UUID)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "claims_json", orjson.dumps(self.claims).decode())
        object.__setattr__(self, "user_id", str(self.claims["sub"]))


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
# By its name structlog adds it to each log entry of the request, like `bind_contextvars`, which costs more per request.
_user_id: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}user_id", default=...)


def current_caller() -> Caller:
    """Return the caller of the request that is being served. Raises AppError TOKEN_MISSING when there is none."""
    caller = _caller.get()
    if caller is None:
        raise AppError("TOKEN_MISSING")
    return caller


def current_caller_or_none() -> Caller | None:
    """Return the caller of the request that is being served, if somebody is signed in."""
    return _caller.get()


def set_current_caller(caller: Caller | None) -> None:
    """Make `caller` the caller of the current request."""
    _caller.set(caller)
    _user_id.set(... if caller is None else caller.user_id)


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; None when the header is absent.

    Raises AppError TOKEN_INVALID when the header is anything but `Bearer <token>`.
    """
    if not authorization:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AppError("TOKEN_INVALID", cause="not a bearer token")
    return token.strip()


class KeySet:
    """A project's public keys: cached, fetched by one request at a time, kept when a fetch fails."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = -KEYS_TTL_SECONDS
        self._tried_at = -KEYS_TTL_SECONDS
        self._has_failed = False
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return the key named `kid`.

        An unknown name fetches the set again, at most every 30 s, so that forged names cost no requests; after a fetch
        that failed, every second.
        Raises AppError TOKEN_INVALID for an unknown key, KEYS_UNAVAILABLE when no set could ever be fetched.
        """
        now = time.monotonic()
        if kid not in self._keys or now - self._fetched_at > KEYS_TTL_SECONDS:
            await self._refresh(kid)
        if kid in self._keys:
            return self._keys[kid]
        if self._fetched_at < 0:
            raise AppError("KEYS_UNAVAILABLE")
        raise AppError("TOKEN_INVALID", cause="unknown key id")

    async def _refresh(self, kid: str) -> None:
        async with self._lock:
            now = time.monotonic()
            fresh = now - self._fetched_at <= KEYS_TTL_SECONDS
            pause = KEYS_RETRY_SECONDS if self._has_failed else KEYS_REFETCH_SECONDS
            if (fresh and kid in self._keys) or now - self._tried_at < pause:
                return
            self._has_failed = True
            try:
                response = await self._client.get(self._url, timeout=5.0)
                response.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(response.json()).keys if response.json().get("keys") else []
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                _LOG.warning("keys.fetch_failed", url=self._url, error=type(error).__name__)
                return
            finally:
                # From the end on: who waited for one that took long does not begin the next at once.
                self._tried_at = time.monotonic()
            self._has_failed = False
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at = now


class Verifier:
    """Verifies access tokens in this process; a verified one is remembered until it expires.

    ES256 and RS256 tokens are verified with the project's key set, HS256 tokens with the configured secret and only
    when there is one. The kind of key chooses the algorithm, never the token alone.
    """

    def __init__(self, settings: TokenSettings, client: httpx.AsyncClient | None = None) -> None:
        self._client = client or httpx.AsyncClient()
        self._keys = KeySet(f"{settings.supabase_url}/auth/v1/.well-known/jwks.json", self._client)
        secret = settings.supabase_jwt_secret
        self._secret = secret.get_secret_value() if secret else None
        self._issuer = settings.supabase_jwt_issuer
        self._is_any_issuer = settings.supabase_jwt_issuer == ANY_ISSUER
        # One project, which knows itself by the address that browsers have.
        self._default_issuers = [f"{url}/auth/v1" for url in {settings.supabase_url, settings.browser_supabase_url}]
        self._verified: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def verify(self, token: str) -> Caller:
        """Return the caller whom the token names. Raises AppError TOKEN_INVALID, TOKEN_EXPIRED, KEYS_UNAVAILABLE."""
        known = self._verified.get(token)
        if known is not None:
            if known[0] > time.time():
                return known[1]
            del self._verified[token]
        if len(token) > MAX_TOKEN_BYTES:
            raise AppError("TOKEN_INVALID", cause="too long")
        claims = await self._claims(token)
        caller = Caller(token=token, claims=claims)
        self._verified[token] = (float(claims["exp"]) + LEEWAY_SECONDS, caller)
        while len(self._verified) > VERIFIED_TOKENS:
            self._verified.popitem(last=False)
        return caller

    async def close(self) -> None:
        """Close the connections to the project."""
        await self._client.aclose()

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise AppError("TOKEN_INVALID", cause=error) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        key: Any
        if algorithm in ("ES256", "RS256") and isinstance(kid, str) and kid and kid.isprintable():
            key = await self._keys.key(kid)
            if key.algorithm_name != algorithm:
                raise AppError("TOKEN_INVALID", cause="algorithm does not fit the key")
            issuer: str | list[str] | None = self._issuer or self._default_issuers
        elif algorithm == "HS256" and self._secret:
            key, issuer = self._secret, self._issuer
        else:
            raise AppError("TOKEN_INVALID", cause="algorithm or key id not accepted")
        if self._is_any_issuer:
            issuer = None
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=AUDIENCE,
                issuer=issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "role", "aud"], "verify_iss": issuer is not None},
            )
        except jwt.ExpiredSignatureError:
            raise AppError("TOKEN_EXPIRED") from None
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise AppError("TOKEN_INVALID", cause=error) from None
        _check_storable(claims)
        # Service and anonymous keys are no users; only a signed-in user's token is ever accepted from outside.
        if claims["role"] != "authenticated" or not _is_uuid(claims["sub"]):
            raise AppError("TOKEN_INVALID", cause="not a user's token")
        return claims


def _check_storable(claims: Mapping[str, Any]) -> None:
    """Raise AppError TOKEN_INVALID for claims that the database could not read as it is given them.

    Python's JSON knows numbers of any length, endless ones and half characters; and jsonb knows no NUL.
    """
    try:
        content = orjson.dumps(claims)
        float(claims["exp"])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise AppError("TOKEN_INVALID", cause=error) from None
    if _NUL.search(content):
        raise AppError("TOKEN_INVALID", cause="a claim with a NUL character")


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False
