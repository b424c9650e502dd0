"""Prints `docs/errors.md`, the reasons of all parts (`python -m local.setup.error_page > docs/errors.md`)."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from servicekit import reasons
from servicekit.reasons import GENERAL, Reason

ROOT = Path(__file__).resolve().parent.parent.parent

_HEAD = """\
# Errors

<!-- Printed by `python -m local.setup.error_page`; change the `reasons.py` of the part instead. -->

Every error has one reason. gRPC clients find it in `google.rpc.ErrorInfo`, REST clients in the body:

```json
{"error": {"code": 404, "status": "NOT_FOUND", "message": "Session … was not found.",
           "details": [{"reason": "SESSION_NOT_FOUND", "domain": "concerto",
                        "metadata": {"session_id": "…"}}]}}
```

Values in braces are also in the error's metadata, so no program needs to read a sentence.
HTTP is the status that the gateway sends; under `/v1` some are OpenAI's
([openai-compatible.md](openai-compatible.md)).
"""
_TABLE_HEAD = ("| Reason | Code | HTTP | Message | What to do |", "|---|---|---|---|---|")


def modules() -> Iterator[str]:
    """Yield the module of each part's reasons: the services' by name, then the gateway's."""
    for path in sorted((ROOT / "services").glob("*/reasons.py")):
        yield f"services.{path.parent.name}.reasons"
    yield "gateway.reasons"


def tables() -> dict[str, Mapping[str, Reason]]:
    """Return the tables of reasons by the folder that they belong to, the general one first."""
    found: dict[str, Mapping[str, Reason]] = {"servicekit": GENERAL}
    for name in modules():
        found[name.removesuffix(".reasons").replace(".", "/")] = importlib.import_module(name).REASONS
    return found


def register_all() -> None:
    """Let this process raise every part's reasons, for tests that stand for several parts."""
    for table in tables().values():
        reasons.register(table)


def document() -> str:
    """Return the page: one table a part, one row a reason; a reason that several parts raise stands with the first."""
    blocks, seen = [_HEAD], set[str]()
    for owner, table in tables().items():
        rows = [_row(name, reason) for name, reason in table.items() if name not in seen]
        seen |= table.keys()
        title = "Every part" if owner == "servicekit" else owner.rpartition("/")[2].capitalize()
        blocks.append("\n".join([f"## {title}", "", *_TABLE_HEAD, *rows, ""]))
    return "\n".join(blocks)


def _row(name: str, reason: Reason) -> str:
    cells = (f"`{name}`", reason.code.name, str(reason.http_status), _escape(reason.message), _escape(reason.remedy))
    return f"| {' | '.join(cells)} |"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(document())
