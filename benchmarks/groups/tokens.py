"""Verification of access tokens by servicekit.rpc.identity.Verifier: remembered, and new (ES256)."""

import statistics
import time
from typing import Any

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.rows import MeasurementError, Row
from benchmarks.suites import Suite
from servicekit.rpc.identity import Verifier
from servicekit.settings import TokenSettings
from servicekit.testing import mint_token

PROJECT = "http://127.0.0.1:9"
KEY_ID = "key-of-the-benchmark"
CACHED_MICROSECONDS, UNCACHED_MICROSECONDS = 10.0, 300.0


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the rows of a remembered token and of one that was never seen; both modes verify alike."""
    rounds, tokens, repeats = (3, 200, 2_000) if quick else (5, 1_000, 20_000)
    cached: list[float] = []
    uncached: list[float] = []
    for _ in range(rounds):
        key = ec.generate_private_key(ec.SECP256R1())
        known = await _verifier(key)
        token = _mint(key)
        await known.verify(token)
        cached.append(statistics.median([await _seconds(known, token) for _ in range(repeats)]) * 1e6)
        fresh = await _verifier(key)
        await fresh.verify(_mint(key))  # fetches the key set
        new = [_mint(key, index=index) for index in range(tokens)]
        uncached.append(statistics.median([await _seconds(fresh, token) for token in new]) * 1e6)
        await known.close()
        await fresh.close()
    remembered, new_token = "JWT verification, remembered token, p50", "JWT verification, new ES256 token, p50"
    return [
        Row.absolute(remembered, suite.mode, cached, unit="µs", at_most=CACHED_MICROSECONDS),
        Row.absolute(new_token, suite.mode, uncached, unit="µs", at_most=UNCACHED_MICROSECONDS),
    ]


async def _seconds(verifier: Verifier, token: str) -> float:
    began = time.perf_counter()
    caller = await verifier.verify(token)
    seconds = time.perf_counter() - began
    if caller.token != token:
        raise MeasurementError("The verifier returned somebody else.")
    return seconds


async def _verifier(key: ec.EllipticCurvePrivateKey) -> Verifier:
    jwk: dict[str, Any] = orjson.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    keys = {"keys": [{**jwk, "kid": KEY_ID, "alg": "ES256", "use": "sig"}]}
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=keys)))
    settings = TokenSettings(_env_file=None, supabase_url=PROJECT, supabase_jwt_secret=None)
    return Verifier(settings, client)


def _mint(key: ec.EllipticCurvePrivateKey, **claims: Any) -> str:
    payload = jwt.decode(mint_token(iss=f"{PROJECT}/auth/v1", **claims), options={"verify_signature": False})
    # What a project's tokens carry besides.
    payload |= {"email": "person@example.com", "phone": "", "aal": "aal1", "is_anonymous": False}
    payload |= {
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email_verified": True},
    }
    return jwt.encode(payload, key, algorithm="ES256", headers={"kid": KEY_ID})
