import time
from collections.abc import Callable
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from servicekit.testing import mint_token
from tests.support import contract
from tests.support.api import Person, reason
from tests.support.expectations import BODIES, RESOURCES, path_fields
from tests.support.suites import RunningStack

PROTECTED = [
    (verb, path) for method in contract.methods() if not method.policy.anonymous for verb, path in method.bindings
]
OF_A_RESOURCE = [(verb, path, name) for verb, path in PROTECTED for name in path_fields(path)]


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    return {"sub": str(uuid4()), "aud": "authenticated", "role": "authenticated", "exp": now + 600, **changes}


FORGED: dict[str, Callable[[str, RunningStack], str | None]] = {
    "none": lambda token, stack: None,
    "garbage": lambda token, stack: "garbage",
    "truncated": lambda token, stack: token[:-4],
    "expired": lambda token, stack: stack.mint_token(expires_in=-60),
    "wrong audience": lambda token, stack: stack.mint_token(aud="other"),
    "service role": lambda token, stack: stack.mint_token(role="service_role"),
    "expired, of the secret": lambda token, stack: mint_token(secret=stack.jwt_secret, expires_in=-60),
    "wrong audience, of the secret": lambda token, stack: mint_token(secret=stack.jwt_secret, aud="other"),
    "service role, of the secret": lambda token, stack: mint_token(secret=stack.jwt_secret, role="service_role"),
    "alg none": lambda token, stack: jwt.encode(claims(), "", algorithm="none"),
    "foreign secret": lambda token, stack: mint_token(secret="not-the-secret-of-this-project-at-all"),
    "foreign key": lambda token, stack: jwt.encode(
        claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "mine"}
    ),
    "publishable key": lambda token, stack: stack.publishable_key,
}


def at(path: str, **ids: str) -> str:
    return path.format_map({name: uuid4() for name in path_fields(path)} | ids)


def test_every_id_of_a_path_has_an_expectation() -> None:
    assert {name for _, _, name in OF_A_RESOURCE} == RESOURCES.keys()


@pytest.mark.parametrize("forgery", FORGED)
@pytest.mark.parametrize(("verb", "path"), PROTECTED)
async def test_without_a_valid_token_nothing_is_answered(
    stack: RunningStack, api: httpx.AsyncClient, owner: Person, verb: str, path: str, forgery: str
) -> None:
    token = FORGED[forgery](owner.tokens["access_token"], stack)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = BODIES.get((verb, path), {}) if verb not in ("GET", "DELETE") else None
    response = await api.request(verb, at(path), headers=headers, json=body)
    assert response.status_code == 401, response.text
    if path.startswith("/v1/"):
        assert response.json()["error"]["code"] == "invalid_api_key"
    else:
        assert reason(response) in ("TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("verb", "path", "name"), OF_A_RESOURCE)
async def test_what_is_a_strangers_answers_like_what_is_not_there(
    owner: Person, stranger: Person, verb: str, path: str, name: str
) -> None:
    resource, body = RESOURCES[name], BODIES.get((verb, path))
    made = await resource.make(owner)
    own_path = resource.path and at(resource.path, **{name: made})
    before = own_path and (await owner.call("GET", own_path)).json()
    theirs = await stranger.call(verb, at(path, **{name: made}), body)
    missing = await stranger.call(verb, at(path), body)
    assert theirs.status_code == missing.status_code == 404
    assert reason(theirs) == reason(missing) == resource.refusal
    if own_path:
        assert (await owner.call("GET", own_path)).json() == before


async def test_what_was_used_and_said_is_found_by_oneself_only(owner: Person, stranger: Person) -> None:
    session = await owner.create_session()
    written = {"messages": [{"role": "user", "content": "a zither nobody else plays"}]}
    assert (await owner.call("POST", f"/sessions/{session['id']}/messages", written)).is_success
    assert len((await owner.call("GET", "/messages/search?query=zither")).json()["hits"]) == 1
    assert (await stranger.call("GET", "/messages/search?query=zither")).json()["hits"] == []
    runs = (await stranger.call("GET", "/runs?page_size=100")).json()["runs"]
    assert {run["user_id"] for run in runs} <= {stranger.user["id"]}
    assert (await stranger.call("GET", "/usage")).json()["total"]["runs"] == len(runs)


async def test_lists_hold_only_what_is_ones_own(owner: Person, stranger: Person) -> None:
    mine = await owner.create_session(name="only mine")
    theirs = (await stranger.call("GET", "/sessions?page_size=100")).json()["sessions"]
    assert mine["id"] not in [session["id"] for session in theirs]
    own = (await owner.call("GET", "/sessions?page_size=100")).json()["sessions"]
    assert mine["id"] in [session["id"] for session in own]
    assert {session["user_id"] for session in own} == {owner.user["id"]}


async def test_me_is_always_oneself(owner: Person, stranger: Person) -> None:
    assert (await owner.call("GET", "/auth/me")).json()["email"] == owner.user["email"]
    assert (await stranger.call("GET", "/auth/me")).json()["email"] == stranger.user["email"]
