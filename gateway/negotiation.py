"""Reads the Accept header: which of two forms of an answer the client would rather have."""


def prefers(accept: str | None, wanted: str, *, over: str) -> bool:
    """Say whether the client names the media type `wanted` and does not like `over` better.

    An absent, unreadable or all-embracing header (`*/*`) means no: then the usual form is sent.
    """
    qualities: dict[str, float] = {}
    for entry in (accept or "").lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        qualities[kind] = next((_number(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return qualities.get(wanted, 0.0) > 0 and qualities[wanted] > qualities.get(over, 0.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
