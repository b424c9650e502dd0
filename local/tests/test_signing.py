import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from supabase import AsyncClient

from local.tests.conftest import PASSWORD
from tests.support.suites import RunningStack, start_stack, stop_stack


async def token_of(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session is not None
    return session.access_token


def key_set(stack: RunningStack) -> jwt.PyJWKSet:
    answer = httpx.get(f"{stack.supabase_url}/auth/v1/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=600"
    assert all("d" not in key for key in answer.json()["keys"])
    return jwt.PyJWKSet.from_dict(answer.json())


async def status_of(stack: RunningStack, path: str, token: str) -> int:
    head = {"apikey": stack.publishable_key, "authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers=head) as client:
        return (await client.get(path)).status_code


PATHS = ("/auth/v1/user", "/rest/v1/sessions", "/storage/v1/bucket")


async def test_tokens_are_signed_with_the_key_that_the_set_names(embedded: RunningStack, member: AsyncClient) -> None:
    (key,) = key_set(embedded).keys
    assert (key.algorithm_name, key.public_key_use) == ("ES256", "sig")
    first = await token_of(member)
    await member.auth.refresh_session()
    for token in (first, await token_of(member)):
        assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": key.key_id}
        issuer = f"{embedded.supabase_url}/auth/v1"
        claims = jwt.decode(token, key, algorithms=["ES256"], audience="authenticated", issuer=issuer)
        session = await member.auth.get_session()
        assert session is not None
        assert (claims["sub"], claims["role"]) == (session.user.id, "authenticated")
        assert claims["session_id"]
        for path in PATHS:
            assert await status_of(embedded, path, token) == 200, path


async def test_a_token_of_before_the_key_is_valid_until_it_expires(embedded: RunningStack, member: AsyncClient) -> None:
    claims = jwt.decode(await token_of(member), options={"verify_signature": False})
    del claims["iss"]
    before = jwt.encode(claims, embedded.jwt_secret, algorithm="HS256")
    expired = jwt.encode({**claims, "exp": int(time.time()) - 60}, embedded.jwt_secret, algorithm="HS256")
    for path in PATHS:
        assert await status_of(embedded, path, before) == 200, path
        assert await status_of(embedded, path, expired) in (400, 401, 403), path


def hmac_of(content: str, secret: str) -> str:
    """Sign by hand what PyJWT refuses to."""
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), content.encode(), "sha256")).decode().rstrip("=")


def forgeries(token: str, stack: RunningStack) -> dict[str, str]:
    """Tokens that look like ours, by how they were made."""
    header, content, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    foreign = ec.generate_private_key(ec.SECP256R1())

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    admin = part({**claims, "role": "service_role"})
    hs256 = part({"alg": "HS256", "typ": "JWT"})
    (public,) = httpx.get(f"{stack.supabase_url}/auth/v1/.well-known/jwks.json").json()["keys"]
    return {
        "other content": f"{header}.{admin}.{signature}",
        "another key": jwt.encode(claims, foreign, algorithm="ES256", headers={"kid": kid}),
        "another key's name": jwt.encode(claims, foreign, algorithm="ES256", headers={"kid": "other"}),
        "no signature": f"{header}.{content}.",
        "no algorithm": f"{part({'alg': 'none', 'kid': kid})}.{content}.",
        "a secret of somebody's": jwt.encode(claims, "s" * 64, algorithm="HS256", headers={"kid": kid}),
        "the public key as a secret": f"{hs256}.{content}.{hmac_of(f'{hs256}.{content}', json.dumps(public))}",
        "the public point as a secret": f"{hs256}.{content}.{hmac_of(f'{hs256}.{content}', public['x'])}",
        "signed for the other algorithm": f"{hs256}.{content}.{signature}",
        "an embedded key": f"{part({'alg': 'ES256', 'jwk': {'kty': 'EC'}, 'kid': kid})}.{content}.{signature}",
    }


async def test_forged_tokens_are_refused(embedded: RunningStack, member: AsyncClient) -> None:
    token = await token_of(member)
    for name, forged in forgeries(token, embedded).items():
        for path in PATHS:
            assert await status_of(embedded, path, forged) in (400, 401, 403), (name, path)
    for path in PATHS:
        assert await status_of(embedded, path, token) == 200


async def test_an_expired_token_is_called_so(embedded: RunningStack, member: AsyncClient) -> None:
    key = jwt.PyJWK.from_dict(json.loads(json.loads((embedded.home / "secrets.json").read_text())["signing_key"]))
    claims = jwt.decode(await token_of(member), options={"verify_signature": False})
    expired = jwt.encode(
        {**claims, "exp": int(time.time()) - 60}, key.key, algorithm="ES256", headers={"kid": key.key_id}
    )
    head = {"apikey": embedded.publishable_key, "authorization": f"Bearer {expired}"}
    async with httpx.AsyncClient(base_url=embedded.supabase_url, headers=head) as client:
        refused = await client.get("/auth/v1/user")
        assert (refused.status_code, refused.json()["error_code"]) == (403, "bad_jwt")
        assert "expired" in refused.json()["msg"]
        assert (await client.get("/rest/v1/sessions")).json()["message"] == "JWT expired"


def test_the_setting_keeps_the_old_way_and_sign_ins_outlive_the_change_to_keys(tmp_path: Path) -> None:
    email = "from-before@example.com"
    stack = start_stack(tmp_path, CONCERTO_EMBEDDED_SIGNING="HS256")
    try:
        assert httpx.get(f"{stack.supabase_url}/auth/v1/.well-known/jwks.json").json() == {"keys": []}
        signed_up = httpx.post(
            f"{stack.gateway_url}/auth/signup", json={"email": email, "password": PASSWORD}, timeout=60
        )
        before = signed_up.json()["session"]
        assert jwt.get_unverified_header(before["access_token"])["alg"] == "HS256"
    finally:
        stop_stack(stack)
    # What an earlier version has written knows no such keys.
    file = stack.home / "secrets.json"
    secrets = json.loads(file.read_text())
    file.write_text(json.dumps({name: secrets[name] for name in secrets.keys() - {"signing_key", "forwarding_key"}}))
    stack = start_stack(tmp_path, port=stack.base_port)
    try:
        assert me(stack, before["access_token"]) == email
        refreshed = httpx.post(
            f"{stack.gateway_url}/auth/refresh", json={"refresh_token": before["refresh_token"]}, timeout=60
        ).json()["session"]
        assert jwt.get_unverified_header(refreshed["access_token"])["alg"] == "ES256"
        assert me(stack, refreshed["access_token"]) == email
        assert me(stack, before["access_token"]) == email
    finally:
        stop_stack(stack)


def me(stack: RunningStack, token: str) -> str:
    answer = httpx.get(f"{stack.gateway_url}/auth/me", headers={"authorization": f"Bearer {token}"}, timeout=60)
    assert answer.is_success, answer.text
    return str(answer.json()["email"])
