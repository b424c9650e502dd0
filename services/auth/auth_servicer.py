"""The rpcs of AuthService: check, call Supabase Auth or the database, translate."""

import time
from typing import Any, cast

import structlog
from concerto.auth.v1 import auth_pb2, auth_pb2_grpc
from grpc.aio import ServicerContext
from supabase_auth.types import SignOutScope

from servicekit.errors import AppError
from servicekit.messages.json_fields import enum_spellings
from servicekit.rpc import identity
from servicekit.rpc.identity import Caller, Verifier
from services.auth.auth_store import AuthStore
from services.auth.gotrue import GoTrue, SignIn, Tokens

_LOG = structlog.stdlib.get_logger(__name__)

_SCOPES = {number: name for name, number in enum_spellings(auth_pb2.LogOutScope.DESCRIPTOR).items()}
_OTP_TYPES = {number: name for name, number in enum_spellings(auth_pb2.OtpType.DESCRIPTOR).items()}
_PROVIDERS = {number: name for name, number in enum_spellings(auth_pb2.SocialProvider.DESCRIPTOR).items()}

SECRET_MISSING_SECONDS = 60.0
"""How long a token that only a missing secret verifies shows that others would be no better. A project whose key set
holds keys may still sign with its secret, and nothing tells before the first token."""

# Temporary failures, which do not make a sign-in invalid that Supabase Auth has just granted.
_RETRYABLE = ("DATABASE_UNAVAILABLE", "DATABASE_BUSY", "KEYS_UNAVAILABLE")


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Serves AuthService. Holds no state of any caller."""

    def __init__(self, gotrue: GoTrue, store: AuthStore, verifier: Verifier) -> None:
        self._gotrue = gotrue
        self._store = store
        self._verifier = verifier
        self._secret_missing_until = 0.0

    async def SignUp(
        self, request: auth_pb2.SignUpRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.SignUpResponse:
        """See the contract."""
        await self._need_verification()
        sign_in = await self._gotrue.sign_up(
            request.email, request.password, display_name=request.display_name, redirect_to=request.redirect_to
        )
        if sign_in.tokens is None:
            return auth_pb2.SignUpResponse(user=_bare_user(sign_in))
        user, session = await self._signed_in(sign_in, sign_in.tokens)
        return auth_pb2.SignUpResponse(user=user, session=session)

    async def LogIn(self, request: auth_pb2.LogInRequest, context: ServicerContext[Any, Any]) -> auth_pb2.LogInResponse:
        """See the contract."""
        await self._need_verification()
        sign_in = await self._gotrue.log_in(request.email, request.password)
        user, session = await self._signed_in(sign_in, _need_tokens(sign_in))
        return auth_pb2.LogInResponse(user=user, session=session)

    async def RefreshSession(
        self, request: auth_pb2.RefreshSessionRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.RefreshSessionResponse:
        """See the contract."""
        await self._need_verification()
        sign_in = await self._gotrue.refresh(request.refresh_token)
        user, session = await self._signed_in(sign_in, _need_tokens(sign_in))
        return auth_pb2.RefreshSessionResponse(user=user, session=session)

    async def LogOut(
        self, request: auth_pb2.LogOutRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.LogOutResponse:
        """See the contract."""
        scope = cast(SignOutScope, _SCOPES.get(request.scope, "local"))
        await self._gotrue.log_out(identity.current_caller(), scope)
        return auth_pb2.LogOutResponse()

    async def GetMe(self, request: auth_pb2.GetMeRequest, context: ServicerContext[Any, Any]) -> auth_pb2.GetMeResponse:
        """See the contract."""
        return auth_pb2.GetMeResponse(user=await self._store.get_me(identity.current_caller()))

    async def UpdateMe(
        self, request: auth_pb2.UpdateMeRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.UpdateMeResponse:
        """See the contract."""
        return auth_pb2.UpdateMeResponse(user=await self._store.update_me(request, identity.current_caller()))

    async def RequestPasswordReset(
        self, request: auth_pb2.RequestPasswordResetRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.RequestPasswordResetResponse:
        """See the contract."""
        email = await self._gotrue.request_password_reset(request.email, redirect_to=request.redirect_to)
        return auth_pb2.RequestPasswordResetResponse(email=email)

    async def VerifyOtp(
        self, request: auth_pb2.VerifyOtpRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.VerifyOtpResponse:
        """See the contract."""
        await self._need_verification()
        sign_in = await self._gotrue.verify_otp(_OTP_TYPES[request.type], _proof(request))
        if sign_in is None:
            return auth_pb2.VerifyOtpResponse()
        user, session = await self._signed_in(sign_in, _need_tokens(sign_in))
        return auth_pb2.VerifyOtpResponse(user=user, session=session)

    async def UpdatePassword(
        self, request: auth_pb2.UpdatePasswordRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.UpdatePasswordResponse:
        """See the contract."""
        await self._gotrue.update_password(identity.current_caller(), request.password)
        return auth_pb2.UpdatePasswordResponse()

    async def StartSocialLogIn(
        self, request: auth_pb2.StartSocialLogInRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.StartSocialLogInResponse:
        """See the contract."""
        start = await self._gotrue.start_social(_PROVIDERS[request.provider], request.callback_url)
        return auth_pb2.StartSocialLogInResponse(
            authorization_url=start.authorization_url, st=start.st, code_verifier=start.code_verifier
        )

    async def CompleteSocialLogIn(
        self, request: auth_pb2.CompleteSocialLogInRequest, context: ServicerContext[Any, Any]
    ) -> auth_pb2.CompleteSocialLogInResponse:
        """See the contract."""
        await self._need_verification()
        sign_in = await self._gotrue.exchange_code(request.code, request.code_verifier)
        user, session = await self._signed_in(sign_in, _need_tokens(sign_in))
        return auth_pb2.CompleteSocialLogInResponse(user=user, session=session)

    async def ready(self) -> None:
        """Return when auth server and database answer. Raises the AppError of the one that does not."""
        await self._gotrue.ping()
        await self._store.ping()

    async def _need_verification(self) -> None:
        """Return unless the tokens that would come of a sign-in could not be verified: nothing is made or spent then.

        Raises JWT_SECRET_NEEDED. What is only away for the moment is no reason to send anybody away.
        """
        if self._verifier.has_secret:
            return
        if time.monotonic() < self._secret_missing_until:
            raise AppError("JWT_SECRET_NEEDED")
        try:
            await self._verifier.ready()
        except AppError as error:
            if error.reason == "JWT_SECRET_NEEDED":
                raise

    async def _signed_in(self, sign_in: SignIn, tokens: Tokens) -> tuple[auth_pb2.User, auth_pb2.AuthSession]:
        try:
            user = await self._store.get_me(await self._verified(tokens))
        except AppError as error:
            if error.reason not in _RETRYABLE:
                raise
            # The tokens exist now and the refresh token or code before them is spent: failing would lose the sign-in.
            _LOG.warning("auth.user_incomplete", user_id=sign_in.user_id, reason=error.reason)
            user = _bare_user(sign_in)
        session = auth_pb2.AuthSession(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            token_type="bearer",  # noqa: S106 (the kind of token)
            expires_in=tokens.expires_in,
            expires_at=tokens.expires_at,
        )
        return user, session

    async def _verified(self, tokens: Tokens) -> Caller:
        try:
            return await self._verifier.verify(tokens.access_token)
        except AppError as error:
            # One may have been ended since: its account was blocked, or it was logged out everywhere.
            if error.reason in (*_RETRYABLE, "SIGN_IN_ENDED", "JWT_SECRET_NEEDED"):
                raise
        if self._verifier.lacks_secret_of(tokens.access_token):
            self._secret_missing_until = time.monotonic() + SECRET_MISSING_SECONDS
            raise AppError("JWT_SECRET_NEEDED")
        # The client did nothing wrong: the service is set up for another project.
        cause = "a new token does not verify: check SUPABASE_URL, SUPABASE_JWT_SECRET and SUPABASE_JWT_ISSUER"
        raise AppError("INTERNAL", cause=cause)


def _proof(request: auth_pb2.VerifyOtpRequest) -> dict[str, str]:
    """Return what proves that the mail was read. Raises MISSING_FIELD, INVALID_FIELD where it is not one of the two."""
    if request.token_hash:
        for field in ("email", "token"):
            if getattr(request, field):
                raise AppError(
                    "INVALID_FIELD", metadata={"field": field, "problem": "must be absent beside token_hash"}
                )
        return {"token_hash": request.token_hash}
    for field in ("email", "token"):
        if not getattr(request, field):
            raise AppError("MISSING_FIELD", metadata={"field": field if request.email else "token_hash"})
    return {"email": request.email, "token": request.token}


def _need_tokens(sign_in: SignIn) -> Tokens:
    if sign_in.tokens is None:
        raise AppError("AUTH_SERVER_UNAVAILABLE", cause="an answer without a session")
    return sign_in.tokens


def _bare_user(sign_in: SignIn) -> auth_pb2.User:
    return auth_pb2.User(id=sign_in.user_id, email=sign_in.email)
