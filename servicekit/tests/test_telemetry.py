import json
import os
import re
import subprocess
import sys

import pytest

from servicekit.telemetry import logs

PROGRAM = """
import logging
import structlog
from servicekit.rpc import identity, request
from servicekit.telemetry import process
from servicekit.settings import ProcessSettings

process.configure(ProcessSettings.load(), service="tests")
log = structlog.stdlib.get_logger("a.module")
request.begin("walk-1", None)
log.debug("too.small")
log.info("request.finished", status=200, route="/a b", password="swordfish", odd="a=b", lines="a\\nb", name="Zoë")
identity.set_current_caller(identity.Caller(token="secret-token", claims={"sub": "somebody"}))
log.warning("with.user")
identity.set_current_caller(None)
try:
    raise ValueError("why")
except ValueError:
    log.exception("failed")
log.info("%s places", 2, big=2**80)
logging.getLogger("library").warning("hello %s", "world")
"""


def entries_of(form: str) -> list[str]:
    variables = {"CONCERTO_ENV_FILE": "/dev/null", "CONCERTO_LOG_FORMAT": form, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stderr.splitlines()


def test_entries_are_json_objects_with_the_request_and_the_user_and_no_secret() -> None:
    lines = [json.loads(line) for line in entries_of("json")]
    assert [line["event"] for line in lines] == ["request.finished", "with.user", "failed", "2 places", "hello world"]
    assert {(line["service"], line["request_id"]) for line in lines} == {("tests", "walk-1")}
    assert [line.get("user_id") for line in lines] == [None, "somebody", None, None, None]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "info", "warning"]
    assert [line["logger"] for line in lines] == ["a.module"] * 4 + ["library"]
    first, last = lines[0], lines[3]
    assert (first["password"], first["lines"], first["name"]) == ("[removed]", "a\nb", "Zoë")
    assert "ValueError: why" in lines[2]["exception"]
    assert last["big"] == 2**80
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"]) for line in lines)


def test_entries_for_people_are_one_line_each_whatever_they_hold() -> None:
    lines = [line for line in entries_of("console") if not line.startswith((" ", "Traceback", "ValueError"))]
    assert len(lines) == 5
    head, values = lines[0].split("[a.module] ")
    assert re.fullmatch(r"\S+Z \[info     \] request.finished {15}", head)
    assert values == (
        "lines='a\\nb' name=Zoë odd='a=b' password=[removed] request_id=walk-1 route='/a b' service=tests status=200"
    )


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_exceptions_lines_are_written(form: str) -> None:
    assert "ValueError: why" in "\n".join(entries_of(form))


class _CodedError(Exception):
    def __init__(self, **codes: object) -> None:
        super().__init__("what a user wrote")
        self.__dict__.update(codes)


@pytest.mark.parametrize(
    ("codes", "shown"),
    [
        ({"code": "what a user wrote"}, ""),
        ({"code": "word"}, ""),
        ({"code": "SHOUT"}, ""),
        ({"code": "sk-a-key-of-a-provider"}, ""),
        ({"code": "word", "status_code": 400}, " status_code=400"),
        ({"sqlstate": "23505"}, " sqlstate=23505"),
        ({"code": "42P01"}, " code=42P01"),
        ({"code": "PGRST202"}, " code=PGRST202"),
    ],
)
def test_a_cause_is_described_without_words_of_others(codes: dict[str, object], shown: str) -> None:
    assert logs.describe(_CodedError(**codes)) == f"_CodedError{shown}"
