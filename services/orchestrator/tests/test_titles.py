import unicodedata

import pytest

from services.orchestrator.titles import MAX_TITLE_CHARS, title_of

FAMILY = "👨\u200d👩\u200d👧\u200d👦"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  Plan   my\ttrip ", "Plan my trip"),
        ("\n\n  \nFirst\nSecond", "First"),
        ("First\u2028Second", "First"),
        ("a\x07b", "a b"),
        ("x" * 60, "x" * 60),
        ("", ""),
        (" \n\t ", ""),
        (" \n" * 500_000 + "Late", "Late"),
        ("x" * 1_000_000, "x" * 59 + "…"),
        ("word " * 20, "word word word word word word word word word word word word…"),
        ("x" * 61, "x" * 59 + "…"),
        ("今" * 80, "今" * 59 + "…"),
        ("short " + "x" * 80, "short " + "x" * 53 + "…"),
    ],
)
def test_title_is_the_first_line_cut_where_a_reader_would(text: str, title: str) -> None:
    assert title_of(text) == title


@pytest.mark.parametrize("unit", ["e\u0301", "👍🏽", FAMILY, "🇩🇪", "❤\ufe0f", "नी", "🏴\U000e0067\U000e007f"])
@pytest.mark.parametrize("lead", range(8))
def test_no_character_is_cut_in_two(unit: str, lead: int) -> None:
    title = title_of("x" * lead + unit * 60)
    assert len(title) <= MAX_TITLE_CHARS
    whole = title.removesuffix("…").removeprefix("x" * lead)
    assert whole == unit * (len(whole) // len(unit))
    assert whole


def test_marks_without_end_still_give_a_title() -> None:
    title = title_of("a" + "\u0301" * 200)
    assert 0 < len(title) <= MAX_TITLE_CHARS
    assert unicodedata.normalize("NFC", title)
