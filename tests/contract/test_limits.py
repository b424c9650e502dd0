"""The limit of a message: the contract's two fields and the table's check agree, everything else reads them."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from concerto.sessions.v1 import sessions_pb2, turns_pb2
from google.protobuf.descriptor import Descriptor

from gateway.rest import comments
from local.setup import bootstrap
from servicekit.messages.validation import limits_of
from services.orchestrator import limits
from tests.support.contract import MAX_CONTENT_BYTES, ROOT

KIBIBYTE = 1024
MESSAGES = (sessions_pb2.NewMessage.DESCRIPTOR, turns_pb2.Turn.DESCRIPTOR)
"""The messages of the contract whose field `content` is stored as a message's."""
TABLE = ROOT / "supabase" / "schemas" / "sessions" / "messages.sql"
FUNCTION = re.compile(r"create function private\.max_content_bytes\(\)[^;]+?as \$\$\s+select (\d+)\s+\$\$;")
PRODUCT = re.compile(r"\b\d+(?:_\d+)*(?: ?\* ?\d+(?:_\d+)*)*\b")
READERS = (
    *("services/orchestrator", "services/sessions", "supabase/schemas/sessions", "supabase/schemas/runs"),
    "web/features/conversation",
)
OTHER_LIMITS = {"services/orchestrator/runs/event_writer.py"}
"""Where mebibytes bound something else."""


def written(limit: int) -> str:
    """The limit as people read it."""
    kibibytes = limit // KIBIBYTE
    return f"{kibibytes} KiB" if kibibytes % KIBIBYTE else f"{kibibytes // KIBIBYTE} MiB"


def sources() -> Iterator[Path]:
    """What reads the limit, without its tests."""
    for folder in READERS:
        for path in sorted((ROOT / folder).rglob("*")):
            is_test = "tests" in path.parts or ".test." in path.name
            if path.suffix in {".py", ".sql", ".ts", ".tsx"} and not is_test:
                yield path


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_both_fields_of_the_contract_hold_as_much_and_their_comments_say_so(message: Descriptor) -> None:
    field = message.fields_by_name["content"]
    assert MAX_CONTENT_BYTES > 0
    assert limits_of(field).max_bytes == MAX_CONTENT_BYTES, f"{field.full_name} differs from NewMessage"
    assert f"at most {written(MAX_CONTENT_BYTES)}" in comments.load()[field.full_name]


def test_the_tables_check_holds_as_much_as_the_contract() -> None:
    text = TABLE.read_text()
    [number] = FUNCTION.findall(text)
    assert int(number) == MAX_CONTENT_BYTES, f"{TABLE.relative_to(ROOT)} differs from sessions.proto"
    assert "check (octet_length(content) <= private.max_content_bytes())" in text


def test_the_orchestrator_cuts_and_refuses_at_the_limit_of_the_contract() -> None:
    assert (limits.MAX_CONTENT_BYTES, limits.MAX_QUESTION_BYTES) == (MAX_CONTENT_BYTES, MAX_CONTENT_BYTES)


def test_the_web_apps_limits_are_made_from_this_contract() -> None:
    module = bootstrap.WEB_LIMITS.read_text()
    made = json.loads(module[module.index("{") : module.rindex("}") + 1])
    for message in MESSAGES:
        assert made[message.name]["content"] == MAX_CONTENT_BYTES, "run `make setup`"


def test_the_limit_is_written_nowhere_else() -> None:
    paths = [path for path in sources() if str(path.relative_to(ROOT)) not in OTHER_LIMITS]
    assert len(paths) > 50
    found = []
    for path in paths:
        text = FUNCTION.sub("", path.read_text())
        numbers = {math.prod(map(int, product.split("*"))) for product in PRODUCT.findall(text)}
        if numbers & {MAX_CONTENT_BYTES, MAX_CONTENT_BYTES // 4} or f"at most {written(MAX_CONTENT_BYTES)}" in text:
            found.append(str(path.relative_to(ROOT)))
    assert found == []
