import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import identity
from servicekit.rpc.identity import Verifier
from servicekit.settings import TokenSettings
from servicekit.testing import JWT_SECRET, mint_token
from tests.support.waiting import until

USER = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"


class Project:
    """A Supabase project's key endpoint on a real socket: real keys, and a count of the requests."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {"k1": ec.generate_private_key(ec.SECP256R1())}
        self.requests = 0
        self.down = False
        self.body: bytes | None = None
        """In place of the keys."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        await asyncio.sleep(0.01)  # a request is under way for a moment, so that others join it
        jwks = [
            {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256"}
            for kid, key in self.keys.items()
        ]
        body = json.dumps({"keys": jwks}).encode() if self.body is None else self.body
        found = head.startswith(b"GET /auth/v1/.well-known/jwks.json ")
        if not self.down:
            status = b"200 OK" if found else b"404 Not Found"
            writer.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        writer.close()
        await writer.wait_closed()

    def token(self, kid: str = "k1", **claims: object) -> str:
        now = int(time.time())
        issuer = f"{self.url}/auth/v1"
        content = {"sub": USER, "aud": "authenticated", "role": "authenticated", "iss": issuer, "exp": now + 60}
        key = self.keys.get(kid) or ec.generate_private_key(ec.SECP256R1())
        return jwt.encode({**content, **claims}, key, algorithm="ES256", headers={"kid": kid})


@pytest.fixture
async def project() -> AsyncIterator[Project]:
    made = Project()
    async with await asyncio.start_server(made.answer, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


@pytest.fixture
async def verifier(project: Project) -> AsyncIterator[Verifier]:
    made = Verifier(TokenSettings(_env_file=None, supabase_url=project.url, supabase_jwt_secret=SecretStr(JWT_SECRET)))
    yield made
    await made.close()


async def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(AppError) as caught:
        await verifier.verify(token)
    return caught.value.reason


async def test_a_token_of_the_projects_key_is_accepted(verifier: Verifier, project: Project) -> None:
    assert (await verifier.verify(project.token())).user_id == USER


async def test_a_token_of_the_configured_secret_is_accepted(verifier: Verifier, project: Project) -> None:
    assert (await verifier.verify(mint_token(USER))).user_id == USER
    assert project.requests == 0


async def test_a_secret_is_needed_for_shared_secret_tokens(project: Project) -> None:
    verifier = Verifier(TokenSettings(_env_file=None, supabase_url=project.url))
    assert await refusal(verifier, mint_token(USER)) == "TOKEN_INVALID"
    await verifier.close()


def signed_with_the_public_key(project: Project) -> str:
    public = project.keys["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(content: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    head = part({"alg": "HS256", "kid": "k1"})
    body = part({"sub": USER, "aud": "authenticated", "role": "authenticated", "exp": int(time.time()) + 60})
    signature = hmac.new(public, head + b"." + body, hashlib.sha256).digest()
    return b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def tampered(project: Project) -> str:
    head, _, signature = project.token().split(".")
    body = base64.urlsafe_b64encode(json.dumps({"sub": str(uuid4()), "role": "authenticated"}).encode()).decode()
    return ".".join([head, body.rstrip("="), signature])


def unsigned(_: Project) -> str:
    return jwt.encode({"sub": USER, "aud": "authenticated", "role": "authenticated", "exp": 2**40}, "", "none")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: "garbage", "TOKEN_INVALID"),
        (lambda _: "a.b.c", "TOKEN_INVALID"),
        (lambda _: "é.é.é", "TOKEN_INVALID"),
        (lambda _: "x" * 20_000, "TOKEN_INVALID"),
        (unsigned, "TOKEN_INVALID"),
        (tampered, "TOKEN_INVALID"),
        (signed_with_the_public_key, "TOKEN_INVALID"),
        (lambda project: project.token("foreign"), "TOKEN_INVALID"),
        (lambda project: project.token(aud="other"), "TOKEN_INVALID"),
        (lambda project: project.token(iss="https://evil.example/auth/v1"), "TOKEN_INVALID"),
        (lambda project: project.token(exp=int(time.time()) - 60), "TOKEN_EXPIRED"),
        (lambda project: project.token(exp=None), "TOKEN_INVALID"),
        (lambda project: project.token(role="service_role"), "TOKEN_INVALID"),
        (lambda project: project.token(role="anon"), "TOKEN_INVALID"),
        (lambda project: project.token(sub="x"), "TOKEN_INVALID"),
        (lambda _: mint_token(USER, secret="another-secret-that-is-long-enough-too"), "TOKEN_INVALID"),
        (lambda _: mint_token(USER, expires_in=-60), "TOKEN_EXPIRED"),
    ],
)
async def test_what_is_no_valid_users_token_is_refused(
    verifier: Verifier, project: Project, make: Callable[[Project], str], reason: str
) -> None:
    assert await refusal(verifier, make(project)) == reason


def nested(levels: int) -> object:
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


UNSTORABLE: list[object] = [
    10**400, -(10**400), 2**64, "\0", "a\0b", "\ud800", "\udfff!", {"\0": 1}, {"\ud800": 1}, [["\0"]], nested(400),
]  # fmt: skip
STRANGE: list[object] = [*UNSTORABLE, float("inf"), float("nan"), True, None, "", "x", [], {}]


def signed_anyhow(project: Project, claim: str, value: object) -> list[str]:
    """Return tokens with this claim by the project's key and by the shared secret; PyJWT itself would sign few."""
    claims = jwt.decode(project.token(), options={"verify_signature": False})
    content = json.dumps({**claims, claim: value}).encode()
    signer = jwt.PyJWS()
    return [
        signer.encode(content, project.keys["k1"], algorithm="ES256", headers={"kid": "k1"}),
        signer.encode(content, JWT_SECRET, algorithm="HS256"),
    ]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "sub", "aud", "role", "iss", "jti"])
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: ascii(value)[:20])
async def test_a_signed_claim_of_any_value_is_judged_and_never_crashes(
    verifier: Verifier, project: Project, claim: str, value: object
) -> None:
    for token in signed_anyhow(project, claim, value):
        try:
            caller = await verifier.verify(token)
        except AppError as refusal:
            reason = refusal.reason
        else:
            reason = "" if caller.user_id == USER and "\\u0000" not in caller.claims_json else "accepted"
        assert reason in ("", "TOKEN_INVALID", "TOKEN_EXPIRED")


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: ascii(value)[:20])
async def test_a_signed_claim_that_the_database_cannot_read_is_refused_and_no_other(
    verifier: Verifier, project: Project, value: object
) -> None:
    token, _ = signed_anyhow(project, "user_metadata", {"note": value})
    if any(value is unstorable for unstorable in UNSTORABLE):
        assert await refusal(verifier, token) == "TOKEN_INVALID"
    else:
        assert (await verifier.verify(token)).user_id == USER


async def test_a_claim_may_hold_what_looks_like_a_nul(verifier: Verifier, project: Project) -> None:
    note = "\\u0000 and \\\\u0000"
    caller = await verifier.verify(project.token(user_metadata={"note": note}))
    assert json.loads(caller.claims_json)["user_metadata"] == {"note": note}


@pytest.mark.parametrize("name", ["kid", "alg", "typ", "crit", "b64", "cty"])
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: ascii(value)[:20])
async def test_a_header_of_a_token_may_hold_anything(
    verifier: Verifier, project: Project, name: str, value: object
) -> None:
    head, body, signature = project.token().split(".")
    fields = {**jwt.get_unverified_header(f"{head}.{body}.{signature}"), name: value}
    forged = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    assert await refusal(verifier, f"{forged}.{body}.{signature}") == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", ["\0", "a\0", "\ud800", "a\nb", ""])
async def test_a_name_that_no_key_can_have_asks_for_no_keys(verifier: Verifier, project: Project, kid: str) -> None:
    assert await refusal(verifier, project.token(kid)) == "TOKEN_INVALID"
    assert project.requests == 0


async def test_many_requests_at_once_fetch_the_keys_once(verifier: Verifier, project: Project) -> None:
    await asyncio.gather(*(verifier.verify(project.token(n=n)) for n in range(50)))
    assert project.requests == 1


async def test_a_rotated_key_is_fetched_when_it_first_appears(verifier: Verifier, project: Project) -> None:
    await verifier.verify(project.token())
    project.keys["k2"] = ec.generate_private_key(ec.SECP256R1())
    assert (await verifier.verify(project.token("k2"))).user_id == USER
    assert project.requests == 2


async def test_forged_key_names_share_their_fetches_and_keep_no_new_key_out(
    verifier: Verifier, project: Project
) -> None:
    await verifier.verify(project.token())
    forged = [asyncio.create_task(refusal(verifier, project.token(f"forged-{n}"))) for n in range(200)]
    project.keys["k2"] = ec.generate_private_key(ec.SECP256R1())
    begun_at = time.monotonic()
    assert (await verifier.verify(project.token("k2"))).user_id == USER
    assert set(await asyncio.gather(*forged)) == {"TOKEN_INVALID"}
    # One a second, whatever is asked; the second is for who came while the first was under way.
    assert project.requests <= 3 + (time.monotonic() - begun_at) / identity.KEYS_REFETCH_SECONDS


async def test_who_goes_away_takes_nobodys_fetch_along(verifier: Verifier, project: Project) -> None:
    first = asyncio.create_task(verifier.verify(project.token()))
    await until(lambda: project.requests == 1, "the fetch")
    second = asyncio.create_task(verifier.verify(project.token(n=2)))
    first.cancel()
    assert (await second).user_id == USER
    assert project.requests == 1


async def test_known_keys_outlive_a_project_that_is_down(
    verifier: Verifier, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    await verifier.verify(project.token())
    project.down = True
    monkeypatch.setattr(identity, "KEYS_TTL_SECONDS", 0.0)
    monkeypatch.setattr(identity, "KEYS_RETRY_SECONDS", 1000.0)
    monkeypatch.setattr(identity, "KEYS_LONGEST_RETRY_SECONDS", 1000.0)
    assert (await verifier.verify(project.token(n=1))).user_id == USER
    assert project.requests == 2


async def test_keys_are_there_soon_after_a_project_that_was_down_at_first(verifier: Verifier, project: Project) -> None:
    async def is_ready() -> bool:
        with contextlib.suppress(AppError):
            await verifier.ready()
            return True
        return False

    project.down = True
    assert await refusal(verifier, project.token()) == "KEYS_UNAVAILABLE"
    assert await refusal(verifier, project.token(n=1)) == "KEYS_UNAVAILABLE"
    assert not await is_ready()
    assert project.requests == 1, "who is refused causes no further fetch"
    project.down = False
    await until(is_ready, "the keys, without any call")
    assert (await verifier.verify(project.token(n=2))).user_id == USER


async def test_a_new_key_that_cannot_be_fetched_is_an_outage_and_no_bad_token(
    verifier: Verifier, project: Project
) -> None:
    await verifier.verify(project.token())
    project.keys["k2"] = ec.generate_private_key(ec.SECP256R1())
    project.down = True
    assert await refusal(verifier, project.token("k2")) == "KEYS_UNAVAILABLE"
    assert (await verifier.verify(project.token(n=1))).user_id == USER
    project.down = False

    async def is_let_in() -> bool:
        with contextlib.suppress(AppError):
            return (await verifier.verify(project.token("k2"))).user_id == USER
        return False

    await until(is_let_in, "the new key")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'"x"', b'{"keys": 7}', b'{"keys": [{"kty": "x"}]}', b"<html>", b"[" * 100_000),
        *(b'{"keys": [7]}', b'{"keys": [{"kty": "EC", "alg": "none"}]}', b'{"keys": [{"kty": "EC", "alg": [1]}]}'),
        b'{"keys": [{"kty": "oct", "k": "AA", "kid": "k1", "alg": "none"}]}',
    ],
    ids=lambda body: body[:60],
)
async def test_an_answer_that_is_no_key_set_is_a_failure(verifier: Verifier, project: Project, body: bytes) -> None:
    project.body = body
    assert await refusal(verifier, project.token()) == "KEYS_UNAVAILABLE"


async def test_a_set_without_keys_is_one_where_a_secret_signs_and_replaces_no_keys(project: Project) -> None:
    project.body = b'{"keys": []}'
    settings = TokenSettings(_env_file=None, supabase_url=project.url)
    with_secret = Verifier(settings.model_copy(update={"supabase_jwt_secret": SecretStr(JWT_SECRET)}))
    without = Verifier(settings)
    await with_secret.ready()
    assert await refusal(with_secret, project.token()) == "TOKEN_INVALID"
    with pytest.raises(AppError, match="JWT_SECRET_NEEDED"):
        await without.ready()
    project.body = None
    assert (await with_secret.verify(project.token())).user_id == USER
    project.body = b'{"keys": []}'
    assert await refusal(with_secret, project.token("k2")) == "KEYS_UNAVAILABLE"
    assert (await with_secret.verify(project.token(n=1))).user_id == USER
    await with_secret.close()
    await without.close()


async def test_a_project_is_known_by_the_address_that_browsers_have(project: Project) -> None:
    public = "https://api.example.com"
    verifier = Verifier(TokenSettings(_env_file=None, supabase_url=project.url, supabase_public_url=public))
    assert (await verifier.verify(project.token(iss=f"{public}/auth/v1"))).user_id == USER
    assert (await verifier.verify(project.token())).user_id == USER
    assert await refusal(verifier, project.token(iss="https://evil.example/auth/v1")) == "TOKEN_INVALID"
    await verifier.close()


async def test_the_issuer_may_be_anybody_where_the_setting_says_so_and_the_key_may_not(project: Project) -> None:
    settings = TokenSettings(_env_file=None, supabase_url=project.url, supabase_jwt_issuer="*")
    verifier = Verifier(settings.model_copy(update={"supabase_jwt_secret": SecretStr(JWT_SECRET)}))
    for claims in ({"iss": "http://127.0.0.1:8101/auth/v1"}, {"iss": "x"}):
        assert (await verifier.verify(project.token(**claims))).user_id == USER
    assert (await verifier.verify(mint_token(USER))).user_id == USER
    assert await refusal(verifier, project.token("foreign")) == "TOKEN_INVALID"
    await verifier.close()


async def test_no_keys_at_all_is_an_outage_not_a_bad_token(verifier: Verifier, project: Project) -> None:
    project.down = True
    assert await refusal(verifier, project.token()) == "KEYS_UNAVAILABLE"


async def test_a_remembered_token_still_expires(verifier: Verifier) -> None:
    token = mint_token(USER, expires_in=2 - identity.LEEWAY_SECONDS)
    await verifier.verify(token)
    await asyncio.sleep(2.1)  # tokens carry whole seconds, and the token's life is what is tested
    assert await refusal(verifier, token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("header", ["Basic x", "Bearer", "Bearer ", "token"])
def test_a_header_that_is_no_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(AppError, match="TOKEN_INVALID"):
        identity.bearer_token(header)


def test_a_caller_shows_neither_token_nor_claims_when_printed() -> None:
    caller = identity.Caller(token="secret-token", claims={"sub": USER, "email": "a@b"})
    assert "secret-token" not in repr(caller)
    assert "a@b" not in repr(caller)


async def test_a_key_set_is_read_to_a_bound(verifier: Verifier, project: Project) -> None:
    token = project.token()
    await verifier.verify(token)
    key = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(project.keys["k1"].public_key())), "alg": "ES256"}
    project.keys["k2"] = project.keys["k1"]
    project.body = json.dumps({"keys": [{**key, "kid": "k2"}], "x": "x" * identity.MAX_KEYS_BYTES}).encode()
    assert await refusal(verifier, project.token("k2")) == "KEYS_UNAVAILABLE"
    assert (await verifier.verify(token)).user_id == USER
