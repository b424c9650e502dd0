"""What can go wrong with signing in and with accounts."""

from collections.abc import Mapping

from grpc import StatusCode

from servicekit import reasons
from servicekit.reasons import Reason

REASONS: Mapping[str, Reason] = {
    "INVALID_CREDENTIALS": Reason(
        StatusCode.UNAUTHENTICATED, "E-mail or password is wrong.", "Check both, or reset the password."
    ),
    "EMAIL_NOT_CONFIRMED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The e-mail address is not confirmed yet.",
        "Open the link in the confirmation mail, or enter its code.",
    ),
    "OTP_INVALID": Reason(
        StatusCode.UNAUTHENTICATED,
        "This link or code is wrong, has expired or has been used before.",
        "Check the code, or ask for a new mail.",
    ),
    "EMAIL_TAKEN": Reason(
        StatusCode.ALREADY_EXISTS,
        "An account with this e-mail address exists.",
        "Log in, or reset the password.",
    ),
    "EMAIL_REJECTED": Reason(
        StatusCode.INVALID_ARGUMENT, "This e-mail address cannot be used.", "Use another address."
    ),
    "WEAK_PASSWORD": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The password is too weak: {problem}.",
        "Choose a longer or less common one.",
    ),
    "SAME_PASSWORD": Reason(
        StatusCode.INVALID_ARGUMENT, "The new password is the old one.", "Choose another password."
    ),
    "REAUTHENTICATION_NEEDED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The sign-in is too old for this change.",
        "Log in again, then repeat it.",
    ),
    "REFRESH_TOKEN_INVALID": Reason(
        StatusCode.UNAUTHENTICATED, "The refresh token is not valid or has expired.", "Log in again."
    ),
    "REFRESH_TOKEN_REUSED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The refresh token has been used before; the sign-in was ended for safety.",
        "Log in again, and refresh in one place only.",
    ),
    "SIGNUP_DISABLED": Reason(
        StatusCode.FAILED_PRECONDITION, "New accounts are not accepted.", "Ask the operator for an account."
    ),
    "SIGN_UP_CLOSED": Reason(
        StatusCode.PERMISSION_DENIED,
        "New accounts are not accepted here.",
        "Log in if you have an account, or ask the operator for one.",
    ),
    "SIGN_UP_NOT_INVITED": Reason(
        StatusCode.PERMISSION_DENIED,
        "New accounts are by invitation, and this address has none.",
        "Sign up with the address that was invited, or ask the operator for an invitation.",
    ),
    "SIGN_UP_DOMAIN_REFUSED": Reason(
        StatusCode.PERMISSION_DENIED,
        "New accounts are for addresses of certain domains.",
        "Sign up with such an address, or ask the operator for an invitation.",
    ),
    "USER_BANNED": Reason(StatusCode.PERMISSION_DENIED, "This account is blocked.", "Ask the operator."),
    "PROVIDER_DISABLED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Sign-in with {provider} is not switched on.",
        "Use another way to sign in. Operators: enable the provider.",
    ),
    "SOCIAL_LOGIN_FAILED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The sign-in with the provider was not completed.",
        "Begin again at /auth/social, in the same browser and within 10 minutes.",
    ),
    "AUTH_RATE_LIMITED": Reason(
        StatusCode.RESOURCE_EXHAUSTED, "The auth server asks to slow down.", "Wait a minute, then try again."
    ),
    "AUTH_SERVER_UNAVAILABLE": Reason(
        StatusCode.UNAVAILABLE, "The auth server cannot be reached.", "Try again in a moment."
    ),
    "AUTH_SERVER_REFUSED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The auth server refused the request ({auth_code}).",
        "Operators: look the code up in the documentation of Supabase Auth.",
    ),
    "ACCOUNT_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND, "The account does not exist any more.", "Log in with another account."
    ),
    "USERNAME_TAKEN": Reason(
        StatusCode.ALREADY_EXISTS, "The username {username} is taken.", "Choose another username."
    ),
    "INVALID_USERNAME": Reason(
        StatusCode.INVALID_ARGUMENT,
        "profile.username is invalid: 3 to 32 of a-z, 0-9, dot, dash and underscore.",
        "Choose another username.",
    ),
}


def register() -> None:
    """Let this process raise them."""
    reasons.register(REASONS)
