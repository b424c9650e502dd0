"""What a provider's list of models tells, with providers on real sockets."""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest
import trustme

from local.settings import ROOT
from servicekit.errors import AppError
from services.orchestrator.models import provider_check
from services.orchestrator.models.models import Models
from services.orchestrator.models.provider_check import Check, check, is_listed, list_models, shown_address
from services.orchestrator.settings import Settings
from tests.support.waiting import until

NO_PROXY: Mapping[str, str] = {}
THREE = {"data": [{"id": "first"}, {"id": "second:latest"}, {"id": "models/third"}]}


class Provider:
    """Answers every request with one status and one body; `asked` counts, `hold` keeps answers back."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        self.asked: list[str] = []
        self.url = ""
        self.hold: asyncio.Event | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, body: Any, *, status: int = 200, **options: Any) -> AsyncIterator["Provider"]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        provider = cls(status, content)
        server = await asyncio.start_server(provider._answer, "127.0.0.1", 0, **options)
        scheme = "https" if options else "http"
        provider.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield provider
        finally:
            if provider.hold is not None:
                provider.hold.set()
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            self.asked.append((await reader.read(65_536)).decode(errors="replace"))
            if self.hold is not None:
                await self.hold.wait()
            head = f"HTTP/1.1 {self.status} x\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + self.body)
            await writer.drain()
        writer.close()


def settings_of(url: str, **values: Any) -> Settings:
    return Settings(_env_file=None, openai_base_url=url, **values)


async def test_the_configured_model_is_named_with_its_address_and_the_key_is_sent() -> None:
    async with Provider.running(THREE) as provider:
        found = await check(settings_of(provider.url, openai_api_key="a-key", model="second"), environment=NO_PROXY)
    assert found == Check(f"second at {provider.url}")
    assert provider.asked[0].startswith("GET /v1/models HTTP/1.1")
    assert "Authorization: Bearer a-key" in provider.asked[0]


async def test_without_a_configured_model_it_is_the_first_one_of_the_list() -> None:
    async with Provider.running(THREE) as provider:
        found = await check(settings_of(provider.url), environment=NO_PROXY)
    assert (found.detail, found.advice) == (f"first at {provider.url}", "")
    assert "CONCERTO_MODEL" in found.hint


def test_a_model_is_known_by_the_shorter_name_too() -> None:
    names = ("llama3.2:latest", "models/gemini-3-flash", "gpt-5.6-luna")
    assert all(is_listed(name, names) for name in ("llama3.2", "llama3.2:latest", "gemini-3-flash", "gpt-5.6-luna"))
    assert not any(is_listed(name, names) for name in ("llama3", "gpt-5.6", "flash", ""))


@pytest.mark.parametrize(
    ("body", "status", "detail", "advice"),
    [
        (THREE, 200, "m is no model of {url}: it has first, second:latest, models/third", "Set CONCERTO_MODEL"),
        ({"data": []}, 200, "m is no model of {url}: it has none yet", "Set CONCERTO_MODEL"),
        ({"data": None}, 200, "m is no model of {url}: it has none yet", "Set CONCERTO_MODEL"),
        ([{"id": "a"}], 200, "m is no model of {url}: it has a", "Set CONCERTO_MODEL"),
        ({}, 401, "m: {url} refuses the key (HTTP 401)", "Set OPENAI_API_KEY."),
        ({}, 403, "m: {url} refuses the key (HTTP 403)", "Set OPENAI_API_KEY."),
        ({}, 500, "m: {url} answers with HTTP 500", "Try again later"),
        (b"<html>", 200, "m: {url} sends no list of models that can be read", "Correct OPENAI_BASE_URL"),
        ({"models": [{"name": "x"}]}, 200, "m: {url} sends no list of models that can be read", "Correct OPENAI_BASE"),
        (b"[" * 100_000, 200, "m: {url} sends no list of models that can be read", "Correct OPENAI_BASE_URL"),
    ],
)
async def test_what_is_wrong_is_one_sentence_with_what_to_do(body: Any, status: int, detail: str, advice: str) -> None:
    async with Provider.running(body, status=status) as provider:
        found = await check(settings_of(provider.url, model="m"), environment=NO_PROXY)
    assert found.detail == detail.format(url=provider.url)
    assert found.advice.startswith(advice)


async def test_a_provider_without_a_list_may_have_the_model_all_the_same() -> None:
    async with Provider.running({}, status=404) as provider:
        found = await check(settings_of(provider.url, model="m"), environment=NO_PROXY)
        unnamed = await check(settings_of(provider.url), environment=NO_PROXY)
    assert (found.detail.startswith(f"m at {provider.url}, untried: "), found.advice) == (True, "")
    assert "CONCERTO_MODEL" in unnamed.advice


async def test_an_address_where_nothing_listens_is_named() -> None:
    async with Provider.running({}) as provider:
        pass
    found = await check(settings_of(provider.url), environment=NO_PROXY)
    assert found.detail == f"{provider.url} is not there: nothing listens at this address"
    assert found.advice == "Start what should answer there, or correct OPENAI_BASE_URL."


async def test_a_silent_provider_is_waited_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provider_check.LIMIT_SECONDS == 2
    monkeypatch.setattr(provider_check, "LIMIT_SECONDS", 0.05)
    async with Provider.running(THREE) as provider:
        provider.hold = asyncio.Event()
        found = await check(settings_of(provider.url, model="m"), environment=NO_PROXY)
    assert found.detail == f"m: {provider.url} does not answer within 0.05 seconds"


async def test_certificates_of_nobody_and_a_wrong_scheme_are_told_apart() -> None:
    authority = trustme.CA()
    context = trustme_context(authority)
    async with Provider.running(THREE, ssl=context) as provider:
        found = await check(settings_of(provider.url), environment=NO_PROXY)
        assert found.detail == f"{provider.url} shows a certificate that is not trusted"
        with authority.cert_pem.tempfile() as bundle:
            trusted = await check(settings_of(provider.url), environment={"SSL_CERT_FILE": bundle})
        assert trusted.detail == f"first at {provider.url}"
    async with Provider.running(THREE) as provider:
        found = await check(settings_of(provider.url.replace("http:", "https:")), environment=NO_PROXY)
        assert found.detail.endswith(" does not speak TLS")


def trustme_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_proxy_that_cannot_be_used_is_what_is_named() -> None:
    proxies = {"all_proxy": "socks5h://me:secret@127.0.0.1:9"}
    found = await check(settings_of("https://chat.invalid/v1", model="m"), environment=proxies)
    assert found.detail.startswith("m: https://chat.invalid/v1 cannot be reached: all_proxy names a SOCKS proxy")
    assert "secret" not in found.detail + found.advice


def test_addresses_are_shown_without_their_passwords() -> None:
    assert shown_address("http://me:secret@127.0.0.1:1/v1?key=secret") == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("values", "takes_first"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, True),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "OPENAI_API_KEY": "k"}, True),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "CONCERTO_MODEL": "m"}, False),
        ({"OPENAI_BASE_URL": "https://eu.api.openai.com/v1", "OPENAI_API_KEY": "k"}, False),
        ({"OPENAI_API_KEY": "k"}, False),
        ({}, False),
    ],
)
def test_who_says_which_model_answers(values: dict[str, str], takes_first: bool, monkeypatch: Any) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "CONCERTO_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None).takes_first_model is takes_first
    assert Settings.model_validate(values).takes_first_model is takes_first


@contextlib.asynccontextmanager
async def models_of(url: str, **values: Any) -> AsyncIterator[Models]:
    models = Models(settings_of(url, **values))
    try:
        yield models
    finally:
        await models.close()


async def test_the_first_model_is_learnt_once_and_offered_before_the_further_ones() -> None:
    async with Provider.running(THREE) as provider, models_of(provider.url, models="other, first") as models:
        await asyncio.gather(*(models.learn_names() for _ in range(20)))
        await models.learn_names()
        assert len(provider.asked) == 1
        assert models.names == ("first", "other")
        assert models.name_for("") == models.name_for("first") == "first"
        assert models.calls.name_of("first") == "first"
        with pytest.raises(AppError, match="MODEL_NOT_FOUND"):
            models.name_for("gpt-5.6-luna")


async def test_a_provider_that_comes_later_is_asked_again() -> None:
    async with Provider.running({}, status=401) as provider, models_of(provider.url) as models:
        with pytest.raises(AppError) as refused:
            await models.learn_names()
        assert refused.value.reason == "MODEL_CREDENTIALS_REJECTED"
        provider.status, provider.body = 200, json.dumps({"data": []}).encode()
        with pytest.raises(AppError) as refused:
            await models.learn_names()
        assert refused.value.reason == "MODEL_UNAVAILABLE"
        provider.body = json.dumps(THREE).encode()
        await models.learn_names()
        assert models.name_for("") == "first"


async def test_who_goes_away_while_the_list_is_asked_takes_nothing_from_the_others() -> None:
    async with Provider.running(THREE) as provider, models_of(provider.url) as models:
        provider.hold = asyncio.Event()
        first, second = (asyncio.create_task(models.learn_names()) for _ in range(2))
        await until(lambda: provider.asked, "the question")
        first.cancel()
        provider.hold.set()
        await second
        assert models.names == ("first",)


async def test_a_configured_model_asks_nobody() -> None:
    async with Provider.running(THREE) as provider, models_of(provider.url, model="m") as models:
        await models.learn_names()
        assert (models.names, provider.asked) == (("m",), [])


async def test_a_list_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_check, "MAX_LIST_BYTES", 1000)
    async with Provider.running(b" " * 100_000) as provider, httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(provider_check.ListError, match="no list of models that can be read"):
            await list_models(settings_of(provider.url), client)


async def test_as_a_program_it_prints_the_check() -> None:
    async with Provider.running(THREE) as provider:
        environment = {"PATH": os.environ["PATH"], "CONCERTO_ENV_FILE": "/dev/null", "OPENAI_BASE_URL": provider.url}  # noqa: TID251
        command = [sys.executable, "-m", "services.orchestrator.models.provider_check"]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
    assert json.loads(done.stdout)["detail"] == f"first at {provider.url}"
