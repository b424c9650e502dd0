"""How many values a JSON text holds, known before it is read: each costs far more time and memory than it has bytes."""

from servicekit.errors import AppError

MOST_VALUES = 100_000
"""Most values of one body, those inside each other counted: reading more would hold everybody else up."""


def refuse_many_values(content: bytes) -> None:
    """Return when a JSON text holds at most MOST_VALUES values. Raises AppError FIELD_TOO_LARGE.

    A value stands behind an opening bracket or a comma, so these are counted; an empty list counts as two. What is no
    JSON may pass, for whoever reads it to refuse.
    """
    if _marks(content) >= MOST_VALUES and _marks_beside_texts(content) >= MOST_VALUES:
        raise AppError("FIELD_TOO_LARGE", metadata={"field": "The body", "limit": f"{MOST_VALUES} values"})


def values_of(content: bytes, *, exact_from: int) -> int:
    """Return about how many values a JSON text holds. Below `exact_from` they may be fewer: texts hold commas too."""
    marks = _marks(content)
    return marks if marks < exact_from else min(marks, _marks_beside_texts(content))


def _marks_beside_texts(content: bytes) -> int:
    # Without escapes each pair of quotation marks is a key or a value.
    bare = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = bare.count(b'"')
    return quotes // 4 if quotes > 4 * MOST_VALUES else _marks(b"".join(bare.split(b'"')[::2]))


def _marks(content: bytes) -> int:
    return content.count(b",") + content.count(b"[") + content.count(b"{")
