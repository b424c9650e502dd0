"""The pages that people read: their links lead somewhere, the files that they name exist, and decisions are short."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.contract import ROOT


@functools.cache
def files() -> frozenset[str]:
    """Every file of the working copy that git does not ignore, as its path from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return frozenset(name for name in listed if (ROOT / name).is_file())


PAGES = sorted(ROOT / name for name in files() if name.endswith(".md"))
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
LINES, WORDS = 10, 200
"""What a decision may have behind its title. Its figures belong to benchmarks/PROFILES.md."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"\.?[\w-][\w.-]*(?:/[\w.-]+)*/?")
SOURCE = re.compile(r"\.(md|mjs|proto|py|sql|toml|ts|tsx|yaml|yml)$")
NOT_OF_THIS_TREE = {
    "docs/architecture.md": {"apps/api/core/config.py", "down.sql"},  # named by the requirement documents
    "docs/adding-a-service.md": {  # its example
        "notes_servicer.py",
        "notes_store.py",
        "protos/concerto/notes/v1/notes.proto",
        "services/notes/",
        "supabase/schemas/notes/",
        "tests/integration/expectations/notes.py",
    },
}


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_its_heading(page: Path) -> None:
    missing = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


def named_files(text: str) -> set[str]:
    """What a page names in backticks that is a source file by its ending, or begins with a folder of the tree."""
    folders = {name.split("/")[0] for name in files() if "/" in name}
    codes = {code for code in CODE.findall(BLOCK.sub("", text)) if PATH.fullmatch(code)}
    return {code for code in codes if SOURCE.search(code) or ("/" in code and code.split("/")[0] in folders)}


def is_there(name: str, page: Path) -> bool:
    """Whether a path exists from the root or from the page, or a bare name is that of a file below the page's folder.

    Pages of `docs/` speak of the whole tree. What is generated is never committed: there, git's ignored paths count.
    """
    candidates = [path for path in (ROOT / name, page.parent / name) if path.is_relative_to(ROOT)]
    if any(path.exists() for path in candidates):
        return True
    if "/" not in name:
        folder = page.parent.relative_to(ROOT)
        prefix = "" if folder.parts[:1] in ((), ("docs",)) else f"{folder}/"
        return any(file.startswith(prefix) and file.endswith(f"/{name}") for file in files())
    # A rule such as `web/out/` is for folders alone, so each path is asked for as both.
    asked = [text for path in candidates for text in (str(path), f"{path}/")]
    ignored = subprocess.run(["git", "check-ignore", *asked], cwd=ROOT, capture_output=True, check=False)
    return ignored.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = named_files(page.read_text()) - NOT_OF_THIS_TREE.get(str(page.relative_to(ROOT)), set())
    assert sorted(name for name in named if not is_there(name, page)) == []


def test_paths_from_before_a_move_are_found() -> None:
    page = ROOT / "local" / "README.md"
    text = "`host/main.mjs`, `local/suite/absent.py`, `absent.py`, `suite/processes.py`, `postgres.py`, `concerto up`"
    named = named_files(f"{text}\n```sh\n`local/unread.py`\n```\n")
    assert {name for name in named if not is_there(name, page)} == {
        "host/main.mjs",
        "local/suite/absent.py",
        "absent.py",
    }


def test_e_mail_is_spelled_one_way_wherever_people_read_it() -> None:
    sentences = [name for name in files() if name.endswith("/sentences.ts")]
    templates = [name for name in files() if re.fullmatch(r"supabase/templates/.*\.html", name)]
    texts = {page.name: CODE.sub("", BLOCK.sub("", page.read_text())) for page in PAGES}
    # What a page of Supabase is called stands in italics; names in braces are filled in.
    texts = {name: re.sub(r"\*[^*\n]+\*", "", text) for name, text in texts.items()}
    texts |= {name: " ".join(re.findall(r'"([^"\n]*)"', (ROOT / name).read_text())) for name in sentences}
    texts |= {name: re.sub(r"<[^>]*>", "", (ROOT / name).read_text()) for name in templates}
    assert sentences
    assert templates
    words = {name: re.findall(r"(?<![{.\w])[Ee]mails?\b(?!})[^\n]{0,20}", text) for name, text in texts.items()}
    assert {name: found for name, found in words.items() if found} == {}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name[:4])
def test_a_decision_is_ten_lines_of_context_choice_and_consequence(page: Path) -> None:
    title, *lines = [line for line in page.read_text().splitlines() if line]
    assert re.fullmatch(rf"# {page.name[:4]} · .+", title)
    assert len(lines) <= LINES
    assert sum(len(line.split()) for line in lines) <= WORDS
    for part in ("Context", "Choice", "Consequence"):
        assert sum(line.startswith(f"**{part}.**") for line in lines) == 1


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
