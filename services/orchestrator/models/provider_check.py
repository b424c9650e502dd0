"""Asks a provider for its list of models: whether the configured one answers, and which is the first.

`concerto doctor` and `concerto up` tell people the result, the second by running this as a program:
`python -m services.orchestrator.models.provider_check` prints it as JSON, for the settings of the environment.
"""

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from servicekit.outgoing import clients
from servicekit.outgoing.settings import ProxyError
from services.orchestrator.settings import PROVIDER_URL, Settings

LIMIT_SECONDS = 2.0
"""How long the list may take, from the first byte sent to the last one received."""
MAX_LIST_BYTES = 16 * 1024 * 1024
_SHOWN_MODELS = 5
_KEY_REFUSED = (401, 403)
_NO_LIST = (404, 405, 501)


class ListError(Exception):
    """There is no list of models. `reason` is one of the orchestrator's table."""

    def __init__(self, reason: str, detail: str, advice: str) -> None:
        super().__init__(f"{detail}. {advice}")
        self.reason = reason
        self.detail = detail
        """What is wrong, without a full stop; names no key."""
        self.advice = advice
        """What to do, a sentence."""


class NoListError(ListError):
    """The provider answers, and has no list of models where it was asked; it may well have models."""


@dataclass(frozen=True)
class Check:
    """Which model answers, for people."""

    detail: str
    """The model and where it is, and what is wrong; without a full stop at the end."""
    advice: str = ""
    """What to do; empty where all is well."""
    hint: str = ""
    """What is worth knowing while nothing is wrong."""


def shown_address(url: str) -> str:
    """Return an address as people may see it: without a name and a password that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


async def list_models(settings: Settings, client: httpx2.AsyncClient) -> tuple[str, ...]:
    """Return the names of the provider's models, in its order, within LIMIT_SECONDS.

    Raises ListError.
    """
    url = settings.openai_base_url or PROVIDER_URL
    address = shown_address(url)
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "not-needed"
    unreachable = "Start what should answer there, or correct OPENAI_BASE_URL."
    try:
        async with (
            asyncio.timeout(LIMIT_SECONDS),
            client.stream(
                "GET", f"{url}/models", headers={"Authorization": f"Bearer {key}"}, follow_redirects=True
            ) as response,
        ):
            if response.status_code == httpx2.codes.OK:
                return _names(await _content(response, address), address)
            status = response.status_code
    except (TimeoutError, httpx2.TimeoutException):
        detail = f"{address} does not answer within {LIMIT_SECONDS:g} seconds"
        raise ListError("MODEL_UNREACHABLE", detail, unreachable) from None
    except (httpx2.RequestError, httpx2.InvalidURL, ssl.SSLError, UnicodeError) as error:
        raise _unreachable(error, address, unreachable) from None
    if status in _KEY_REFUSED:
        advice = "Correct OPENAI_API_KEY." if settings.openai_api_key else "Set OPENAI_API_KEY."
        raise ListError("MODEL_CREDENTIALS_REJECTED", f"{address} refuses the key (HTTP {status})", advice)
    if status in _NO_LIST:
        advice = "Does OPENAI_BASE_URL end as the server's documentation says, mostly with /v1?"
        raise NoListError("MODEL_UNREACHABLE", f"{address} has no list of models (HTTP {status})", advice)
    raise ListError("MODEL_UNAVAILABLE", f"{address} answers with HTTP {status}", "Try again later, or see its log.")


async def first_model(settings: Settings, client: httpx2.AsyncClient) -> str:
    """Return the first model of the provider's list. Raises ListError, also where the list is empty."""
    names = await list_models(settings, client)
    if not names:
        address = shown_address(settings.openai_base_url or PROVIDER_URL)
        raise ListError("MODEL_UNAVAILABLE", f"{address} has no model yet", "Load one there, or set CONCERTO_MODEL.")
    return names[0]


async def check(settings: Settings, *, environment: Mapping[str, str] | None = None) -> Check:
    """Return which of the provider's models answers and whether it can, within LIMIT_SECONDS. Not for the offline one.

    environment: whose proxies and certificates are used; absent, this process's.
    """
    address = shown_address(settings.openai_base_url or PROVIDER_URL)
    name = "" if settings.takes_first_model else settings.model
    async with httpx2.AsyncClient(**clients.routing("httpx2", environment=environment)) as client:
        try:
            if not name:
                name = await first_model(settings, client)
                hint = "It is the first one that the server has; CONCERTO_MODEL names another."
                return Check(f"{name} at {address}", hint=hint)
            names = await list_models(settings, client)
        except NoListError as error:
            if name:
                return Check(f"{name} at {address}, untried: {error.detail}", hint=error.advice)
            return Check(error.detail, f"{error.advice} Otherwise name a model of it: CONCERTO_MODEL.")
        except ListError as error:
            return Check(f"{name}: {error.detail}" if name else error.detail, error.advice)
    if not is_listed(name, names):
        shown = ", ".join(names[:_SHOWN_MODELS]) + (", …" if len(names) > _SHOWN_MODELS else "")
        has = f"it has {shown}" if names else "it has none yet"
        return Check(f"{name} is no model of {address}: {has}", "Set CONCERTO_MODEL to one that it has.")
    return Check(f"{name} at {address}")


def is_listed(name: str, names: Sequence[str]) -> bool:
    """Whether a list has a model, also where a server knows it by a shorter name.

    Ollama takes `llama3.2` for `llama3.2:latest`, Google's `gemini-3-flash` for `models/gemini-3-flash`.
    """
    return any(listed in (name, f"{name}:latest") or listed.endswith(f"/{name}") for listed in names)


async def _content(response: httpx2.Response, address: str) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_LIST_BYTES:
            raise _unreadable(address)
    return bytes(content)


def _names(content: bytes, address: str) -> tuple[str, ...]:
    try:
        body: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise _unreadable(address) from None
    entries = body.get("data") if isinstance(body, dict) else body
    if not isinstance(entries, list):
        # What Ollama sends while it has no model.
        if isinstance(body, dict) and "data" in body and entries is None:
            return ()
        raise _unreadable(address)
    names = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(name for name in names if isinstance(name, str) and name)


def _unreadable(address: str) -> ListError:
    advice = "Correct OPENAI_BASE_URL: it ends mostly with /v1."
    return ListError("MODEL_ANSWER_MALFORMED", f"{address} sends no list of models that can be read", advice)


def _unreachable(error: Exception, address: str, advice: str) -> ListError:
    """Say why there was no connection, by the error's kind alone: its text may quote what was sent."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    problem = "cannot be reached"
    for cause in causes:
        if isinstance(cause, ProxyError):
            detail, _, advice = str(cause).partition(". ")
            return ListError("MODEL_UNREACHABLE", f"{address} cannot be reached: {detail}", advice)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        problem, advice = "shows a certificate that is not trusted", "Name its authorities in SSL_CERT_FILE."
    elif any(isinstance(cause, ssl.SSLError) for cause in causes):
        problem, advice = "does not speak TLS", "Correct OPENAI_BASE_URL: http:// or https://?"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "refused" in str(error).lower():
        problem = "is not there: nothing listens at this address"
    elif isinstance(error, httpx2.ProxyError):
        problem, advice = "is refused by the proxy", "Correct HTTPS_PROXY, or name the host in NO_PROXY."
    elif not isinstance(error, httpx2.ConnectError):
        problem = "ends the connection without an answer"
    return ListError("MODEL_UNREACHABLE", f"{address} {problem}", advice)


def main() -> None:
    """Print the check of the environment's settings as one JSON object."""
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(json.dumps(asdict(asyncio.run(check(Settings.load())))) + "\n")


if __name__ == "__main__":
    main()
