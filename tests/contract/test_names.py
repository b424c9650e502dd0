"""Names use the terms of the trade, so that a reader needs no glossary."""

import ast
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.contract import ROOT

# Words that names may not hold, and what to write instead.
TERMS = {
    "anybody": "any_user, or the role",
    "around": "dependencies, context or wrapper",
    "borrowed": "temporary or shared",
    "dearer": "slower or larger",
    "dearest": "slowest or largest",
    "door": "api or route",
    "enlist": "enqueue or register",
    "everybody": "all_users",
    "firsts": "first_<what they are>",
    "foot": "footnotes",
    "heard": "received or delivered",
    "here": "local, current or this_<what it is>",
    "hurry": "stop_quickly, timer or flush",
    "lean": "slim, or what is left out",
    "leftovers": "orphans or remainder",
    "meet": "match or join",
    "mend": "fix",
    "mended": "fixed or clean",
    "mender": "sanitizer or fixer",
    "nobody": "without_caller, anonymous or none",
    "nobodys": "orphaned or anonymous",
    "nowhere": "unreachable or unsampled",
    "passing": "retryable or temporary",
    "place": "index, position, offset, path or context",
    "places": "indexes, positions, offsets, paths or contexts",
    "said": "output, text or question",
    "some": "the noun, or has_<what there is>",
    "somebody": "user, caller or owner",
    "spoken": "has_output",
    "surroundings": "dependencies or environment",
    "tale": "transcript or report",
    "tidied": "cleaned or normalized",
    "told": "reported, given or summary",
    "twin": "replica or copy",
    "unheard": "undelivered",
    "unseen": "untraced, unread or new",
    "untold": "unreported",
    "whoever": "the role that it is",
    "whom": "the role that it is",
}


def files(*patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def words_of(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def names_of(file: str) -> Iterator[tuple[str, int]]:
    """Yield what a module defines, each with its line; a test's own name is a sentence and is left out."""
    yield from ((part, 0) for part in file.removesuffix(".py").split("/"))
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("test_"):
                yield node.name, node.lineno
        elif isinstance(node, ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def test_names_hold_the_terms_of_the_trade() -> None:
    found = {
        f"{file}:{line} {name}: write {TERMS[word]}"
        for file in files("*.py")
        for name, line in names_of(file)
        for word in words_of(name)
        if word in TERMS
    }
    assert sorted(found) == []


@pytest.mark.parametrize("word", [r"mend(s|ed|er|ing)?", r"doors?"], ids=["fix, not mend", "route or API, not door"])
def test_texts_hold_the_terms_of_the_trade(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b", re.IGNORECASE)
    found = [
        f"{file}:{number}"
        for file in files("*.py", "*.md", "*.sql", "*.proto", "*.ts", "*.tsx", "*.yaml", "Makefile", ".env.example")
        if file != "tests/contract/test_names.py"
        for number, line in enumerate((ROOT / file).read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_a_name_is_split_into_its_words() -> None:
    assert words_of("_is_HTTPServer2_MendedText") == ["is", "http", "server2", "mended", "text"]
