"""The pages that people read: their links lead somewhere, and decisions are short."""

import re
from pathlib import Path

import pytest

from tests.support.contract import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "services/*/README.md", "gateway/README.md", "web/*.md")
    for path in ROOT.glob(pattern)
)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
LINES, WORDS = 10, 200
"""What a decision may have behind its title. Its figures belong to benchmarks/PROFILES.md."""
LINK = re.compile(r"\]\(([^)\s]+)\)")


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
