"""What `concerto` prints: plain lines that read well in a terminal and in a log file alike."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_BOLD = "\x1b[1m"
_GREEN = "\x1b[32m"
_RED = "\x1b[31m"
_PLAIN = "\x1b[0m"
_LABEL_WIDTH = 44
_COUNT_SECONDS = 5.0


class Console:
    """Writes steps with their time, warnings and a closing box. Colours only on a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()

    def line(self, text: str = "") -> None:
        """One line as it is."""
        # A closed terminal or pipe reads no more, and must not keep the suite from being stopped in order.
        with suppress(OSError):
            self._stream.write(text + "\n")
            self._stream.flush()

    def done(self, label: str, seconds: float) -> None:
        """A finished step and how long it took."""
        dots = "." * max(3, _LABEL_WIDTH - len(label))
        self.line(f"  {label} {dots} {self._paint(f'{seconds:.1f} s', _GREEN)}")

    def problem(self, text: str) -> None:
        """Something that went wrong, in one or more lines."""
        self.line(self._paint(text, _RED))

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Time a step and print it when it is done; a failed step prints nothing, the error will."""
        started = time.monotonic()
        yield
        self.done(label, time.monotonic() - started)

    def counter(self, label: str, total: int | None = None) -> Callable[[int], None]:
        """A function that is told the bytes done so far, and prints them now and then while a step takes long."""
        printed_at = time.monotonic()

        def count(done: int) -> None:
            nonlocal printed_at
            if time.monotonic() - printed_at >= _COUNT_SECONDS:
                printed_at = time.monotonic()
                whole = f" of {human_bytes(total)}" if total else ""
                self.line(f"  {label}: {human_bytes(done)}{whole}")

        return count

    def box(self, lines: list[str]) -> None:
        """A few lines in a frame, the first of them in bold."""
        width = max(len(text) for text in lines)
        self.line("+" + "-" * (width + 4) + "+")
        for position, text in enumerate(lines):
            padded = text.ljust(width)
            self.line(f"|  {self._paint(padded, _BOLD) if position == 0 else padded}  |")
        self.line("+" + "-" * (width + 4) + "+")

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._is_terminal else text


def human_bytes(count: float) -> str:
    """A number of bytes as a person would say it: 3.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
