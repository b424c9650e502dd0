"""Fixtures for every test: the running suite, started once per test run on its own ports and data folder."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import trustme

from local.suite.processes import Mode
from tests.support.certificates import Mount
from tests.support.measured import MEASURED, Note, lines_of
from tests.support.suites import PreparedStarts, RunningStack, running_elsewhere, stop_stack


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--stack`, `--running`, `--hosted`, `--mode`, `--replicas`, `--tls`, `--long` and `--chaos-kills`."""
    parser.addoption(
        "--stack",
        choices=("full", "supabase"),
        default="full",
        help="What the `stack` fixture starts: the whole suite, or only Postgres and the embedded Supabase.",
    )
    parser.addoption(
        "--running",
        type=Path,
        metavar="FILE",
        help="Test a suite that runs already instead of starting one; the file has its settings, as in .env. "
        "Only for tests that reach it through its gateway.",
    )
    parser.addoption(
        "--mode",
        choices=("one-process", "processes"),
        default="one-process",
        help="Whether suites run our parts in one process or each in its own. Tests of a single part's death choose.",
    )
    parser.addoption(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="With `--mode processes`: how many processes of each of our parts suites run.",
    )
    parser.addoption(
        "--tls",
        action="store_true",
        help="Let the parts of the suites speak mutual TLS, with certificates made for this test run.",
    )
    parser.addoption(
        "--hosted",
        type=Path,
        metavar="FILE",
        help="Run the suites on a hosted project: a JSON object with its variables, those of `concerto env --admin`. "
        "Tests sign tokens of their own with SUPABASE_SIGNING_KEY (a JSON Web Key) or SUPABASE_JWT_SECRET in it.",
    )
    parser.addoption(
        "--long",
        action="store_true",
        help="Run the tests marked `long` too: they take long, or show in another mode what a short one shows.",
    )
    parser.addoption(
        "--chaos-kills",
        type=int,
        default=0,
        metavar="N",
        help="Kill orchestrator, gateway and clients N times each in tests/e2e/test_chaos.py (50: many minutes).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers, and refuse options that mean nothing together."""
    if config.getoption("--replicas") != 1 and config.getoption("--mode") != "processes":
        raise pytest.UsageError("--replicas needs --mode processes")
    config.addinivalue_line("markers", "own_mode: chooses the mode of its suites itself, so one run of it is enough")
    config.addinivalue_line(
        "markers", "long: takes long, or shows in another mode what a short test shows; runs with --long only"
    )
    config.addinivalue_line(
        "markers", "alone: a long test that measures, fills the machine or must be in time, and so has it to itself"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out unless they are asked for; the summary counts them as deselected."""
    left_out = [] if config.getoption("--long") else [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, below everything else."""
    lines = lines_of(chain.from_iterable(terminalreporter.stats.values()))
    if lines:
        terminalreporter.section("measured")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Print a line that a test has measured, when all tests are done."""
    return functools.partial(record_property, MEASURED)


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> Mode:
    """How the suites of this test run are started."""
    chosen: Mode = request.config.getoption("--mode")
    return chosen


@pytest.fixture(scope="session")
def replica_count(request: pytest.FixtureRequest) -> int:
    """How many processes of each part the suites of this test run have, where each part is a process."""
    chosen: int = request.config.getoption("--replicas")
    return chosen


@pytest.fixture(scope="session")
def tls_variables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of TLS of all suites of this test run; none without `--tls`."""
    if not request.config.getoption("--tls"):
        return {}
    return Mount(tmp_path_factory.mktemp("tls"), trustme.CA()).variables(client_auth=True)


@pytest.fixture(scope="session")
def hosted_project(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of the hosted project that suites are to run on; empty: each brings its embedded Supabase."""
    file = request.config.getoption("--hosted")
    return dict(json.loads(file.read_text())) if file else {}


@pytest.fixture(scope="session")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreparedStarts:
    """Starts suites without making each one's database anew; the workers of a test run share the one that is made."""
    own = tmp_path_factory.getbasetemp()
    return PreparedStarts((own.parent if hasattr(request.config, "workerinput") else own) / "prepared")


@pytest.fixture(scope="session")
def launch(
    mode: Mode,
    replica_count: int,
    tls_variables: dict[str, str],
    hosted_project: dict[str, str],
    prepared: PreparedStarts,
) -> Iterator[Callable[..., RunningStack]]:
    """Start a further stack: `launch(only="postgres,supabase", CONCERTO_CONFIRM_EMAIL="true")`. Stopped at the end."""
    started: list[tuple[RunningStack, Path]] = []
    usual, usual_replicas = mode, replica_count

    def start(
        *, only: str | None = None, mode: Mode | None = None, replicas: int | None = None, **variables: str
    ) -> RunningStack:
        folder = Path(tempfile.mkdtemp(prefix="concerto-"))
        chosen = mode or usual
        count = replicas or (usual_replicas if chosen == "processes" else 1)
        try:
            settings: dict[str, Any] = {**tls_variables, **variables, "project": hosted_project}
            running = prepared.start(folder, only=only, mode=chosen, replicas=count, **settings)
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
    elsewhere = request.config.getoption("--running")
    if elsewhere is not None:
        return running_elsewhere(elsewhere)
    only = "postgres,supabase" if request.config.getoption("--stack") == "supabase" else None
    return launch(only=only)
