import ast
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from gateway import failures
from local.setup import error_page
from servicekit import reasons
from servicekit.errors import AppError, from_message, from_rpc_error
from servicekit.reasons import Reason
from tests.support.contract import ROOT

TABLES = error_page.tables()
EVERY = [(owner, name) for owner, table in TABLES.items() for name in table]
PARTS = sorted(TABLES.keys() - {"servicekit"})
SQL = "\n".join(path.read_text() for path in sorted((ROOT / "supabase" / "schemas").rglob("*.sql")))

error_page.register_all()


class Refused(grpc.RpcError, grpc.Call):
    """What a client sees of a status, without a network between."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> Any:
        return self._status.trailing_metadata


def sample(name: str) -> AppError:
    metadata = {field: f"<{field}>" for field in reasons.REASONS[name].fields}
    return AppError(name, metadata=metadata, cause="private", retry_after_seconds=7.2)


def sources(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).rglob("*.py"):
        if "tests" not in path.relative_to(ROOT).parts and path.name != "reasons.py":
            yield path.read_text()


def test_the_page_of_errors_is_the_tables() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == error_page.document(), (
        "Run: .venv/bin/python -m local.setup.error_page > docs/errors.md"
    )


def test_every_service_has_a_table() -> None:
    services = {f"services/{path.parent.name}" for path in (ROOT / "services").glob("*/__main__.py")}
    assert services == {owner for owner in TABLES if owner.startswith("services/")}


@pytest.mark.parametrize(("owner", "name"), EVERY)
def test_every_reason_is_raised_by_its_part_or_by_the_database(owner: str, name: str) -> None:
    folders = ("servicekit", "services", "gateway") if owner == "servicekit" else (owner,)
    texts = [SQL, *(text for folder in folders for text in sources(folder))]
    assert any(re.search(rf"""["']{name}["']""", text) for text in texts)


@pytest.mark.parametrize("owner", TABLES)
def test_a_part_raises_only_what_it_has_in_its_table_or_what_is_general(owner: str) -> None:
    raised: set[str] = set()
    for text in sources(owner):
        raised |= set(re.findall(r"""AppError\(\s*["']([A-Z_]+)["']""", text))
    assert raised
    assert raised - reasons.GENERAL.keys() - TABLES[owner].keys() == set()


def test_what_the_database_raises_is_in_a_table() -> None:
    raised = set(re.findall(r"""message\s*=\s*'([A-Z_]+)'""", SQL))
    assert raised
    assert raised - {name for _, name in EVERY} == set()


@pytest.mark.parametrize("owner", PARTS)
def test_a_part_registers_its_reasons_when_it_is_built(owner: str) -> None:
    path = ROOT / owner / ("app.py" if owner == "gateway" else "__main__.py")
    build = next(node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "build")
    assert "reasons.register()" in {ast.unparse(node) for node in ast.walk(build) if isinstance(node, ast.Call)}


@pytest.mark.parametrize(("owner", "name"), EVERY)
def test_every_reason_is_named_and_worded_as_agreed(owner: str, name: str) -> None:
    reason = TABLES[owner][name]
    assert re.fullmatch(r"[A-Z][A-Z_]{0,62}", name)
    assert reason.message.endswith(".")
    assert reason.remedy.endswith(".")


@pytest.mark.parametrize("name", reasons.REASONS)
def test_every_reason_has_the_agreed_json_and_hides_its_cause(name: str) -> None:
    response = failures.response(sample(name))
    body = failures.body(sample(name))["error"]
    assert response.status_code == body["code"] == reasons.REASONS[name].http_status
    assert body["details"][0]["reason"] == name
    assert body["details"][0]["domain"] == "concerto"
    assert "private" not in str(body)
    assert response.headers["retry-after"] == "8"


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no table but the general one, as every part is to the others' reasons."""
    monkeypatch.setattr("servicekit.errors.REASONS", dict(reasons.GENERAL))


@pytest.mark.parametrize("name", reasons.REASONS)
def test_every_reason_survives_the_way_through_grpc_to_a_process_that_does_not_know_it(
    name: str, unknown: None
) -> None:
    reason: Reason = reasons.REASONS[name]
    metadata = dict.fromkeys(reason.fields, "x")
    sent = AppError.received(
        name,
        code=reason.code,
        message=reason.message.format_map(metadata),
        metadata=metadata,
        http_status=reason.http_status,
        retry_after_seconds=7.2,
    )
    got = from_rpc_error(Refused(sent.to_status()), service="sessions")
    assert got.to_json() == sent.to_json()
    assert (got.reason, got.code, got.retry_after_seconds) == (name, reason.code, 8)
    assert from_message(sent.to_message()).to_json() == sent.to_json()


def test_a_reason_that_two_parts_raise_means_the_same_in_both() -> None:
    owners: dict[str, list[Reason]] = {}
    for owner, name in EVERY:
        owners.setdefault(name, []).append(TABLES[owner][name])
    assert [name for name, meanings in owners.items() if len(set(meanings)) > 1] == []


def test_the_page_says_which_status_the_gateway_sends() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| [A-Z_]+ \| (\d{3}) \|", page, re.MULTILINE)
    assert {name: int(status) for name, status in rows} == {
        name: TABLES[owner][name].http_status for owner, name in EVERY
    }
    assert len(rows) == len({name for _, name in EVERY})
