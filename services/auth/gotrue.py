"""Supabase Auth (GoTrue): one method per call, nothing kept between calls but connections and public settings."""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import httpx
import structlog
from pydantic import SecretStr
from supabase_auth import AsyncGoTrueClient, AsyncMemoryStorage
from supabase_auth.constants import API_VERSION_HEADER_NAME, STORAGE_KEY
from supabase_auth.errors import AuthError
from supabase_auth.types import AuthResponse, Session, SignOutScope, User

from servicekit import spelling
from servicekit.errors import AppError
from servicekit.outgoing import clients
from servicekit.rpc import request
from servicekit.rpc.identity import Caller
from servicekit.telemetry import observing
from services.auth.mails import Mails
from services.auth.refusals import AuthServerError, Call, MailNotSentError, translate

_LOG = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

CALL_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
HEALTH_TIMEOUT_SECONDS = 3.0
HEALTH_TTL_SECONDS = 10.0
PROVIDERS_TTL_SECONDS = 60.0
MOST_PASSWORD_BYTES = 72
OLDER: Mapping[str, str] = {API_VERSION_HEADER_NAME: "2015-01-01"}
"""Asks for answers of the first version: only there the auth server tells why the database refused a new user."""
FAILED_LOG_IN_SECONDS = 0.4
"""How soon a log-in fails at the earliest: longer than the auth server needs for a hash, which it only makes of a
password that an account has."""
FORWARDING_HEADER = "x-concerto-forwarding-key"
"""By it the embedded Supabase knows that a call is for one of many people, whom the gateway limits one by one."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one sign-in."""

    access_token: str = field(repr=False)
    """Bearer token."""
    refresh_token: str = field(repr=False)
    """Works once."""
    expires_in: int
    """Lifetime of the access token, in seconds."""
    expires_at: int
    """End of the access token, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who signed up or in."""

    user_id: str
    """The user (UUID); made up when an address that exists already signs up and must not show it."""
    email: str
    """The address as the auth server keeps it."""
    tokens: Tokens | None
    """Absent while the e-mail waits for confirmation."""


@dataclass(frozen=True, slots=True)
class SocialStart:
    """A sign-in with a provider that has begun."""

    authorization_url: str
    """Where the browser goes."""
    st: str = field(repr=False)
    """Comes back as the callback's parameter `st`."""
    code_verifier: str = field(repr=False)
    """PKCE secret."""


def open_http() -> httpx.AsyncClient:
    """Return the connections that all calls share. They hold no cookies: GoTrue sets none for API calls."""
    return clients.client(timeout=httpx.Timeout(CALL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS))


class GoTrue:
    """Calls of one project's auth server.

    Every call makes its own supabase-py client over the shared connections, so no user's state can meet another's.
    Each raises the AppErrors of `services.auth.refusals`, of which AUTH_SERVER_UNAVAILABLE, AUTH_RATE_LIMITED,
    AUTH_SERVER_REFUSED and DEADLINE_EXCEEDED are possible everywhere.
    """

    def __init__(
        self,
        url: str,
        publishable_key: SecretStr,
        http: httpx.AsyncClient,
        *,
        browser_url: str | None = None,
        forwarding_key: SecretStr | None = None,
    ) -> None:
        self._url = f"{url}/auth/v1"
        self._browser_url = f"{browser_url or url}/auth/v1"
        self._headers = {"apikey": publishable_key.get_secret_value()}
        if forwarding_key is not None:
            self._headers[FORWARDING_HEADER] = forwarding_key.get_secret_value()
        self._http = http
        self._mails = Mails()
        self._healthy_until = 0.0
        self._providers: dict[str, bool] | None = {}
        self._providers_until = 0.0

    async def sign_up(self, email: str, password: str, *, display_name: str = "", redirect_to: str = "") -> SignIn:
        """Create a user.

        An address that exists is answered as a new one when addresses are confirmed by mail, otherwise EMAIL_TAKEN. So
        is one whose mail the mail server did not take, which is logged: the person asks for another one.
        Raises WEAK_PASSWORD, EMAIL_TAKEN, EMAIL_REJECTED, SIGNUP_DISABLED, SIGN_UP_CLOSED, SIGN_UP_NOT_INVITED,
        SIGN_UP_DOMAIN_REFUSED.
        """
        email, password = _spelt(email), _new_password(password)
        data = {"display_name": display_name} if display_name else {}
        options: dict[str, object] = {"data": data}
        if redirect_to:
            options["email_redirect_to"] = redirect_to
        credentials = {"email": email, "password": password, "options": options}
        with contextlib.suppress(AuthServerError):
            return await self._sign_up_as(email, credentials)
        # Of two sign-ups of one address at once, the loser gets a 500; asked again, the server says why.
        return await self._sign_up_as(email, credentials)

    async def _sign_up_as(self, email: str, credentials: Mapping[str, object]) -> SignIn:
        try:
            return _sign_in(await self._attempt(Call.SIGN_UP, self._client(answers=OLDER).sign_up(credentials)))  # type: ignore[arg-type]
        except MailNotSentError as error:
            # "Not again within a minute" is only ever said of an address that has an account waiting, and that the mail
            # server failed of one that has none that is confirmed: to the others no mail would have been sent.
            if not (error.recently or error.has_failed):
                raise
            if error.has_failed:
                _LOG.warning("auth.mail_not_sent", reason=error.reason, cause=error.cause)
        return SignIn(user_id=str(uuid4()), email=email, tokens=None)

    async def log_in(self, email: str, password: str) -> SignIn:
        """Sign in. Raises INVALID_CREDENTIALS, EMAIL_NOT_CONFIRMED, USER_BANNED.

        Address and password are tried in their one spelling, then as they were given: so accounts of before are kept.
        It fails for unknown addresses after as many calls and as late as for known ones.
        """
        begun = time.monotonic()
        refusal = AppError("INVALID_CREDENTIALS")
        for known_as, secret in itertools.product(_spellings(email), spelling.passwords(password)):
            try:
                return await self._log_in_as(known_as, secret)
            except AppError as error:
                if error.reason != "INVALID_CREDENTIALS":
                    raise
                refusal = error
        await asyncio.sleep(max(0.0, begun + FAILED_LOG_IN_SECONDS - time.monotonic()))
        raise refusal

    async def _log_in_as(self, email: str, password: str) -> SignIn:
        credentials = {"email": email, "password": password}
        return _sign_in(
            await self._attempt(Call.LOG_IN, self._client().sign_in_with_password(credentials))  # type: ignore[arg-type]
        )

    async def refresh(self, refresh_token: str) -> SignIn:
        """Exchange a refresh token. Raises REFRESH_TOKEN_INVALID, REFRESH_TOKEN_REUSED, SIGN_IN_ENDED, USER_BANNED."""
        return _sign_in(await self._attempt(Call.REFRESH, self._client().refresh_session(refresh_token)))

    async def log_out(self, caller: Caller, scope: SignOutScope) -> None:
        """End sign-ins of the caller. A local one that has ended already is no error.

        Raises SIGN_IN_ENDED for the other scopes, as the others' tokens would live on; ACCOUNT_NOT_FOUND.
        """
        try:
            # The scope is always sent: GoTrue without one ends all, the embedded server only this one.
            await self._attempt(Call.LOG_OUT, self._client().admin.sign_out(caller.token, scope))
        except AppError as error:
            if scope != "local" or error.reason not in ("SIGN_IN_ENDED", "ACCOUNT_NOT_FOUND"):
                raise

    async def request_password_reset(self, email: str, *, redirect_to: str = "") -> str:
        """Have the reset mail sent, once this has answered: the same and as soon for every address.

        Returns the address in its one spelling.

        Raises EMAIL_REJECTED for an address that cannot exist, AUTH_SERVER_UNAVAILABLE and AUTH_RATE_LIMITED whatever
        the address is. That a mail was not sent is logged.
        """
        known_as = _spellings(email)
        await self.ping()
        options = {"redirect_to": redirect_to} if redirect_to else {}
        # Nothing is awaited from here on: callers that come together would all find room for the last mail.
        self._mails.refuse_more()
        for each in known_as:
            self._mails.ask(
                self._attempt(
                    Call.PASSWORD_RESET,
                    self._client().reset_password_for_email(each, options),  # type: ignore[arg-type]
                )
            )
        return known_as[0]

    async def close(self) -> None:
        """Return when what was asked for beside the calls is done."""
        await self._mails.close()

    async def verify_otp(self, otp_type: str, proof: dict[str, str]) -> SignIn | None:
        """Redeem the link or the code of a mail.

        proof: `token_hash`, or `email` and `token`. Returns None while the other address of a change has to agree.
        Raises OTP_INVALID, USER_BANNED.
        """
        if "email" not in proof:
            return await self._verify_otp(otp_type, proof)
        refusal = AppError("OTP_INVALID")
        for known_as in _spellings(proof["email"]):
            try:
                return await self._verify_otp(otp_type, {**proof, "email": known_as})
            except AppError as error:
                if error.reason != "OTP_INVALID":
                    raise
                refusal = error
        raise refusal

    async def _verify_otp(self, otp_type: str, proof: dict[str, str]) -> SignIn | None:
        params: Any = {"type": otp_type, **proof}
        answer = await self._attempt(Call.VERIFICATION, self._client().verify_otp(params))
        return _sign_in(answer) if answer.user is not None or otp_type != "email_change" else None

    async def update_password(self, caller: Caller, password: str) -> None:
        """Set the caller's password.

        Raises WEAK_PASSWORD, SAME_PASSWORD, REAUTHENTICATION_NEEDED, SIGN_IN_ENDED, TOKEN_EXPIRED, ACCOUNT_NOT_FOUND.
        """
        password = _new_password(password)
        client = self._client(await _memory_of(caller))
        await self._attempt(Call.PASSWORD_UPDATE, client.update_user({"password": password}))

    async def start_social(self, provider: str, callback_url: str) -> SocialStart:
        """Begin a sign-in with a provider (`github`, `google`). Raises PROVIDER_DISABLED."""
        if not await self._is_enabled(provider):
            raise AppError("PROVIDER_DISABLED", metadata={"provider": provider})
        st, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        query = {
            "provider": provider,
            "redirect_to": _with_st(callback_url, st),
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "s256",
        }
        return SocialStart(f"{self._browser_url}/authorize?{urlencode(query)}", st=st, code_verifier=verifier)

    async def exchange_code(self, code: str, code_verifier: str) -> SignIn:
        """Complete a sign-in with a provider. Raises SOCIAL_LOGIN_FAILED, USER_BANNED."""
        params = {"auth_code": code, "code_verifier": code_verifier, "redirect_to": ""}
        return _sign_in(
            await self._attempt(Call.CODE_EXCHANGE, self._client().exchange_code_for_session(params))  # type: ignore[arg-type]
        )

    async def ping(self) -> None:
        """Return when the auth server answers; asked at most every 10 s while it does."""
        if time.monotonic() < self._healthy_until:
            return
        response = await self._attempt(Call.INSPECTION, self._get("health"), at_most=HEALTH_TIMEOUT_SECONDS)
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise AppError("AUTH_SERVER_UNAVAILABLE", cause=f"health answered {response.status_code}")
        self._healthy_until = time.monotonic() + HEALTH_TTL_SECONDS

    async def _is_enabled(self, provider: str) -> bool:
        if time.monotonic() > self._providers_until:
            response = await self._attempt(Call.INSPECTION, self._settings())
            # A server without this endpoint decides when the browser arrives there.
            self._providers = None if response.status_code == httpx.codes.NOT_FOUND else response.json()["external"]
            self._providers_until = time.monotonic() + PROVIDERS_TTL_SECONDS
        return self._providers is None or bool(self._providers.get(provider))

    async def _settings(self) -> httpx.Response:
        response = await self._get("settings")
        if response.status_code == httpx.codes.NOT_FOUND:
            return response
        response.raise_for_status()
        if not isinstance(response.json(), dict) or not isinstance(response.json().get("external"), dict):
            raise ValueError("not the settings of an auth server")
        return response

    async def _get(self, path: str) -> httpx.Response:
        return await self._http.get(f"{self._url}/{path}", headers=self._headers)

    def _client(
        self, storage: AsyncMemoryStorage | None = None, *, answers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncGoTrueClient:
        return AsyncGoTrueClient(
            url=self._url,
            headers={**self._headers, **answers},
            storage=storage or AsyncMemoryStorage(),
            auto_refresh_token=False,
            persist_session=storage is not None,
            http_client=self._http,
        )

    async def _attempt(self, call: Call, sent: Awaitable[T], *, at_most: float = CALL_TIMEOUT_SECONDS) -> T:
        try:
            with observing.asking(f"supabase auth {call.value}"):
                async with asyncio.timeout(request.remaining_seconds(at_most)):
                    return await sent
        except (AuthError, httpx.HTTPError, TimeoutError, ValueError) as error:
            refusal = translate(error, call)
        # Raised out here, so that no exception that quotes a password or a token hangs on it as its context.
        raise refusal


async def _memory_of(caller: Caller) -> AsyncMemoryStorage:
    """Return a client's memory that holds only the caller's access token, as if it had just signed in."""
    # supabase-py wants a whole session before it acts as a user; setting one through the API costs a request.
    user = User(id=caller.user_id, app_metadata={}, user_metadata={}, aud="", created_at="1970-01-01T00:00:00Z")
    session = Session(access_token=caller.token, refresh_token="", expires_in=3600, token_type="bearer", user=user)  # noqa: S106
    storage = AsyncMemoryStorage()
    await storage.set_item(STORAGE_KEY, session.model_dump_json())
    return storage


def _sign_in(answer: AuthResponse) -> SignIn:
    session, user = answer.session, answer.user
    if user is None:
        raise AppError("AUTH_SERVER_UNAVAILABLE", cause="an answer without a user")
    tokens = None
    if session is not None:
        tokens = Tokens(
            access_token=session.access_token,
            refresh_token=session.refresh_token,
            expires_in=session.expires_in,
            expires_at=session.expires_at or int(time.time()) + session.expires_in,
        )
    return SignIn(user_id=user.id, email=user.email or "", tokens=tokens)


def _spelt(email: str) -> str:
    return _spellings(email)[0]


def _spellings(email: str) -> tuple[str, ...]:
    """Return the spellings that an account may have the address in, the right one first. Raises EMAIL_REJECTED."""
    with contextlib.suppress(ValueError):
        return spelling.addresses(email)
    raise AppError("EMAIL_REJECTED", cause="its domain cannot exist")


def _new_password(text: str) -> str:
    """Return the password as it is kept. Raises FIELD_TOO_LARGE where it is longer so than as it was sent."""
    kept = spelling.password(text)
    if len(kept.encode()) > MOST_PASSWORD_BYTES:
        raise AppError("FIELD_TOO_LARGE", metadata={"field": "password", "limit": f"{MOST_PASSWORD_BYTES} bytes"})
    return kept


def _with_st(callback_url: str, st: str) -> str:
    parts = urlsplit(callback_url)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "st"]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode([*query, ("st", st)]), ""))


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
