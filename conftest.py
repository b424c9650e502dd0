"""Fixtures for every test: the running suite, started once per test run on its own ports and data folder."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.processes import Mode
from local.testing import RunningStack, start_stack, stop_stack


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--stack`, `--mode` and `--chaos-kills`."""
    parser.addoption(
        "--stack",
        choices=("full", "supabase"),
        default="full",
        help="What the `stack` fixture starts: the whole suite, or only Postgres and the embedded Supabase.",
    )
    parser.addoption(
        "--mode",
        choices=("one-process", "processes"),
        default="one-process",
        help="Whether suites run our parts in one process or each in its own. Tests of a single part's death choose.",
    )
    parser.addoption(
        "--chaos-kills",
        type=int,
        default=0,
        metavar="N",
        help="Kill orchestrator, gateway and clients N times each in tests/e2e/test_chaos.py (50: many minutes).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker."""
    config.addinivalue_line("markers", "own_mode: chooses the mode of its suites itself, so one run of it is enough")


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> Mode:
    """How the suites of this test run are started."""
    chosen: Mode = request.config.getoption("--mode")
    return chosen


@pytest.fixture(scope="session")
def launch(mode: Mode) -> Iterator[Callable[..., RunningStack]]:
    """Start a further stack: `launch(only="postgres,supabase", CONCERTO_CONFIRM_EMAIL="true")`. Stopped at the end."""
    started: list[tuple[RunningStack, Path]] = []
    usual = mode

    def start(*, only: str | None = None, mode: Mode | None = None, **variables: str) -> RunningStack:
        folder = Path(tempfile.mkdtemp(prefix="concerto-"))
        try:
            running = start_stack(folder, only=only, mode=mode or usual, **variables)
        except RuntimeError as error:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.fail(str(error), pytrace=False)
        started.append((running, folder))
        return running

    yield start
    for running, folder in reversed(started):
        stop_stack(running)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, launch: Callable[..., RunningStack]) -> RunningStack:
    """The running suite, one per test run."""
    only = "postgres,supabase" if request.config.getoption("--stack") == "supabase" else None
    return launch(only=only)
