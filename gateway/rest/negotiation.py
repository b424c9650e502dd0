"""Reads the headers that say what a client would rather have: forms of an answer, encodings."""


def prefers(accept: str | None, wanted: str, *, over: str) -> bool:
    """Say whether the client names the media type `wanted` and does not like `over` better.

    An absent, unreadable or all-embracing header (`*/*`) means no: then the usual form is sent.
    """
    liked = qualities(accept)
    return liked.get(wanted, 0.0) > 0 and liked[wanted] > liked.get(over, 0.0)


MAX_HEADER_CHARACTERS = 2048
"""What is read of a header; browsers send a tenth of it, and reading costs time."""


def qualities(header: str | None) -> dict[str, float]:
    """Return what a header like Accept names, in lower case, with how much each is liked: 0 (not at all) to 1."""
    named: dict[str, float] = {}
    for entry in (header or "")[:MAX_HEADER_CHARACTERS].lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        named[kind] = next((_number(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return named


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
