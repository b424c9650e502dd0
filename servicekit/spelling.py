"""One spelling of what people type in several: e-mail addresses and passwords.

Everything that keeps, compares or counts them goes by these two functions; no other part spells them by itself.
"""

from unicodedata import normalize

import idna

_MOST_DOMAIN_CHARACTERS = 253


def address(text: str) -> str:
    """Return the one spelling of an e-mail address: NFC and lower case, its domain as ASCII (IDNA, UTS 46).

    text: has one @ between two parts. Raises ValueError, without the address in it, for a domain that cannot exist.
    """
    local, _, domain = text.strip().rpartition("@")
    return f"{_lower(local)}@{_domain(domain)}"


def addresses(text: str) -> tuple[str, ...]:
    """Return the one spelling, then the given one in lower case where it differs: how older accounts may be kept.

    Raises ValueError as `address` does.
    """
    return tuple(dict.fromkeys((address(text), text.strip().lower())))


def domain(text: str) -> str:
    """Return the one spelling of a domain, as `address` has it. Raises ValueError for one that cannot exist."""
    return _domain(text.strip())


def password(text: str) -> str:
    """Return the one spelling of a password: NFC, which leaves ASCII as it is."""
    return normalize("NFC", text)


def passwords(text: str) -> tuple[str, ...]:
    """Return the one spelling, then the given one where it differs: how older accounts may have been given it."""
    return tuple(dict.fromkeys((password(text), text)))


def _lower(text: str) -> str:
    # Lower case may take a letter apart, which puts it together again.
    return normalize("NFC", normalize("NFC", text).lower())


def _domain(text: str) -> str:
    if text.isascii():
        # As it is: the auth server has the last word on names that only a local network knows.
        return text.lower()
    try:
        name = idna.encode(text, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        name = ""
    if not 0 < len(name) <= _MOST_DOMAIN_CHARACTERS:
        raise ValueError("the domain cannot exist")
    return name
