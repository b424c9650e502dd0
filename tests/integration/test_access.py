import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from servicekit.testing import mint_token
from tests.support import contract
from tests.support.api import Person, reason
from tests.support.suites import RunningStack

PROTECTED = [
    (verb, path) for method in contract.methods() if not method.policy.anonymous for verb, path in method.bindings
]
OF_A_SESSION = [(verb, path) for verb, path in PROTECTED if "{session_id}" in path]
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/sessions/{session_id}"): {"name": "mine now"},
    ("POST", "/sessions/{session_id}/messages"): {"messages": [{"role": "user", "content": "x"}]},
    ("POST", "/sessions/{session_id}/turns"): {"content": "x"},
    ("POST", "/sessions/{session_id}/runs"): {"content": "x"},
    ("POST", "/sessions/{session_id}/branch"): {"message_id": str(uuid4())},
}


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    return {"sub": str(uuid4()), "aud": "authenticated", "role": "authenticated", "exp": now + 600, **changes}


FORGED: dict[str, Callable[[str, RunningStack], str | None]] = {
    "none": lambda token, stack: None,
    "garbage": lambda token, stack: "garbage",
    "truncated": lambda token, stack: token[:-4],
    "expired": lambda token, stack: mint_token(secret=stack.jwt_secret, expires_in=-60),
    "wrong audience": lambda token, stack: mint_token(secret=stack.jwt_secret, aud="other"),
    "service role": lambda token, stack: mint_token(secret=stack.jwt_secret, role="service_role"),
    "alg none": lambda token, stack: jwt.encode(claims(), "", algorithm="none"),
    "foreign secret": lambda token, stack: mint_token(secret="not-the-secret-of-this-project-at-all"),
    "foreign key": lambda token, stack: jwt.encode(
        claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "mine"}
    ),
    "publishable key": lambda token, stack: stack.publishable_key,
}


def at(path: str, session_id: str) -> str:
    return path.replace("{session_id}", session_id)


@pytest.mark.parametrize("forgery", FORGED)
@pytest.mark.parametrize(("verb", "path"), PROTECTED)
async def test_without_a_valid_token_nothing_is_answered(
    stack: RunningStack, api: httpx.AsyncClient, owner: Person, verb: str, path: str, forgery: str
) -> None:
    token = FORGED[forgery](owner.tokens["access_token"], stack)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = BODIES.get((verb, path), {}) if verb not in ("GET", "DELETE") else None
    response = await api.request(verb, at(path, str(uuid4())), headers=headers, json=body)
    assert response.status_code == 401, response.text
    if path.startswith("/v1/"):
        assert response.json()["error"]["code"] == "invalid_api_key"
    else:
        assert reason(response) in ("TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("verb", "path"), OF_A_SESSION)
async def test_a_strangers_session_answers_like_one_that_is_not_there(
    owner: Person, stranger: Person, verb: str, path: str
) -> None:
    session = await owner.create_session(name="private")
    body = BODIES.get((verb, path))
    theirs = await stranger.call(verb, at(path, session["id"]), body)
    missing = await stranger.call(verb, at(path, str(uuid4())), body)
    assert theirs.status_code == missing.status_code == 404
    assert reason(theirs) == reason(missing) == "SESSION_NOT_FOUND"
    assert (await owner.call("GET", f"/sessions/{session['id']}")).json() == session


async def test_a_strangers_run_answers_like_one_that_is_not_there(owner: Person, stranger: Person) -> None:
    session = await owner.create_session()
    run = (await owner.call("POST", f"/sessions/{session['id']}/runs", {"content": "x"})).json()
    for verb, path in [(verb, path) for verb, path in PROTECTED if "{run_id}" in path]:
        theirs = await stranger.call(verb, path.replace("{run_id}", run["id"]))
        missing = await stranger.call(verb, path.replace("{run_id}", str(uuid4())))
        assert (theirs.status_code, reason(theirs)) == (404, "RUN_NOT_FOUND")
        assert (missing.status_code, reason(missing)) == (404, "RUN_NOT_FOUND")


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
