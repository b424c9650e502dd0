import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import spelling


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        (" ada@example.com ", "ada@example.com"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("JOS\u00c9@example.com", "jos\u00e9@example.com"),
        ("\u0130@example.com", "i\u0307@example.com"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("ada@BU\u0308CHER.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@b\u00fccher\u3002example", "ada@xn--bcher-kva.example"),
        ("ada@\uff45xample.com", "ada@example.com"),
        ("ada@stra\u00dfe.example", "ada@xn--strae-oqa.example"),
        ("ada@my_host", "ada@my_host"),
    ],
)
def test_an_address_has_one_spelling(typed: str, kept: str) -> None:
    assert spelling.address(typed) == kept
    assert spelling.address(kept) == kept


@pytest.mark.parametrize(
    "typed", ["a@\u200b", "a@b\u00fc..example", "a@" + "\u00fc" * 64 + ".example", "a@\u00fc_.example"]
)
def test_a_domain_that_cannot_exist_is_refused_without_being_told(typed: str) -> None:
    with pytest.raises(ValueError, match="the domain cannot exist") as refused:
        spelling.address(typed)
    assert typed not in repr(refused.value)


def test_older_spellings_come_second_and_only_where_they_differ() -> None:
    assert spelling.addresses("Ada@Example.com") == ("ada@example.com",)
    assert spelling.addresses("Ada@B\u00fccher.example") == ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example")
    assert spelling.passwords("Passw\u00f6rd") == ("Passw\u00f6rd",)
    assert spelling.passwords("Passwo\u0308rd") == ("Passw\u00f6rd", "Passwo\u0308rd")


@given(st.text())
def test_composed_and_decomposed_passwords_are_the_same(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert spelling.password(composed) == spelling.password(decomposed) == spelling.password(text)


@given(st.from_regex(r"[^\s@\x00-\x1f]{1,20}", fullmatch=True))
def test_composed_and_decomposed_addresses_are_the_same_and_stay_so(local: str) -> None:
    composed, decomposed = (spelling.address(f"{unicodedata.normalize(form, local)}@a.de") for form in ("NFC", "NFD"))
    assert composed == decomposed == spelling.address(composed)
