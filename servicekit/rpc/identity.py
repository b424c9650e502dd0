"""Who is calling: verification of Supabase access tokens, and the caller of the current request."""

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
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
from servicekit.outgoing import clients
from servicekit.rpc.sign_ins import SignIn, SignIns, Watch
from servicekit.settings import TokenSettings

_LOG = structlog.stdlib.get_logger(__name__)

AUDIENCE = "authenticated"
LEEWAY_SECONDS = 10.0
# A project's key set is cached 10 minutes at the edge; clients keep it no longer than that.
KEYS_TTL_SECONDS = 600.0
KEYS_REFETCH_SECONDS = 1.0
"""Least time between the beginnings of two fetches for unknown key ids. Everybody who waits shares the next one."""
KEYS_RETRY_SECONDS = 0.25
"""Pause after a fetch that failed; it doubles with each further failure, up to the one below."""
KEYS_LONGEST_RETRY_SECONDS = 2.0
KEYS_TIMEOUT_SECONDS = 5.0
MAX_KEYS_BYTES = 128 * 1024
"""Most bytes of a key set; a project has a handful of keys, of some hundred bytes each."""
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
    """A project's public keys: cached, fetched by one task at a time for all who wait, kept when a fetch fails.

    url: the key set's (JWKS). may_be_empty: the project has another way to sign, so that a set without keys, or no set
    at all (404), is an answer. Elsewhere that is a failure, and so is an answer without keys once there were some.
    """

    def __init__(self, url: str, client: httpx.AsyncClient, *, may_be_empty: bool = False) -> None:
        self._url = url
        self._client = client
        self._may_be_empty = may_be_empty
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._begun_at = -KEYS_REFETCH_SECONDS
        self._failures = 0
        self._is_empty = False
        """Whether the last answer was a set without keys, where only a secret could help."""
        self._next: asyncio.Task[None] | None = None
        """A fetch that is to begin, and which everybody who comes by then shares."""
        self._running: asyncio.Task[None] | None = None
        """A fetch that has begun."""
        self._retrying: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return the key named `kid`.

        An unknown name waits for a set that is asked for after it came: within a second, however many others ask, as
        all of them share that fetch. So forged names cost a request a second at most and hold nobody up.
        Raises AppError TOKEN_INVALID for a name that a set of now does not hold, KEYS_UNAVAILABLE when none can be had.
        """
        is_fresh = self._fetched_at is not None and time.monotonic() - self._fetched_at <= KEYS_TTL_SECONDS
        if kid not in self._keys or not is_fresh:
            await self._refresh(kid)
        if kid in self._keys:
            return self._keys[kid]
        if self._fetched_at is None or self._failures:
            raise self._outage()
        raise AppError("TOKEN_INVALID", cause="unknown key id")

    async def ready(self) -> None:
        """Return when there is a set.

        Raises AppError KEYS_UNAVAILABLE when there never was one, JWT_SECRET_NEEDED when it holds no keys.
        """
        if self._fetched_at is None:
            await self._refresh(None)
        if self._fetched_at is None:
            raise self._outage()

    def _outage(self) -> AppError:
        return AppError("JWT_SECRET_NEEDED" if self._is_empty and not self._keys else "KEYS_UNAVAILABLE")

    def close(self) -> None:
        """End what is under way."""
        for task in (self._next, self._running, self._retrying):
            if task is not None:
                task.cancel()

    async def _refresh(self, kid: str | None) -> None:
        """Return when the key named `kid` is there, or a set that is asked for from now on, or none can be had.

        kid: None is content with any set.
        """
        if self._running is not None:
            # Nearly always it holds what is looked for. It began before, so that it need not.
            await asyncio.shield(self._running)
            if kid in self._keys or (kid is None and self._fetched_at is not None):
                return
        if self._retrying is not None:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._fetch_in_turn())
        await asyncio.shield(self._next)

    async def _fetch_in_turn(self) -> None:
        pause_seconds = self._begun_at + KEYS_REFETCH_SECONDS - time.monotonic()
        if pause_seconds > 0 and self._fetched_at is not None:
            await asyncio.sleep(pause_seconds)
        while self._running is not None:
            await asyncio.shield(self._running)
        self._running, self._next = self._next, None
        try:
            is_fetched = await self._fetch()
        finally:
            self._running = None
        if not is_fetched and self._retrying is None:
            self._retrying = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        """Fetch until it succeeds, so that a project is back within seconds whether or not anybody calls."""
        try:
            while self._failures:
                pause_seconds = min(KEYS_RETRY_SECONDS * 2 ** (self._failures - 1), KEYS_LONGEST_RETRY_SECONDS)
                await asyncio.sleep(pause_seconds)
                self._running = asyncio.create_task(self._attempt())
                await asyncio.shield(self._running)
        finally:
            self._retrying = None

    async def _attempt(self) -> None:
        try:
            await self._fetch()
        finally:
            self._running = None

    async def _fetch(self) -> bool:
        """Fetch the set once; return whether there is a new one."""
        self._begun_at = time.monotonic()
        self._is_empty = False
        try:
            async with asyncio.timeout(KEYS_TIMEOUT_SECONDS):
                content = await self._content()
            keys = self._keys_of(content)
        except Exception as error:  # noqa: BLE001 (what is no key set may be anything, and its readers raise as much)
            self._failures = min(self._failures + 1, 16)
            _LOG.warning("keys.fetch_failed", url=self._url, error=type(error).__name__)
            return False
        self._failures = 0
        self._keys = keys
        self._fetched_at = self._begun_at
        return True

    async def _content(self) -> Any:
        """Return what the project answers. Raises for what is no answer."""
        # Not compressed, for then its size is known only once it is in memory.
        headers = {"Accept-Encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers, timeout=KEYS_TIMEOUT_SECONDS) as response:
            if response.status_code == httpx.codes.NOT_FOUND and self._may_be_empty:
                return {"keys": []}
            if response.raise_for_status().headers.get("content-encoding", "identity") != "identity":
                raise ValueError("a compressed key set")
            content = bytearray()
            async for read in response.aiter_raw():
                content += read
                if len(content) > MAX_KEYS_BYTES:
                    raise ValueError("a key set that is too large")
        return json.loads(content)

    def _keys_of(self, content: Any) -> dict[str, jwt.PyJWK]:
        """Return an answer's keys by their names. Raises for one that is no answer."""
        found = content["keys"]
        keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(content).keys if key.key_id} if found else {}
        if not keys and (self._keys or not self._may_be_empty):
            self._is_empty = True
            raise ValueError("a key set without keys")
        return keys


class Verifier:
    """Verifies access tokens in this process; a verified one is remembered until it expires or its sign-in ends.

    ES256 and RS256 tokens are verified with the project's key set, HS256 tokens with the configured secret and only
    when there is one. The kind of key chooses the algorithm, never the token alone.
    ask, is_advisory: who knows whether a caller's sign-in still stands; see `SignIns`.
    """

    def __init__(
        self,
        settings: TokenSettings,
        client: httpx.AsyncClient | None = None,
        *,
        ask: Callable[[Caller], Awaitable[None]] | None = None,
        is_advisory: bool = False,
    ) -> None:
        self._client = client or clients.client()
        secret = settings.supabase_jwt_secret
        url = f"{settings.supabase_url}/auth/v1/.well-known/jwks.json"
        self._keys = KeySet(url, self._client, may_be_empty=secret is not None)
        self._secret = secret.get_secret_value() if secret else None
        self._issuer = settings.supabase_jwt_issuer
        self._is_any_issuer = settings.supabase_jwt_issuer == ANY_ISSUER
        # One project, which knows itself by the address that browsers have.
        self._default_issuers = [f"{url}/auth/v1" for url in {settings.supabase_url, settings.browser_supabase_url}]
        self._known: OrderedDict[str, SignIn[Caller]] = OrderedDict()
        self._sign_ins: SignIns[Caller] = SignIns(
            ask, check_seconds=settings.sign_in_check_seconds, is_advisory=is_advisory
        )

    async def verify(self, token: str) -> Caller:
        """Return the caller whom the token names, whose sign-in stands.

        Raises AppError TOKEN_INVALID, TOKEN_EXPIRED, SIGN_IN_ENDED; KEYS_UNAVAILABLE, or why nobody can tell whether it
        stands.
        """
        known = self._known.get(token)
        if known is not None and known.holds_until > time.monotonic():
            return known.caller
        known = known or await self._learn(token)
        if known.expires_at <= time.time():
            self._known.pop(token, None)
            raise AppError("TOKEN_EXPIRED")
        self._known.move_to_end(token)
        await self._sign_ins.confirm(known)
        return known.caller

    async def ready(self) -> None:
        """Return when tokens can be verified.

        Raises AppError KEYS_UNAVAILABLE until the key set was there once, JWT_SECRET_NEEDED where it holds no keys and
        no secret is configured.
        """
        await self._keys.ready()

    @property
    def has_secret(self) -> bool:
        """Whether a secret is configured, which verifies the tokens of a project without keys."""
        return self._secret is not None

    def lacks_secret_of(self, token: str) -> bool:
        """Say whether a token of the project itself is signed with a secret, and none is configured."""
        return self._secret is None and jwt.get_unverified_header(token).get("alg") == "HS256"

    async def confirm(self, token: str) -> None:
        """Return when the token's sign-in stands, be the token itself expired: a stream may outlast it.

        Raises like `verify`, but never TOKEN_EXPIRED.
        """
        await self._sign_ins.confirm(self._known.get(token) or await self._learn(token))

    def watching(self, caller: Caller) -> AbstractContextManager[Watch]:
        """Return the block in which the current task serves the caller a stream, which ends with their sign-in."""
        known = self._known.get(caller.token) or SignIn(caller, _end_of(caller.claims))
        return self._sign_ins.watching(known)

    async def close(self) -> None:
        """Close the connections to the project."""
        self._sign_ins.close()
        self._keys.close()
        await self._client.aclose()

    async def _learn(self, token: str) -> SignIn[Caller]:
        if len(token) > MAX_TOKEN_BYTES:
            raise AppError("TOKEN_INVALID", cause="too long")
        claims = await self._claims(token)
        known = self._known.get(token)  # many may come with it at once
        if known is None:
            known = self._known[token] = SignIn(Caller(token=token, claims=claims), _end_of(claims))
            while len(self._known) > VERIFIED_TOKENS:
                self._known.popitem(last=False)
        return known

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
                # When it ends is looked at with each use.
                options={
                    "require": ["exp", "sub", "role", "aud"],
                    "verify_iss": issuer is not None,
                    "verify_exp": False,
                },
            )
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


def _end_of(claims: Mapping[str, Any]) -> float:
    return float(claims["exp"]) + LEEWAY_SECONDS


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False
