import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract import ROOT

FOLDERS = ("benchmarks", "deploy", "gateway", "local", "servicekit", "services")
FILES = sorted(
    [ROOT / "conftest.py", *(ROOT / "tests").rglob("*.py")]
    + [path for folder in FOLDERS for path in (ROOT / folder).rglob("tests/**/*.py")]
)
PAUSE = re.compile(r"\bsleep\(|\bwait_for_timeout\(|\bsetTimeout\(")
BROWSER_FILES = sorted(path for room in ("features", "lib") for path in (ROOT / "web" / room).rglob("*.test.ts*"))
ONE_TURN = "asyncio.sleep(0)"
"""Gives the loop one turn: no time passes, so no machine is too slow for it."""
REASON = re.compile(r"(?:#|//) *(?!noqa|fmt:|type:|pragma|eslint)\w+")
PUBLIC_DESPITE_ITS_NAME = frozenset({"_replace", "_fields", "_asdict", "_make"})
"""Methods of named tuples, whose names can clash with no field so."""


def unexplained(lines: list[str]) -> Iterator[int]:
    """Yield the numbers of the lines with a pause but no comment of their own or on the line before."""
    for number, line in enumerate(lines, 1):
        if not PAUSE.search(line.replace(ONE_TURN, "")):
            continue
        before = lines[number - 2] if number > 1 else ""
        if not REASON.search(line) and not REASON.search(before):
            yield number


def is_private(name: str) -> bool:
    is_dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and name != "_" and not is_dunder and name not in PUBLIC_DESPITE_ITS_NAME


def own_names(tree: ast.AST) -> set[str]:
    """Return what a module's own classes and functions are called, and what its objects keep for themselves."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
            case _:
                pass
    return found


def private_members(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a module uses what others keep private: as attribute, import or name that is patched."""
    own = own_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, alias.name) for alias in names if is_private(alias.name))
            case ast.Call(
                func=ast.Attribute(attr="setattr" | "delattr") | ast.Name(id="getattr" | "setattr" | "hasattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ) if is_private(name):
                yield node.lineno, name
            case _:
                pass


def tree_of(path: Path) -> ast.AST:
    return ast.parse(path.read_text())


def test_each_pause_of_a_test_says_why_it_awaits_nothing() -> None:
    assert len(FILES) > 150
    assert len(BROWSER_FILES) > 10
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*FILES, *BROWSER_FILES)
        for number in unexplained(path.read_text().split("\n"))
    ]
    assert found == [], "await a state with tests.support.waiting, or say in a comment why there is none"


def test_no_test_depends_on_a_private_member() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {name}" for path in FILES for number, name in private_members(tree_of(path))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("time.PAUSE(1)", [1]),
        ("time.PAUSE(1)  # noqa: ASYNC251", [1]),
        ("time.PAUSE(1)  # nothing tells of it", []),
        ("# Nothing tells of it.\ntime.PAUSE(1)\ntime.PAUSE(2)", [3]),
        ("await asyncio.PAUSE(0)", []),
        ("while (true) await new Promise((over) => TIMER(over, 5)); // looks again", []),
        ("await new Promise((over) => TIMER(over, 5));", [1]),
    ],
)
def test_a_pause_without_a_reason_would_be_found(text: str, numbers: list[int]) -> None:
    text = text.replace("PAUSE", "sleep").replace("TIMER", "setTimeout")
    assert list(unexplained(text.split("\n"))) == numbers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("self._own + cls._own", []),
        ("thing._inner.x", ["_inner"]),
        ("thing.__class__, url._replace(path='')", []),
        ("class A:\n    def _run(self): ...\nA()._run()", []),
        ("from thing import _inner", ["_inner"]),
        ("monkeypatch.setattr(thing, '_inner', 1)", ["_inner"]),
        ("getattr(thing, '_inner')", ["_inner"]),
    ],
)
def test_a_use_of_a_private_member_would_be_found(text: str, names: list[str]) -> None:
    assert [name for _, name in private_members(ast.parse(text))] == names
