import asyncio
import io
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from local.console import Console
from local.suite.processes import ProcessSpec
from local.suite.supervisor import StartError, Supervisor, last_lines
from tests.support.waiting import until

SLEEPER = (  # ends by itself when the tests were killed
    "import sys, time; print('hello from the process', flush=True); open(sys.argv[1], 'a').write('x'); time.sleep(60)"
)
FAILER = "print('the reason of the failure'); raise SystemExit(3)"


def spec(name: str, code: str, folder: Path, **changes: object) -> ProcessSpec:
    marker = folder / f"{name}.marker"

    async def is_ready() -> bool:
        return marker.exists()

    values: dict[str, object] = {
        "name": name,
        "command": [sys.executable, "-c", code, str(marker)],
        "environment": {},
        "port": 0,
        "is_ready": is_ready,
        "folder": folder,
    }
    return ProcessSpec(**(values | changes))  # type: ignore[arg-type]


def supervise(folder: Path) -> tuple[Supervisor, io.StringIO]:
    printed = io.StringIO()
    return Supervisor(folder / "logs", Console(printed), lambda: None), printed


async def test_crashed_process_is_reported_with_its_log_and_started_again(tmp_path: Path) -> None:
    supervisor, printed = supervise(tmp_path)
    await supervisor.start(spec("worker", SLEEPER, tmp_path))
    first = supervisor.states()["worker"].pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: "worker is back" in printed.getvalue())
    assert "worker was ended by SIGKILL; it is started again in 0.2 s." in printed.getvalue()
    assert "hello from the process" in printed.getvalue()
    assert supervisor.states()["worker"].pid != first
    await supervisor.stop()
    assert supervisor.states() == {}


async def test_each_death_is_told_with_the_id_that_the_dead_process_had(tmp_path: Path) -> None:
    reported: list[str] = []
    code = "import os; print(os.environ['CONCERTO_PROCESS_ID'], flush=True);" + SLEEPER
    supervisor, printed = supervise(tmp_path)
    log = tmp_path / "logs" / "worker.log"

    async def is_ready() -> bool:
        return last_lines(log, 9).count("hello from the process") == len(reported) + 1

    async def on_end(process_id: str) -> None:
        reported.append(process_id)
        raise RuntimeError("nobody listens")

    await supervisor.start(spec("worker", code, tmp_path, on_end=on_end, is_ready=is_ready))
    for deaths in (1, 2):
        pid = supervisor.states()["worker"].pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: _replaced(supervisor, pid))  # type: ignore[misc]
        assert len(reported) == deaths
    await until(lambda: printed.getvalue().count("nobody listens") == 2)
    await supervisor.stop()
    lines = last_lines(log, 9)
    assert [line for line in lines if line in reported] == reported
    assert len(set(lines) - {"hello from the process"}) == 3, "the last one was not reported: it was asked to end"


async def test_a_process_that_is_asked_to_end_is_replaced_without_a_fuss(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('what was in the log', flush=True)\n"
        "open(sys.argv[1], 'a').write('x')\n"
        "time.sleep(60)"  # ends by itself when the tests were killed
    )
    supervisor, printed = supervise(tmp_path)
    marker, asked = tmp_path / "worker.marker", 0

    async def is_ready() -> bool:
        return last_lines(marker, 1) == ["x" * (asked + 1)]  # each successor adds one

    await supervisor.start(spec("worker", code, tmp_path, is_ready=is_ready))
    for asked in (1, 2, 3):  # noqa: B007 (read above)
        before = supervisor.states()["worker"]
        assert before.ready
        os.kill(before.pid, signal.SIGTERM)
        await until(lambda before=before: _replaced(supervisor, before.pid))  # type: ignore[misc]
    assert printed.getvalue().count("worker stopped with exit code 0; it is started again in 0.2 s.") == 3
    assert "what was in the log" not in printed.getvalue()
    await supervisor.stop()


def _replaced(supervisor: Supervisor, pid: int) -> bool:
    found = supervisor.states().get("worker")
    return found is not None and found.ready and found.pid != pid


async def test_a_process_inherits_the_sockets_that_are_meant_for_it(tmp_path: Path) -> None:
    # It ends by itself when the tests were killed.
    code = "import os, sys\nos.fstat(int(sys.argv[2]))\nopen(sys.argv[1], 'a').write('x')\nimport time\ntime.sleep(60)"
    with socket.create_server(("127.0.0.1", 0)) as shared:
        number = shared.fileno()
        command = [sys.executable, "-c", code, str(tmp_path / "worker.marker"), str(number)]
        supervisor, _ = supervise(tmp_path)
        await supervisor.start(spec("worker", "", tmp_path, command=command, inherits=(number,)))
        assert supervisor.states()["worker"].ready
        with pytest.raises(StartError, match="exit code 1"):
            await supervisor.start(spec("other", "", tmp_path, command=[*command[:3], "never", str(number)]))
        await supervisor.stop()


async def test_process_that_fails_at_its_first_start_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor, _ = supervise(tmp_path)
    with pytest.raises(StartError, match=r"(?s)stopped with exit code 3 while starting.*the reason of the failure"):
        await supervisor.start(spec("worker", FAILER, tmp_path))
    await supervisor.stop()


async def test_stopping_ends_the_last_started_first_and_nothing_else(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(pathlib.Path(sys.argv[1]).stem + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(sys.argv[1], 'a').write('x')\n"
        "time.sleep(60)"  # ends by itself when the tests were killed
    )
    # It ends by itself when the tests were killed.
    bystander = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    supervisor, _ = supervise(tmp_path)
    for name in ("one", "two", "three"):
        await supervisor.start(spec(name, code, tmp_path))
    await supervisor.stop()
    assert order.read_text().split() == ["three", "two", "one"]
    assert psutil.Process(bystander.pid).is_running()
    bystander.kill()
    await bystander.wait()


async def test_a_quick_stop_ends_a_process_that_ignores_the_polite_signal(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'a').write('x')\n"
        "time.sleep(60)"  # ends by itself when the tests were killed
    )
    supervisor, _ = supervise(tmp_path)
    await supervisor.start(spec("stubborn", code, tmp_path))
    pid = supervisor.states()["stubborn"].pid
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.2)  # that nothing happens has no event
    assert not stopping.done()
    supervisor.stop_quickly()
    await stopping
    assert not psutil.pid_exists(pid)


async def test_children_are_out_of_reach_of_the_terminals_ctrl_c(tmp_path: Path) -> None:
    supervisor, _ = supervise(tmp_path)
    await supervisor.start(spec("worker", SLEEPER, tmp_path))
    pid = supervisor.states()["worker"].pid
    assert os.getsid(pid) == pid
    await supervisor.stop()


async def test_log_of_the_run_before_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker.log").write_text("from yesterday")
    supervisor, _ = supervise(tmp_path)
    await supervisor.start(spec("worker", SLEEPER, tmp_path))
    await supervisor.stop()
    assert (tmp_path / "logs" / "worker.log.1").read_text() == "from yesterday"
    assert (tmp_path / "logs" / "worker.log").read_text() == "hello from the process\n"
