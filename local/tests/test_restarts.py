import asyncio
import io
import sys
from pathlib import Path

import psutil
import pytest

from local.console import Console
from local.settings import Settings, SettingsError, load_settings
from local.suite import restarts
from local.suite.processes import ProcessSpec
from local.suite.state import ProcessState, State, write_state
from local.suite.supervisor import StartError, Supervisor, last_lines

WORKER = (
    "import signal, sys, time\n"
    # A worker drains for a moment, and ends by itself when the tests were killed.
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('drained', flush=True), sys.exit(0)))\n"
    "print('begun', flush=True)\n"
    "time.sleep(60)"  # ends by itself when the tests were killed
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(environment={"CONCERTO_HOME": str(tmp_path)}, env_file=None)


class Suite:
    """Processes under a real supervisor, recorded as `concerto up` records them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ready = True
        self.most_away = 0
        self.names: list[str] = []
        self.supervisor = Supervisor(home / "logs", Console(io.StringIO()), self.record)

    def record(self) -> None:
        me = psutil.Process()
        states = self.supervisor.states()
        if self.names:
            self.most_away = max(self.most_away, len(self.names) - sum(state.ready for state in states.values()))
        state = State(
            ready=self.ready, base_port=1, address="", pid=me.pid, create_time=me.create_time(), processes=states
        )
        write_state(self.home, state)

    async def start(self, *names: str) -> None:
        for name in names:
            log = self.home / "logs" / f"{name}.log"

            async def is_ready(log: Path = log) -> bool:
                lines = last_lines(log, 100)
                return lines.count("begun") > lines.count("drained")

            worker = self.home / f"{name}.py"
            worker.write_text(WORKER)
            command = [sys.executable, str(worker)]
            spec = ProcessSpec(name, command, {}, port=0, is_ready=is_ready, folder=self.home)
            await self.supervisor.start(spec)
        self.names = list(names)
        self.most_away = 0


def state_of(*names: str) -> State:
    recorded = ProcessState(pid=1, create_time=0, port=1)
    return State(base_port=1, address="", pid=1, create_time=0, processes=dict.fromkeys(names, recorded))


async def test_replicas_are_replaced_one_at_a_time_and_each_ends_in_order(tmp_path: Path, settings: Settings) -> None:
    suite = Suite(tmp_path)
    await suite.start("postgres", "auth", "auth-2", "gateway")
    before = suite.supervisor.states()
    printed = io.StringIO()
    await asyncio.to_thread(restarts.run, settings, None, Console(printed))
    after = suite.supervisor.states()
    assert [name for name in after if after[name].pid != before[name].pid] == ["auth", "auth-2", "gateway"]
    assert all(state.ready for state in after.values())
    assert suite.most_away == 1
    for name in ("auth", "auth-2", "gateway"):
        assert (tmp_path / "logs" / f"{name}.log").read_text().split() == ["begun", "drained", "begun"]
    assert [line.split()[0] for line in printed.getvalue().splitlines() if "replaced" in line] == [
        "auth",
        "auth-2",
        "gateway",
    ]
    assert "gateway: no replica takes over" in printed.getvalue()
    await suite.supervisor.stop()


async def test_a_successor_that_does_not_become_ready_stops_the_rest(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = Suite(tmp_path)
    await suite.start("auth", "auth-2")
    before = suite.supervisor.states()
    monkeypatch.setattr(restarts, "READY_SECONDS", -settings.stop_seconds + 1.0)
    (tmp_path / "auth.py").write_text("raise SystemExit(3)")
    with pytest.raises(StartError, match="auth is not ready again after 1 s; what was to follow was left alone"):
        await asyncio.to_thread(restarts.run, settings, "auth", Console(io.StringIO()))
    assert suite.supervisor.states()["auth-2"] == before["auth-2"]
    await suite.supervisor.stop()


@pytest.mark.parametrize(
    ("running", "name", "chosen"),
    [
        (("postgres", "supabase", "auth", "auth-2", "gateway"), None, ["auth", "auth-2", "gateway"]),
        (("postgres", "auth", "auth-2", "gateway"), "auth", ["auth", "auth-2"]),
        (("postgres", "auth", "auth-2"), "auth-2", ["auth-2"]),
        (("postgres", "auth", "auth-2"), "auth-1", ["auth"]),
        (("postgres", "supabase", "concerto"), None, ["concerto"]),
        (("postgres", "supabase", "concerto"), "sessions", ["concerto"]),
    ],
)
def test_a_name_means_a_part_with_its_replicas_or_one_process(
    running: tuple[str, ...], name: str | None, chosen: list[str]
) -> None:
    assert restarts.choose(state_of(*running), name) == chosen


@pytest.mark.parametrize("name", ["postgres", "sesions", "auth-3"])
def test_what_is_not_ours_or_not_there_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"no process named {name} to restart\. Choose from auth, auth-2\."):
        restarts.choose(state_of("postgres", "auth", "auth-2"), name)


def test_a_suite_that_does_not_run_or_is_not_ready_is_not_touched(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(StartError, match="does not run"):
        restarts.run(settings, None, Console(io.StringIO()))
    suite = Suite(tmp_path)
    suite.ready = False
    suite.record()
    with pytest.raises(StartError, match="starting or stopping"):
        restarts.run(settings, None, Console(io.StringIO()))
