"""Makes sure of `wrk`, from which the load of single calls comes, before anything is set up or measured.

python -m benchmarks.load.wrk [what `python -m benchmarks` is given]      needs the standard library alone
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from local.setup import debian

GROUPS = Path(__file__).resolve().parent.parent / "groups"
USERS = frozenset({"unary", "fairness"})
"""The groups of measurements that need it."""
MISSING = (
    "`wrk` is not installed, and the load comes from it: apt-get install wrk (Debian, Ubuntu), or brew install wrk."
)


def is_installed() -> bool:
    """Whether there is a wrk in the PATH."""
    return shutil.which("wrk") is not None


def is_needed(arguments: list[str]) -> bool:
    """Whether what is to be measured needs it: where no group is named, all are measured."""
    named = {argument for argument in arguments if (GROUPS / f"{argument}.py").exists()}
    return not named or bool(USERS & named)


def main() -> None:
    """Install it as root on Debian; elsewhere, exit code 2 with the command that does, when it is needed."""
    if is_installed() or not is_needed(sys.argv[1:]):
        return
    try:
        debian.install("wrk", label="wrk, which makes the load of the benchmarks")
    except debian.PackageError as error:
        sys.stderr.write(f"{error}{MISSING}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
