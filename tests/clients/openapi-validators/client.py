"""Validators of OpenAPI documents, on the one that the gateway serves."""

import json
import subprocess
from pathlib import Path

from features import call, feature, run
from openapi_spec_validator import validate

DOCUMENT = call("GET", "/openapi.json")


@feature("openapi-spec-validator")
def _() -> None:
    assert DOCUMENT["openapi"].startswith("3.1."), DOCUMENT["openapi"]
    validate(DOCUMENT)


@feature("redocly lint")
def _() -> None:
    Path("openapi.json").write_text(json.dumps(DOCUMENT))
    done = subprocess.run(
        ["redocly", "lint", "openapi.json", "--format=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-500:]
    assert "no-unused-components" not in done.stdout, done.stdout[-1500:]


run()
