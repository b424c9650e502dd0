import base64
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.app import build
from gateway.tests import fakes
from gateway.tests.fakes import error_of
from servicekit.rpc import identity

Header = dict[str, str]


class Project:
    """A Supabase project's key set, served over HTTP."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.is_down = False
        self.requests = 0
        self.url = ""

    def add_key(self, kid: str, *, algorithm: str = "ES256") -> Any:
        private: Any = (
            ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else rsa.generate_private_key(65537, 2048)
        )
        maker = jwt.algorithms.ECAlgorithm if algorithm == "ES256" else jwt.algorithms.RSAAlgorithm
        public = json.loads(maker.to_jwk(private.public_key()))
        self.keys[kid] = {**public, "kid": kid, "alg": algorithm, "use": "sig"}
        return private

    def token(self, key: Any, kid: str | None, *, algorithm: str = "ES256", **claims: Any) -> str:
        now = int(time.time())
        content = {
            "iss": f"{self.url}/auth/v1",
            "sub": str(uuid4()),
            "aud": "authenticated",
            "role": "authenticated",
            "iat": now,
            "exp": now + 3600,
            **claims,
        }
        return jwt.encode(content, key, algorithm=algorithm, headers={"kid": kid} if kid else None)

    async def answer(self, _: Request) -> Response:
        self.requests += 1
        return Response(status_code=500) if self.is_down else JSONResponse({"keys": list(self.keys.values())})


@pytest.fixture
async def project() -> AsyncIterator[Project]:
    project = Project()
    app = Starlette(routes=[Route("/auth/v1/.well-known/jwks.json", project.answer)])
    async with fakes.listening(app) as port:
        project.url = f"http://127.0.0.1:{port}"
        yield project


@contextlib.asynccontextmanager
async def verified_by(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that knows only the project's keys. Its neighbours are down: 503 means let in."""
    settings = fakes.gateway_settings(supabase_url=project.url, supabase_jwt_secret=None)
    async with build(settings) as app, fakes.client_of(app) as client:
        yield client


async def ask(client: httpx.AsyncClient, token: str) -> tuple[int, str]:
    # Not an idempotent rpc: those are tried again for a while when the service is down.
    headers = {"authorization": f"Bearer {token}"}
    response = await client.put("/auth/password", json={"password": "x"}, headers=headers)
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    return error_of(response)[:2]


def signed_with_public_key(token: str, public: bytes) -> str:
    """Return the token's content with an HMAC whose secret is the public key; by hand, as PyJWT refuses to."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"one"}').rstrip(b"=")
    content = header + b"." + token.split(".")[1].encode()
    signature = base64.urlsafe_b64encode(hmac.digest(public, content, "sha256")).rstrip(b"=")
    return (content + b"." + signature).decode()


LET_IN = (503, "SERVICE_UNAVAILABLE")
INVALID = (401, "TOKEN_INVALID")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_token_of_the_projects_key_is_let_in(project: Project, algorithm: str) -> None:
    key = project.add_key("one", algorithm=algorithm)
    async with verified_by(project) as client:
        for _ in range(3):
            assert await ask(client, project.token(key, "one", algorithm=algorithm)) == LET_IN
    assert project.requests == 1


async def test_tokens_that_others_made_are_refused(project: Project) -> None:
    key = project.add_key("one")
    foreign = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = project.token(key, "one")
    header, content, signature = good.split(".")
    unknown_user = {"sub": str(uuid4()), "aud": "authenticated", "role": "authenticated"}
    tokens = {
        "foreign key": project.token(foreign, "one"),
        "unknown key": project.token(foreign, "two"),
        "no key id": project.token(key, None),
        "none": project.token(None, "one", algorithm="none"),
        "none, bare": jwt.encode(unknown_user, "", algorithm="none"),
        "public key as secret": signed_with_public_key(good, public),
        "other algorithm": project.token(rsa.generate_private_key(65537, 2048), "one", algorithm="RS256"),
        "wrong audience": project.token(key, "one", aud="anon"),
        "wrong issuer": project.token(key, "one", iss="https://elsewhere.example"),
        "wrong role": project.token(key, "one", role="service_role"),
        "anonymous key": project.token(key, "one", role="anon"),
        "no user": project.token(key, "one", sub="42"),
        "not yet": project.token(key, "one", nbf=int(time.time()) + 3600),
        "cut": f"{header}.{content}.",
        "bent": f"{header}.{content}x.{signature}",
        "garbage": "garbage",
        "dots": "..",
        "no text": "\x7f.\x7f.\x7f",
        "huge": "a" * 20_000,
    }
    async with verified_by(project) as client:
        answers = {name: await ask(client, token) for name, token in tokens.items()}
        assert answers == dict.fromkeys(tokens, INVALID)
        assert await ask(client, good) == LET_IN


async def test_an_expired_token_says_so(project: Project) -> None:
    key = project.add_key("one")
    async with verified_by(project) as client:
        assert await ask(client, project.token(key, "one", exp=int(time.time()) - 60)) == (401, "TOKEN_EXPIRED")


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "token"])
async def test_another_scheme_is_refused(project: Project, value: str) -> None:
    async with verified_by(project) as client:
        response = await client.get("/auth/me", headers={"authorization": value})
        assert error_of(response)[:2] == INVALID


async def test_a_secret_is_used_only_when_it_is_configured(project: Project) -> None:
    token = project.token("a-secret-of-the-tests-that-is-long-enough", None, algorithm="HS256")
    async with verified_by(project) as client:
        assert await ask(client, token) == INVALID
    async with build(fakes.gateway_settings()) as app, fakes.client_of(app) as client:
        assert await ask(client, token) == LET_IN


async def test_a_token_of_a_new_key_is_let_in_at_once(project: Project) -> None:
    known = project.add_key("one")
    async with verified_by(project) as client:
        assert await ask(client, project.token(known, "one")) == LET_IN
        rotated = project.add_key("two")
        assert await ask(client, project.token(rotated, "two")) == LET_IN
        assert project.requests == 2


async def test_keys_are_kept_when_they_cannot_be_fetched_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.add_key("one")
    async with verified_by(project) as client:
        assert await ask(client, project.token(key, "one")) == LET_IN
        monkeypatch.setattr(identity, "KEYS_TTL_SECONDS", -1.0)
        project.is_down = True
        assert await ask(client, project.token(key, "one")) == LET_IN
        assert project.requests == 2


async def test_without_any_keys_nobody_can_be_let_in(project: Project) -> None:
    key = project.add_key("one")
    project.is_down = True
    async with verified_by(project) as client:
        assert await ask(client, project.token(key, "one")) == (503, "KEYS_UNAVAILABLE")
