"""Tells on standard error what is being measured, with the time since the beginning."""

import sys
import time

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print one line."""
    minutes, seconds = divmod(round(time.monotonic() - _BEGAN), 60)
    sys.stderr.write(f"[{minutes:2d}:{seconds:02d}] {text}\n")
    sys.stderr.flush()
