"""Fails when a migration was changed after it landed: `python3 -m local.migrations.landed`. Needs git only."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from local.environment import for_tools
from local.migrations.baseline import BASELINE, FOLDED

MIGRATIONS = "supabase/migrations"
NO_COMMIT = "0" * 40
"""What GitHub names as the commit before a branch's first push."""


class LandedError(Exception):
    """The comparison cannot be made. The message says what to do."""


def problems(project: Path, base: str) -> list[str]:
    """One sentence for each migration that was edited, removed or slipped in before one that has landed.

    base: a branch or commit of what has landed. Where it has gone on by itself, its migrations since then only count
    for the order. Files that are not committed count as they are. Those that the baseline holds may go when it comes.
    Raises LandedError when git cannot compare.
    """
    if base == NO_COMMIT:
        return []
    forked_at = _git(project, "merge-base", base, "HEAD").strip()
    found: list[str] = []
    changes = _git(project, "diff", "--name-status", "--no-renames", "-z", forked_at, "--", MIGRATIONS).split("\0")
    has_baseline = any((project / MIGRATIONS).glob(f"{BASELINE}_*.sql"))
    for status, name in zip(changes[::2], changes[1::2], strict=False):
        if status == "D" and has_baseline and Path(name).name[:14] in FOLDED:
            continue
        if status != "A":
            change = "removed" if status == "D" else "edited"
            found.append(f"{name} was {change} after it had landed. Restore it, and write a new migration instead.")
    landed = _names(project, base)
    newest = max(landed, default="")
    new = {file.name for file in (project / MIGRATIONS).glob("*.sql")} - landed - _names(project, forked_at)
    found += [
        f"{MIGRATIONS}/{name} is older than {newest}, which has landed. Give it and its rollback a new time."
        for name in sorted(new)
        if name[:14] <= newest[:14]
    ]
    return found


def _names(project: Path, commit: str) -> set[str]:
    listed = _git(project, "ls-tree", "-z", "--name-only", commit, f"{MIGRATIONS}/").split("\0")
    return {Path(name).name for name in listed if name}


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 (the git of whoever runs this)
            cwd=project,
            # In a hook, GIT_DIR and its like name another repository, or the index of what is being committed.
            env=for_tools(os.environ),  # noqa: TID251
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise LandedError(f"git cannot be run: {error}") from error
    if done.returncode != 0:
        raise LandedError(
            f"git {arguments[0]} failed. Is the history whole (fetch-depth: 0), and does the base exist?\n"
            f"{done.stderr.strip()}"
        )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Print every problem; 1 when there is one, 2 when the comparison cannot be made, otherwise 0."""
    parser = argparse.ArgumentParser(description="Check that no migration was changed after it landed.")
    parser.add_argument("--base", default="origin/main", help="branch or commit of what has landed")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="the working copy")
    given = parser.parse_args(arguments)
    try:
        found = problems(given.project, given.base)
    except LandedError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    if not found:
        sys.stdout.write(f"No migration that has landed on {given.base} was changed.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
