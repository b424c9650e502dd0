"""Sign-in with GitHub or Google: redirects, and the PKCE verifier kept in an encrypted cookie meanwhile."""

import hmac
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

import orjson
from concerto.auth.v1 import auth_pb2
from cryptography.fernet import InvalidToken
from starlette.requests import Request
from starlette.responses import Response

from gateway import cookies, failures
from gateway.rest import incoming, negotiation
from gateway.rest.bridge import Endpoint, json_response
from gateway.rest.contract import Binding
from gateway.settings import Settings
from servicekit.errors import AppError
from servicekit.messages import validation
from servicekit.messages.converter import set_field_from_text
from servicekit.rpc import channel

COOKIE = "concerto_social"
COOKIE_SECONDS = 600
MAX_REDIRECT_CHARS = 1024
FAILURES_PAGE = "/callback/"
"""Where a browser is sent when nobody knows any more where it wanted to go: the web app's page for sign-ins."""


class SocialLogIn:
    """The two routes of a sign-in with a provider. A browser that fails is sent on with `error_code` in the fragment.

    stub: returns the callable of a binding's rpc.
    """

    def __init__(self, settings: Settings, stub: Callable[[Binding], Any]) -> None:
        self._base_url = settings.base_url
        self._fernet = cookies.fernet_of(settings.cookie_key(), "social")
        self._stub = stub

    @property
    def operations(self) -> frozenset[str]:
        """Operations of the contract that are served here."""
        return frozenset({"StartSocialLogIn", "CompleteSocialLogIn"})

    def endpoint(self, binding: Binding) -> Endpoint:
        """Return what serves the binding's route."""
        call = self._stub(binding)

        async def start(request: Request) -> Response:
            return await self._start(request, call)

        async def complete(request: Request) -> Response:
            if request.method == "HEAD":
                return Response(headers={"cache-control": "no-store"})  # who only looks spends no code
            try:
                response = await self._complete(request, call)
            except AppError as error:
                response = _fail(request, error, self._way_back(request))
            # Whatever the outcome, the code has been tried and the verifier is of no more use.
            response.delete_cookie(COOKIE, path=cookies.PATH, secure=self._is_secure, httponly=True, samesite="lax")
            return response

        return start if binding.operation_id == "StartSocialLogIn" else complete

    @property
    def _is_secure(self) -> bool:
        return self._base_url.startswith("https://")

    async def _start(self, request: Request, call: Any) -> Response:
        query = _single_values(request)
        unknown = query.keys() - {"provider", "redirect_to"}
        if unknown:
            raise AppError("UNKNOWN_FIELD", metadata={"field": min(unknown)[:64]})
        redirect_to = local_path(query.get("redirect_to", "/"))
        message = auth_pb2.StartSocialLogInRequest(callback_url=f"{self._base_url}{cookies.PATH}/callback")
        if "provider" in query:
            set_field_from_text(message, "provider", query["provider"])
        validation.check(message)
        try:
            answer = cast(auth_pb2.StartSocialLogInResponse, await channel.call(call, message))
        except AppError as error:
            return _fail(request, error, redirect_to)
        kept = {"st": answer.st, "code_verifier": answer.code_verifier, "redirect_to": redirect_to}
        response = _redirect(answer.authorization_url, status=302)
        response.set_cookie(
            COOKIE, self._fernet.encrypt(orjson.dumps(kept)).decode(),
            max_age=COOKIE_SECONDS, path=cookies.PATH, secure=self._is_secure, httponly=True, samesite="lax",
        )  # fmt: skip
        return response

    async def _complete(self, request: Request, call: Any) -> Response:
        # Providers and the auth server may add parameters of their own; unknown ones are left alone here.
        query = _single_values(request)
        kept = self._read_cookie(request)
        if not hmac.compare_digest(kept["st"].encode(), query.get("st", "").encode()):
            raise AppError("SOCIAL_LOGIN_FAILED", cause="the callback belongs to another sign-in")
        if "error" in query or "error_code" in query:
            raise AppError("SOCIAL_LOGIN_FAILED", cause="the provider answered with an error")
        message = auth_pb2.CompleteSocialLogInRequest(code=query.get("code", ""), code_verifier=kept["code_verifier"])
        validation.check(message)
        answer = cast(auth_pb2.CompleteSocialLogInResponse, await channel.call(call, message))
        if not answer.HasField("session"):
            raise AppError("SOCIAL_LOGIN_FAILED", cause="the auth service answered without a session")
        if negotiation.prefers(request.headers.get("accept"), "application/json", over="text/html"):
            return json_response(answer)
        session = answer.session
        tokens = {
            "access_token": session.access_token,
            "expires_at": session.expires_at,
            "expires_in": session.expires_in,
            "refresh_token": session.refresh_token,
            "token_type": session.token_type,
        }
        return _redirect(f"{kept['redirect_to']}#{urlencode(tokens)}", status=303)

    def _way_back(self, request: Request) -> str:
        try:
            return self._read_cookie(request)["redirect_to"]
        except AppError:
            return FAILURES_PAGE

    def _read_cookie(self, request: Request) -> dict[str, str]:
        try:
            content = self._fernet.decrypt(cookies.read(request, COOKIE).encode(), ttl=COOKIE_SECONDS)
            kept: dict[str, str] = orjson.loads(content)
        except (InvalidToken, ValueError):
            raise AppError("SOCIAL_LOGIN_FAILED", cause="the cookie is absent, too old or not ours") from None
        return kept


def local_path(target: str) -> str:
    """Return the path when it stays within this application.

    Raises AppError REDIRECT_NOT_ALLOWED for addresses of elsewhere in every spelling that browsers take for one
    (`//host`, `/\\host`, control characters), INVALID_FIELD for a fragment, whose place the tokens take.
    """
    if not target.startswith("/") or target.startswith("//") or "\\" in target or not target.isprintable():
        raise AppError("REDIRECT_NOT_ALLOWED", metadata={"field": "redirect_to"})
    if "#" in target:
        raise AppError("INVALID_FIELD", metadata={"field": "redirect_to", "problem": "must have no fragment"})
    if len(target) > MAX_REDIRECT_CHARS:
        limit = f"{MAX_REDIRECT_CHARS} characters"
        raise AppError("FIELD_TOO_LARGE", metadata={"field": "redirect_to", "limit": limit})
    return target


def _single_values(request: Request) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for name, text in incoming.query_parameters(request):
        if name in values:
            raise AppError("INVALID_FIELD", metadata={"field": name[:64], "problem": "must be given once"})
        values[name] = text
    return values


def _fail(request: Request, error: AppError, redirect_to: str) -> Response:
    """Send a person, who has come by a link, on to the page with the reason in its fragment; answer others plainly."""
    request.state.failure = error
    if not negotiation.prefers(request.headers.get("accept"), "text/html", over="application/json"):
        return failures.response(error)
    fragment = urlencode({"error": "access_denied", "error_code": error.reason})
    return _redirect(f"{redirect_to}#{fragment}", status=303)


def _redirect(address: str, *, status: int) -> Response:
    location = quote(address, safe=":/%#?=@[]!$&'()*+,;")
    return Response(status_code=status, headers={"location": location, "cache-control": "no-store"})
