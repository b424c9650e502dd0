import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from local.settings import ROOT
from tests.support.suites import RunningStack, free_base_port, stack_environment, start_stack, stop_stack
from tests.support.waiting import until

ONLY = "postgres,supabase"
PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def small(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only=ONLY)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def login_status(stack: RunningStack) -> int:
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers={"apikey": stack.publishable_key}) as client:
        body = {"email": "nobody@example.com", "password": "wrong password"}
        return (await client.post("/auth/v1/token?grant_type=password", json=body)).status_code


def test_env_prints_what_the_suites_processes_are_told(small: RunningStack) -> None:
    printed = small.command("env", "--admin")
    assert printed.returncode == 0
    lines = [line.removeprefix("export ").partition("=") for line in printed.stdout.splitlines()]
    assert {name: "".join(shlex.split(value)) for name, _, value in lines} == small.env
    usual = small.command("env").stdout
    assert "SUPABASE_DB_URL" in usual
    assert small.secret_key not in usual
    assert small.admin_db_url not in usual


async def test_killed_postgres_is_reported_and_started_again_and_the_host_recovers(small: RunningStack) -> None:
    first, host = small.process("postgres"), small.process("supabase")
    os.kill(first, signal.SIGKILL)
    await until(lambda: "postgres is back" in small.output)
    assert "postgres was ended by SIGKILL; it is started again in 0.2 s." in small.output
    assert small.process("postgres") != first

    async def refuses_a_wrong_password() -> bool:
        return await login_status(small) == httpx.codes.BAD_REQUEST

    await until(refuses_a_wrong_password, "the host to recover")
    assert small.process("supabase") == host


async def test_killed_host_is_reported_and_started_again(small: RunningStack) -> None:
    os.kill(small.process("supabase"), signal.SIGKILL)
    await until(lambda: "supabase is back" in small.output)
    assert "supabase was ended by SIGKILL" in small.output
    assert await login_status(small) == httpx.codes.BAD_REQUEST


async def test_everything_secret_is_readable_by_its_owner_only(small: RunningStack) -> None:
    assert small.home.stat().st_mode & 0o777 in (0o700, 0o711)
    for name in ("secrets.json", "run/state.json", "logs/supabase.log"):
        assert (small.home / name).stat().st_mode & 0o777 == 0o600
    for name in ("postgres", "supabase"):
        command = " ".join(psutil.Process(small.process(name)).cmdline())
        secrets = json.loads((small.home / "secrets.json").read_text()).values()
        assert not [value for value in secrets if value in command]


def test_second_start_on_the_same_folder_names_the_address_of_the_first(small: RunningStack) -> None:
    result = small.command("up", "--only", ONLY)
    assert result.returncode == 1
    assert f"already runs on {small.home}, at {small.supabase_url}" in result.stdout


def test_status_shows_each_process_and_doctor_names_a_misspelt_setting(small: RunningStack) -> None:
    result = small.command("status")
    assert result.returncode == 0
    assert "postgres" in result.stdout
    assert "reachable, all migrations applied" in small.command("doctor").stdout


def test_a_second_start_in_the_background_leaves_the_log_of_the_first_alone(small: RunningStack) -> None:
    log = small.home / "logs" / "up.log"
    log.write_text("what the first one said")
    second = small.command("up", "--detach", "--only", ONLY)
    assert second.returncode == 1
    assert f"Concerto already runs on {small.home}" in second.stdout
    assert log.read_text() == "what the first one said"


async def test_migration_role_is_no_superuser_and_the_login_role_may_only_switch(small: RunningStack) -> None:
    connection = await asyncpg.connect(small.migration_db_url)
    row = await connection.fetchrow("select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = user")
    await connection.close()
    assert tuple(row) == (False, True, True)
    login = await asyncpg.connect(small.db_url)
    inherits = await login.fetchval("select rolinherit or rolsuper or rolbypassrls from pg_roles where rolname = user")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await login.execute("set role service_role")
    await login.close()
    assert inherits is False


def test_taken_port_is_named_with_its_owner_before_anything_starts(tmp_path: Path, small: RunningStack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        home = tmp_path / "home"
        result = subprocess.run(
            [sys.executable, "-m", "local.cli", "up", "--only", ONLY],
            cwd=ROOT,
            env=stack_environment(home, port - 2),
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert f"Port {port} (postgres) is taken by" in result.stdout
    assert f"process {os.getpid()}" in result.stdout
    assert "CONCERTO_PORT=" in result.stdout
    assert not (home / "postgres").exists()


async def test_data_and_keys_survive_a_stop_and_a_killed_supervisor(tmp_path: Path) -> None:
    running = start_stack(tmp_path, only=ONLY)
    children = [psutil.Process(running.process(name)) for name in ("postgres", "supabase")]
    connection = await asyncpg.connect(running.migration_db_url)
    await connection.execute("create table public.kept (note text); insert into public.kept values ('still here')")
    await connection.close()
    running.supervisor.kill()
    running.supervisor.wait()
    assert all(is_alive(child) for child in children)

    again = start_stack(tmp_path, only=ONLY, port=running.base_port)
    try:
        assert "Ended what an interrupted run had left: supabase, postgres." in again.output
        assert not any(is_alive(child) for child in children)
        assert again.publishable_key == running.publishable_key
        connection = await asyncpg.connect(again.migration_db_url)
        assert await connection.fetchval("select note from public.kept") == "still here"
        await connection.close()
    finally:
        assert stop_stack(again) == 0
    assert not psutil.pid_exists(again.supervisor.pid)
    assert again.state() == {}
    assert "Stopped." in again.output


def test_down_stops_a_suite_in_the_background(tmp_path: Path) -> None:
    running = start_stack(tmp_path, only=ONLY)
    pids = [running.process(name) for name in ("postgres", "supabase")]
    assert running.command("down").returncode == 0
    assert running.supervisor.wait(timeout=60) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "does not run" in running.command("down").stdout


def test_a_terminal_that_is_closed_stops_everything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "local.cli", "up", "--only", "postgres"],
        cwd=ROOT,
        env=stack_environment(home, free_base_port()),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert any("Ctrl-C" in line for line in supervisor.stdout)
    postgres = json.loads((home / "run" / "state.json").read_text())["processes"]["postgres"]["pid"]
    supervisor.stdout.close()
    supervisor.send_signal(signal.SIGHUP)
    supervisor.wait(timeout=30)
    assert not psutil.pid_exists(postgres)
    assert not (home / "run" / "state.json").exists()


@pytest.mark.parametrize("arguments", [("up",), ("up", "--detach"), ("migrate",)])
def test_a_data_folder_that_cannot_be_made_is_refused_in_words(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, "-m", "local.cli", *arguments],
        cwd=ROOT,
        env=stack_environment(tmp_path / "file" / "home", free_base_port()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Set CONCERTO_HOME to a folder of your own." in result.stderr
