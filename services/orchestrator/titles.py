"""A session's title from what the user said first."""

import unicodedata

MAX_TITLE_CHARS = 60
_ELLIPSIS = "…"
_LOOKED_AT_CHARS = 1_000
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAGS = range(0x1F1E6, 0x1F200)
_TAGS = range(0xE0020, 0xE0080)


def title_of(text: str) -> str:
    """Return a title of at most 60 characters: the first line that says something, white space folded.

    A longer line is cut at the end of a word, or, in scripts without spaces, between two characters as a reader sees
    them, and ends with an ellipsis. Empty when the text has nothing to show.
    """
    for line in text.lstrip()[:_LOOKED_AT_CHARS].splitlines():
        title = " ".join("".join(" " if _is_control(char) else char for char in line).split())
        if title:
            return title if len(title) <= MAX_TITLE_CHARS else _cut(title)
    return ""


def _cut(title: str) -> str:
    end = MAX_TITLE_CHARS - len(_ELLIPSIS)
    space = title.rfind(" ", 0, end + 1)
    # A cut far back for the sake of one long last word would lose more than it saves.
    if space >= end // 2:
        end = space
    else:
        whole = end
        while whole > 0 and not _is_boundary(title, whole):
            whole -= 1
        # A run of marks longer than the title has no boundary at all.
        end = whole or end
    return title[:end].rstrip() + _ELLIPSIS


def _is_boundary(text: str, index: int) -> bool:
    before, after = text[index - 1], text[index]
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or ord(after) in _SKIN_TONES or ord(after) in _TAGS:
        return False
    if _ZERO_WIDTH_JOINER in (before, after):
        return False
    if ord(before) in _FLAGS and ord(after) in _FLAGS:
        start = index
        while start > 0 and ord(text[start - 1]) in _FLAGS:
            start -= 1
        return (index - start) % 2 == 0
    return True


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or char.isspace()
