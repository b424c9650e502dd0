import subprocess
import sys
from pathlib import Path

import psutil

from local.suite.state import ProcessState, State, end_orphans, read_state, supervisor_lock, write_state


def sleeper() -> "subprocess.Popen[bytes]":
    # It ends by itself when the tests were killed.
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)


def state_with(process: "subprocess.Popen[bytes]", *, age_seconds: float = 0) -> State:
    created = psutil.Process(process.pid).create_time() - age_seconds
    recorded = ProcessState(pid=process.pid, create_time=created, port=1)
    return State(base_port=1, address="", pid=process.pid, create_time=created, processes={"worker": recorded})


def test_leftover_is_ended_and_forgotten(tmp_path: Path) -> None:
    process = sleeper()
    write_state(tmp_path, state_with(process))
    assert end_orphans(tmp_path) == ["worker"]
    assert process.wait(timeout=60) == -15
    assert read_state(tmp_path) is None


def test_another_program_with_a_recycled_process_id_is_left_alone(tmp_path: Path) -> None:
    process = sleeper()
    write_state(tmp_path, state_with(process, age_seconds=3600))
    assert end_orphans(tmp_path) == []
    assert process.poll() is None
    process.kill()
    process.wait()


def test_damaged_state_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text("{")
    assert read_state(tmp_path) is None


def test_only_one_supervisor_holds_a_data_folder(tmp_path: Path) -> None:
    with supervisor_lock(tmp_path) as first, supervisor_lock(tmp_path) as second:
        assert (first, second) == (True, False)
    with supervisor_lock(tmp_path) as third:
        assert third is True
