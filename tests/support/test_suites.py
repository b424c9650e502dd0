from pathlib import Path
from typing import Any, cast

import jwt
import pytest

from local.embedded.credentials import Credentials, credentials_file
from local.files import write_private
from tests.support.suites import RunningStack

URL = "http://127.0.0.1:9"
SECRET = "a secret of the tests that is long enough"


def stack_of(home: Path, env: dict[str, str], **variables: str) -> RunningStack:
    env = {"SUPABASE_URL": URL, **env}
    return RunningStack(home, 0, "one-process", 1, env, supervisor=cast("Any", None), variables=variables)


def test_minted_tokens_are_signed_with_what_the_suite_signs_with(tmp_path: Path) -> None:
    own = Credentials.generate()
    write_private(credentials_file(tmp_path), own.model_dump_json())
    key = jwt.PyJWK.from_json(own.signing_key)
    both = {"SUPABASE_JWT_SECRET": SECRET}
    for stack, algorithm in (
        (stack_of(tmp_path, both), "ES256"),
        (stack_of(tmp_path, both, CONCERTO_EMBEDDED_SIGNING="HS256"), "HS256"),
        (stack_of(tmp_path, both, SUPABASE_URL="https://elsewhere.example"), "HS256"),
        (stack_of(Path("/nonexistent"), {"SUPABASE_SIGNING_KEY": own.signing_key}), "ES256"),
    ):
        token = stack.mint_token("somebody", more=1)
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        verifying = key.key.public_key() if algorithm == "ES256" else SECRET
        claims = jwt.decode(token, verifying, algorithms=[algorithm], audience="authenticated", issuer=f"{URL}/auth/v1")
        assert (claims["sub"], claims["more"]) == ("somebody", 1)


def test_where_nobody_but_the_project_can_sign_a_test_is_skipped_and_says_so() -> None:
    with pytest.raises(pytest.skip.Exception, match="SUPABASE_SIGNING_KEY"):
        stack_of(Path("/nonexistent"), {}).mint_token()
