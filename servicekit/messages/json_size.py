"""How many values a JSON text holds, known before it is read: each costs far more time and memory than it has bytes."""

from servicekit.errors import AppError

MOST_VALUES = 100_000
"""Most values of one body, those inside each other counted: reading more would hold everybody else up."""


def refuse_many_values(content: bytes) -> None:
    """Return when a JSON text holds at most MOST_VALUES values. Raises AppError FIELD_TOO_LARGE.

    A value stands behind an opening bracket or a comma, so these are counted; an empty list counts as two. What is no
    JSON may pass, for whoever reads it to refuse.
    """
    if _marks(content) < MOST_VALUES:
        return
    # Many of them may stand in texts. Without escapes each pair of quotation marks is a key or a value.
    bare = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') <= 4 * MOST_VALUES and _marks(b"".join(bare.split(b'"')[::2])) < MOST_VALUES:
        return
    raise AppError("FIELD_TOO_LARGE", metadata={"field": "The body", "limit": f"{MOST_VALUES} values"})


def _marks(content: bytes) -> int:
    return content.count(b",") + content.count(b"[") + content.count(b"{")
