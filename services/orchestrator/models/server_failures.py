"""What a model server says of a failure: its codes, its words and the wait it asks for, wherever they stand.

Servers write failures as an object, a list or a bare text, with codes that are names or numbers, as the HTTP status or
within an answer that began well.
"""

import email.utils
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

MAX_RETRY_AFTER_SECONDS = 24 * 3600.0

_MAX_CHARS = 8_000
_MAX_DEPTH = 8
_MAX_ENTRIES = 50
_MAX_WAIT_CHARS = 100
"""Most characters of a wait: readers of times and of time spans take far longer for a long text than it is long."""
_MAX_PARAM_CHARS = 200

_CODES = frozenset(
    {"code", "type", "status", "statuscode", "status_code", "errorcode", "error_code", "error_type", "reason", "__type"}
)
_WORDS = frozenset(
    {
        *("message", "msg", "detail", "details", "error", "errors", "error_message", "errormessage", "error_msg"),
        *("description", "error_description", "title", "cause", "raw", "metadata", "status_msg", "base_resp", "body"),
        *("innererror", "headers", "response"),
    }
)
_WAITS = {
    **dict.fromkeys(
        ("retry_after", "retry-after", "retryafter", "retrydelay", "retry_after_seconds", "retry_delay"), 1.0
    ),
    **dict.fromkeys(("retry_after_ms", "retry-after-ms", "retryafterms"), 0.001),
}
_RESETS = ("x-ratelimit-reset-", "ratelimit-reset-")
_WHOLE_RESETS = ("x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])"
)
_ASKED_WAIT = re.compile(
    r"(?:try again|retry|wait|available again|resets?)\b[^\d.]{0,40}?"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])[\s,]*)+)"
)


@dataclass(slots=True)
class Report:
    """What a failure says of itself; words and codes in lower case."""

    status: int = 0
    """The HTTP status of the failure: the answer's own, or the number that its body has for it; 0 for none."""
    codes: set[str] = field(default_factory=set)
    """Codes, types and states, numbers too."""
    text: str = ""
    """All sentences. They may quote the prompt: nobody but this program reads them."""
    params: list[str] = field(default_factory=list)
    """What of the request it names, as `messages.0.role`; as it was written."""
    wait_seconds: float | None = None
    """How long to wait, where it says so."""

    @classmethod
    def read(cls, body: Any, *, status: int = 0, headers: Mapping[str, str] | None = None) -> "Report":
        """Return what a body says: JSON's values, or a text that may be JSON. status: of HTTP; 0 within an answer."""
        found = _Found()
        found.walk(body, _MAX_DEPTH)
        numbers = [number for number in found.numbers if 400 <= number < 600]
        if numbers and (status < 400 or status in (500, 502)):
            status = numbers[0]
        text = "\n".join(found.words).lower()[:_MAX_CHARS]
        waits = [wait_of(headers or {}), *found.waits, _asked_wait(text)]
        wait = next((seconds for seconds in waits if seconds is not None), None)
        return cls(status if status >= 400 else 0, found.codes, text, found.params, wait)


class _Found:
    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.numbers: list[int] = []
        self.words: list[str] = []
        self.params: list[str] = []
        self.waits: list[float | None] = []
        self._left = _MAX_ENTRIES

    def walk(self, value: Any, depth: int) -> None:
        self._left -= 1
        if depth == 0 or self._left < 0:
            return
        if isinstance(value, str):
            self._read(value, depth)
        elif isinstance(value, list):
            for one in value:
                self.walk(one, depth - 1)
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                self._take(str(key), entry, depth)

    def _read(self, text: str, depth: int) -> None:
        # Servers that stand before others put the other's answer into a text.
        for start in {text.find("{"), text.find("[")}:
            if 0 <= start < 200:
                try:
                    inner = orjson.loads(text[start:])
                except orjson.JSONDecodeError:
                    continue
                self.words.append(text[:start])
                self.walk(inner, depth - 1)
                return
        self.words.append(text[:_MAX_CHARS])

    def _take(self, key: str, entry: Any, depth: int) -> None:
        name = key.lower()
        if name in _CODES:
            self._take_code(entry, depth)
        elif name in _WAITS:
            seconds = _seconds(entry)
            self.waits.append(
                None if seconds is None else _bounded(seconds * (_WAITS[name] if _is_plain(entry) else 1.0))
            )
        elif name in _WHOLE_RESETS:
            self.waits.append(_until(entry))
        elif name in ("param", "field") and isinstance(entry, str):
            self.params.append(entry[:_MAX_PARAM_CHARS])
        elif name == "loc" and isinstance(entry, list):
            steps = [str(step) for step in entry[:_MAX_ENTRIES] if step != "body"]
            self.params.append(".".join(steps)[:_MAX_PARAM_CHARS])
        elif name in _WORDS:
            self.walk(entry, depth - 1)

    def _take_code(self, entry: Any, depth: int) -> None:
        if isinstance(entry, bool) or entry is None:
            return
        if isinstance(entry, int) or (isinstance(entry, str) and entry.isdecimal() and len(entry) < 7):
            self.numbers.append(int(entry))
            self.codes.add(str(entry))
        elif isinstance(entry, str):
            self.codes.add(entry.lower()[:200])
            self.words.append(entry[:200])
        else:
            self.walk(entry, depth - 1)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks to wait, in seconds up to a day; None where it does not say.

    Read, in this order: `retry-after-ms`, `Retry-After` (seconds or a date), and when what is used up is there again
    (`x-ratelimit-reset-*`: a time span such as `6m0s`, seconds, or a moment).
    """
    headers = {name.lower(): value for name, value in headers.items()}
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name))
        if seconds is not None:
            return _bounded(seconds / divisor)
    moment = _moment(headers.get("retry-after", ""))
    if moment is not None:
        return _bounded(max(0.0, moment - time.time()))
    return _reset(headers)


def _reset(headers: Mapping[str, str]) -> float | None:
    resets: list[tuple[bool, float]] = []
    for name, value in headers.items():
        kind = _kind_of(name)
        if kind is None or (seconds := _until(value)) is None:
            continue
        left = headers.get(name.replace("reset", "remaining"))
        resets.append((left is not None and _seconds(left) == 0, seconds))
    used_up = [seconds for is_used_up, seconds in resets if is_used_up]
    return max(used_up or [seconds for _, seconds in resets], default=None)


def _kind_of(name: str) -> str | None:
    if name in _WHOLE_RESETS:
        return name
    if any(name.startswith(start) for start in _RESETS):
        return name
    return name if name.startswith("anthropic-ratelimit-") and name.endswith("-reset") else None


def _until(value: Any) -> float | None:
    """Return the seconds until what may be a time span, a number of seconds, or a moment (seconds or ms since 1970)."""
    seconds = _seconds(value)
    if seconds is None:
        moment = _moment(value) if isinstance(value, str) else None
        return None if moment is None else _bounded(max(0.0, moment - time.time()))
    if seconds > 1e11:
        seconds /= 1000.0
    if seconds > 1e9:
        seconds = max(0.0, seconds - time.time())
    return _bounded(seconds)


def _seconds(value: Any) -> float | None:
    """Return a number of seconds, or a time span such as `1m30.5s` in seconds."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Mapping):
        value = value.get("seconds")
    if isinstance(value, str) and len(value) > _MAX_WAIT_CHARS:
        return None
    seconds: float | None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = _span(value) if isinstance(value, str) else None
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return seconds


def _span(text: str) -> float | None:
    text = text.strip().lower()
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip(" ,"):
        return None
    return _sum(parts)


def _sum(parts: Iterable[tuple[str, str]]) -> float:
    return sum(float(number) * _UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]] for number, unit in parts)


def _asked_wait(text: str) -> float | None:
    found = _ASKED_WAIT.search(text)
    return None if found is None else _bounded(_sum(_DURATION.findall(found.group(1))))


def _moment(text: str) -> float | None:
    if len(text) > _MAX_WAIT_CHARS:
        return None
    try:
        parsed = email.utils.parsedate_tz(text)
        if parsed is not None:
            return float(email.utils.mktime_tz(parsed))
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, TypeError, ArithmeticError, LookupError):  # no day of any calendar
        return None


def _is_plain(entry: Any) -> bool:
    return isinstance(entry, int | float) or (isinstance(entry, str) and entry.strip().replace(".", "", 1).isdecimal())


def _bounded(seconds: float) -> float:
    return min(seconds, MAX_RETRY_AFTER_SECONDS)
