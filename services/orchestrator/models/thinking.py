"""Thinking that a model writes into its text, told apart from what it says."""

_OPEN = "<think>"
_CLOSE = "</think>"
_TAGS = {
    _OPEN: _CLOSE,
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[think]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "◁think▷": "◁/think▷",
    "<|channel>thought": "<channel|>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}
"""The tags that texts begin with, in lower case, each with the one that ends it."""
_LONGEST = max(map(len, _TAGS))
_QUOTES = ("`", "'", '"')
_MAX_HELD_CHARS = 1_000
"""Most white space that waits for a tag behind it: each piece more is looked at with all that waits."""


class Thinking:
    """Splits a text that begins with `<think>`, or what stands for it, while it comes, whatever its pieces.

    Where the server has opened the tag itself, in the prompt, the text has its end only: all before it was thinking,
    which `has_turned` tells. Any other tag is a part of the text: models are asked about such tags, too.
    """

    def __init__(self) -> None:
        self.is_past = False
        """True while pieces without `<` need not be fed."""
        self.has_turned = False
        """True once what was said so far proved to be thinking, or what was thought to be said."""
        self._is_expected = False
        self._is_answer = False
        self._is_inside = False
        self._follows = False
        self._is_over = False
        self._close = _CLOSE
        self._held = ""
        self._expected: list[str] = []

    def expect(self) -> None:
        """Take the text for thinking from its first word on, as the model is known to begin so."""
        self._is_expected = True

    def know(self) -> None:
        """Note that thinking comes beside the text: no tag further on is an end."""
        if self._is_expected:
            self._is_expected = self._is_inside = False
        self._is_over = True

    def feed(self, text: str) -> tuple[str, str]:
        """Return what of the text is thinking, and what is said; what may be a half tag waits for more."""
        text, self._held = self._held + text, ""
        if self._is_answer:
            return self._in_answer(text)
        if self._is_inside:
            return self._inside(text)
        bare = text.lstrip()
        if self._follows:
            # The empty lines between thinking and answer belong to neither.
            self._is_answer = self.is_past = bool(bare)
            return "", bare
        return self._begin(text, bare)

    def finish(self, *, is_whole: bool) -> tuple[str, str]:
        """Return what waited, now that nothing more comes. is_whole: the answer is not cut short.

        A whole text that was expected to be thinking, and never ended to be, was said.
        """
        held, self._held = self._held, ""
        is_inside, is_expected = self._is_inside, self._is_expected
        self._is_inside = self._is_expected = False
        self._is_answer = self.is_past = True
        if is_inside and is_expected and is_whole:
            self.has_turned = True
            return "", "".join(self._expected) + held
        if held == _CLOSE and not is_inside:
            self._turn()
            return "", ""
        return (held, "") if is_inside else ("", held)

    def _begin(self, text: str, bare: str) -> tuple[str, str]:
        start = bare[:_LONGEST].lower()
        for tag, end in _TAGS.items():
            if start.startswith(tag):
                self._is_inside, self._is_expected, self._is_over, self._close = True, False, True, end
                return self._inside(bare[len(tag) :].lstrip("\n"))
        if start.startswith(_CLOSE):
            return self._inside(bare)
        if len(text) <= _MAX_HELD_CHARS and any(tag.startswith(start) for tag in (*_TAGS, _CLOSE)):
            self._held = text
            return "", ""
        if self._is_expected:
            self._is_inside = True
            return self._inside(text)
        self._is_answer = True
        return self._in_answer(text)

    def _inside(self, text: str) -> tuple[str, str]:
        end = text.find(self._close)
        if end >= 0:
            self._is_inside, self._is_expected = False, False
            self._is_over = self._follows = True
            self._expected.clear()
            _, text_after = self.feed(text[end + len(self._close) :])
            return text[:end].rstrip("\n"), text_after
        text = self._without_half(text, self._close)
        if self._is_expected:
            self._expected.append(text)
        return text, ""

    def _in_answer(self, text: str) -> tuple[str, str]:
        self.is_past = True
        if self._is_over:
            return "", text
        start, end = text.find(_OPEN), text.find(_CLOSE)
        if start >= 0 and (end < 0 or start < end):
            self._is_over = True
            return "", text
        if end < 0:
            text = self._without_half(text, _CLOSE, _OPEN)
            self.is_past = not self._held
            return "", text
        after = text[end + len(_CLOSE) :]
        if not after:
            self._held, self.is_past = _CLOSE, False
            return "", text[:end]
        if after.startswith(_QUOTES):
            self._is_over = True
            return "", text
        self._turn()
        _, text_after = self.feed(after)
        return text[:end].rstrip("\n"), text_after

    def _turn(self) -> None:
        self.has_turned = self._follows = self._is_over = True
        self._is_answer = self.is_past = False

    def _without_half(self, text: str, *tags: str) -> str:
        """Return the text without what may be the first half of a tag, which waits."""
        start = text.find(tags[0][0], -len(tags[0]))
        while start >= 0:
            if any(tag.startswith(text[start:]) for tag in tags):
                self._held = text[start:]
                return text[:start]
            start = text.find(tags[0][0], start + 1)
        return text
