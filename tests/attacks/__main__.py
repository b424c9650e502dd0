"""Runs the attacks: `python -m tests.attacks [word]`, with the options of the tests (`--mode`, `--replicas`)."""

import sys

import pytest

from tests.support.contract import ROOT


def main() -> int:
    """Run those whose names hold the word, all without one, and return the exit code."""
    words = [one for one in sys.argv[1:2] if not one.startswith("-")]
    chosen = [option for word in words for option in ("-k", word)]
    arguments = [str(ROOT / "tests/attacks"), "--long", "-q", *chosen, *sys.argv[1 + len(words) :]]
    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
