"""`concerto up` from beginning to end: checks, starts in the right order, waits, and stops everything again."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from local.backup.swap import finish_exchange
from local.console import Console
from local.embedded.credentials import Credentials, CredentialsError, ensure_credentials
from local.embedded.postgres import LOGIN_ROLE, Postgres, PostgresError
from local.files import make_private_folder
from local.migrations.apply import apply_migrations, apply_seed, pending_versions, set_role_passwords, take_over
from local.migrations.limits import set_limits
from local.migrations.supabase_cli import MigrationError
from local.settings import MOST_REPLICAS, PORT_NAMES, Settings, SettingsError
from local.setup.bootstrap import can_write
from local.sign_up.warning import pays_for_answers, rule_at, warning_of
from local.suite.model import ModelCheck
from local.suite.ports import describe_taken, free_base, listen
from local.suite.processes import (
    EMBEDDED,
    NAMES,
    ONE_PROCESS_NAMES,
    PARTS,
    WHOLE,
    Mode,
    ProcessSpec,
    node_program,
    ports_of,
    postgres_spec,
    service_environment,
    service_specs,
    suite_variables,
    supabase_spec,
)
from local.suite.state import State, clear_state, end_orphans, read_state, supervisor_lock, write_state
from local.suite.supervisor import StartError, Supervisor
from servicekit.outgoing.settings import Outgoing

CONNECT_SECONDS = 10.0
CONNECT_POLL_SECONDS = 0.05
FAULTS = (SettingsError, CredentialsError, PostgresError, MigrationError, StartError, OSError, asyncpg.PostgresError)
"""What may go wrong at a start and is told in one message, without a traceback."""


@dataclass(frozen=True)
class Plan:
    """What a start is for: the processes, and whether to stay after everything is ready.

    replicas: processes of each of our parts among `names`. migrate: False leaves the database as it is, as empty as a
    hosted project that was just created.
    """

    names: tuple[str, ...]
    project: Path
    in_foreground: bool = True
    seed: bool = False
    replicas: int = 1
    migrate: bool = True


def plan_names(settings: Settings, only: str | None, mode: Mode = "one-process") -> tuple[str, ...]:
    """The processes to start, in order. Raises SettingsError for an unknown name.

    Where `only` names some of our parts and not all, each of them is a process of its own, whatever the mode: the
    others are run by hand then.
    """
    everything = NAMES if mode == "processes" else ONE_PROCESS_NAMES
    wanted = {name.strip() for name in only.split(",")} if only else set(everything)
    unknown = sorted(wanted.difference(NAMES, ONE_PROCESS_NAMES))
    if unknown:
        raise SettingsError(f"There is no process named {unknown[0]}. Choose from {', '.join((*NAMES, WHOLE))}.")
    if mode == "processes" and WHOLE in wanted:
        wanted = wanted.union(PARTS) - {WHOLE}
    elif mode == "one-process" and (WHOLE in wanted or wanted.issuperset(PARTS)):
        wanted = wanted.difference(PARTS) | {WHOLE}
    if "supabase" in wanted:
        wanted.add("postgres")
    if settings.is_hosted:
        wanted.difference_update(EMBEDDED)
    return tuple(name for name in (*NAMES, WHOLE) if name in wanted)


def check_replicas(settings: Settings, replicas: int, mode: Mode) -> None:
    """Raise SettingsError where there cannot be so many processes of each part."""
    if not 1 <= replicas <= MOST_REPLICAS:
        raise SettingsError(f"There can be 1 to {MOST_REPLICAS} replicas of each part, not {replicas}.")
    if replicas > 1 and mode != "processes":
        raise SettingsError("Replicas are processes of their own: add --processes.")
    last = settings.port + len(PORT_NAMES) * replicas
    if last > 65535:
        raise SettingsError(f"{replicas} replicas need ports up to {last}. Set CONCERTO_PORT to a lower one.")


def run(settings: Settings, plan: Plan, console: Console) -> int:
    """Start, stay until a signal comes, stop. Returns the exit code."""
    open_home(settings.home)
    with supervisor_lock(settings.home) as is_acquired:
        if not is_acquired:
            console.problem(already_running(settings.home))
            return 1
        if finish_exchange(settings.home):
            console.line("  Finished the restore that was interrupted.")
        return asyncio.run(Stack(settings, plan, console).run())


def open_home(home: Path) -> None:
    """Make the data folder when it is new. Raises SettingsError where this user cannot write."""
    if not can_write(home):
        raise SettingsError(f"{home} cannot be written. Set CONCERTO_HOME to a folder of your own.")
    make_private_folder(home)


def already_running(home: Path) -> str:
    """Say who has the data folder, and what to do."""
    state = read_state(home)
    if state is None or state.supervisor is None:
        return f"Another `concerto` is starting or stopping on {home}. Wait a moment and try again."
    return (
        f"Concerto already runs on {home}, at {state.address} (process {state.pid}).\n"
        "Stop it with `concerto down`, or start a second copy with its own CONCERTO_HOME and CONCERTO_PORT."
    )


class Stack:
    """One run of the suite on one data folder."""

    def __init__(self, settings: Settings, plan: Plan, console: Console) -> None:
        self._settings = settings
        self._plan = plan
        self._console = console
        self._ready = False
        self._supervisor = Supervisor(settings.home / "logs", console, self._record, stop_seconds=settings.stop_seconds)
        self._shared: socket.socket | None = None
        self._admits: str | None = None
        self._model: ModelCheck | None = None
        self._signals = 0
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Start everything, wait for the end, stop everything. Returns the exit code."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        code = 0
        try:
            starting = asyncio.create_task(self._start())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
            else:
                await starting
                self._ready = True
                self._record()
                if self._plan.in_foreground:
                    await self._welcome(time.monotonic() - started, stopping)
                    await stopping
            stopping.cancel()
        except FAULTS as error:
            self._console.problem(str(error) or type(error).__name__)
            code = 1
        finally:
            is_interactive = self._plan.in_foreground and bool(self._supervisor.states())
            if is_interactive:
                self._console.line("Stopping. Press Ctrl-C again to hurry.")
            self._ready = False
            if self._model is not None:
                await self._model.close()
            await self._supervisor.stop()
            if self._shared is not None:
                self._shared.close()
            clear_state(self._settings.home)
            if is_interactive:
                self._console.line("Stopped.")
        return code

    def _on_signal(self) -> None:
        self._signals += 1
        if self._stop.is_set():
            self._supervisor.stop_quickly()
        self._stop.set()

    def _record(self) -> None:
        settings = self._settings
        me = psutil.Process()
        state = State(
            ready=self._ready,
            base_port=settings.port,
            address=settings.gateway_url if _has_gateway(self._plan) else settings.embedded_url,
            pid=me.pid,
            create_time=me.create_time(),
            replicas=self._plan.replicas,
            processes=self._supervisor.states(),
        )
        write_state(settings.home, state)

    def _check_ports(self) -> None:
        replicas = self._plan.replicas
        taken = {*self._plan.names, *(PARTS if WHOLE in self._plan.names else ())}
        ports = ports_of(self._settings, [name for name in PORT_NAMES if name in taken], replicas)
        if replicas > 1 and "gateway" in taken:
            ports["the gateways' address"] = self._settings.port
        problems = describe_taken(self._settings, ports)
        if not problems:
            return
        base = free_base(self._settings, len(PORT_NAMES) * replicas + (replicas > 1))
        noun = "that process" if len(problems) == 1 else "those processes"
        advice = f"End {noun}, or use other ports: CONCERTO_PORT={base or 'PORT'} make up"
        raise SettingsError("\n".join([*problems, advice]))

    async def _start(self) -> None:
        settings, names, console = self._settings, self._plan.names, self._console
        orphans = await asyncio.to_thread(end_orphans, settings.home)
        if orphans:
            console.line(f"  Ended what an interrupted run had left: {', '.join(orphans)}.")
        self._check_ports()
        credentials = ensure_credentials(settings.home, settings.chosen_credentials)
        self._record()
        if settings.is_hosted:
            if "SUPABASE_PUBLISHABLE_KEY" not in settings.variables:
                raise SettingsError("SUPABASE_URL is set, SUPABASE_PUBLISHABLE_KEY is not. Set it, or unset both.")
            console.line(f"  Using the Supabase project at {settings.supabase_url}.")
            await self._start_services(credentials, None)
            return
        postgres = Postgres(settings.home, settings.port_of("postgres"), credentials, settings.embedded_host)
        if "postgres" in names:
            await self._start_embedded(credentials, postgres)
        else:
            await self._start_services(credentials, postgres)

    async def _start_embedded(self, credentials: Credentials, postgres: Postgres) -> None:
        console = self._console
        if not (postgres.data / "PG_VERSION").exists():
            with console.step("database created"):
                await asyncio.to_thread(postgres.initialise)
        else:
            await asyncio.to_thread(postgres.initialise)
        with console.step("postgres"):
            await self._supervisor.start(postgres_spec(postgres))
        supabase = "supabase" in self._plan.names
        if await _is_set_up(postgres, self._plan.project):
            await set_role_passwords(postgres)
            await set_limits(postgres.admin_url, self._settings)
            await _all(
                self._start_supabase(credentials, postgres) if supabase else _nothing(),
                self._start_services(credentials, postgres),
            )
        else:
            if supabase:
                await self._start_supabase(credentials, postgres)
                await (self._migrate(postgres) if self._plan.migrate else set_role_passwords(postgres))
            await self._start_services(credentials, postgres)
        if pays_for_answers(self._settings):
            self._admits = await rule_at(postgres.admin_url)
        if self._plan.seed:
            with console.step("seed"):
                await apply_seed(self._plan.project, postgres)

    async def _start_supabase(self, credentials: Credentials, postgres: Postgres) -> None:
        with self._console.step("supabase (auth, REST, storage)"):
            await self._supervisor.start(supabase_spec(self._settings, credentials, postgres))

    async def _migrate(self, postgres: Postgres) -> None:
        await set_role_passwords(postgres)
        await take_over(postgres.migration_url)
        pending = await pending_versions(self._plan.project, postgres.admin_url)
        if pending:
            with self._console.step(f"{len(pending)} migration{'s' if len(pending) > 1 else ''}"):
                await apply_migrations(self._plan.project, postgres, node=node_program())
            await set_role_passwords(postgres)
            self._supervisor.signal("supabase", signal.SIGHUP)
        await set_limits(postgres.admin_url, self._settings)

    async def _start_services(self, credentials: Credentials, postgres: Postgres | None) -> None:
        names = [name for name in self._plan.names if name not in EMBEDDED]
        replicas = self._plan.replicas
        suite = suite_variables(self._settings, credentials, postgres, replicas=replicas)
        if replicas > 1 and "gateway" in names:
            # Held here, so that whoever connects while a gateway is replaced is served by the next one.
            self._shared = listen(self._settings.port, self._settings.gateway_host)

        async def start(position: int) -> None:
            spec = specs[position]
            with self._console.step(spec.name):
                await self._supervisor.start(spec)

        specs = service_specs(self._settings, suite, names, replicas=replicas, shared=self._shared)
        if self._plan.in_foreground and _has_gateway(self._plan):
            self._model = ModelCheck.begin(service_environment("orchestrator", self._settings, suite))
        await _all(*(start(position) for position in range(len(specs))))
        if set(PARTS) <= set(names):
            await _until_connected(specs)

    async def _welcome(self, seconds: float, stopping: "asyncio.Task[object]") -> None:
        settings = self._settings
        found = await self._model.result(stopping) if self._model is not None else None
        lines = [f"Concerto is ready after {seconds:.1f} s."]
        if _has_gateway(self._plan):
            lines += [f"Address   {settings.gateway_url}", f"API docs  {settings.gateway_url}/docs"]
        if "supabase" in self._plan.names:
            lines.append(f"Supabase  {settings.embedded_url}")
        for problem in Outgoing.read(settings.variables).problems:
            self._console.problem(f"  {problem}")
        if found is not None:
            lines.append(f"Model     {found.detail}")
        warning = warning_of(settings, self._admits)
        if warning:
            lines.append(f"Sign-up   {warning} CONCERTO_SIGN_UP decides.")
        lines += [f"Data      {settings.home}", "Stop      Ctrl-C, or `concerto down` elsewhere"]
        self._console.box(lines)
        if found is not None and found.advice:
            self._console.problem(f"  {found.detail}. {found.advice}")


def _has_gateway(plan: Plan) -> bool:
    return "gateway" in plan.names or WHOLE in plan.names


async def _until_connected(specs: Sequence[ProcessSpec]) -> None:
    """Wait a moment for the processes that looked for others before these listened, and try again by and by."""
    with contextlib.suppress(TimeoutError):  # what is not reached then is told by /readyz and `concerto status`
        async with asyncio.timeout(CONNECT_SECONDS):
            for spec in specs:
                while spec.is_connected is not None and not await spec.is_connected():  # noqa: ASYNC110 (not ours to set)
                    await asyncio.sleep(CONNECT_POLL_SECONDS)


async def _nothing() -> None:
    return


async def _all(*starts: Coroutine[None, None, None]) -> None:
    """Run them side by side; the first fault ends the others, so that nothing is started behind one's back."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _is_set_up(postgres: Postgres, project: Path) -> bool:
    """Whether the database already has Supabase's own schema, every migration, and the services' login role."""
    if await pending_versions(project, postgres.admin_url):
        return False
    connection = await asyncpg.connect(postgres.admin_url, timeout=10)
    try:
        found = await connection.fetchval(
            "select to_regclass('concerto_local.applied') is not null "
            "and exists (select from pg_roles where rolname = $1)",
            LOGIN_ROLE,
        )
    finally:
        await connection.close()
    return bool(found)


async def migrate_running(
    settings: Settings, project: Path, postgres: Postgres, state: State, *, seed: bool, console: Console
) -> None:
    """Apply what is pending to the database of a running suite, and let the REST API see it."""
    await take_over(postgres.migration_url)
    pending = await pending_versions(project, postgres.admin_url)
    if pending:
        with console.step(f"{len(pending)} migration{'s' if len(pending) > 1 else ''}"):
            await apply_migrations(project, postgres, node=node_program())
    await set_role_passwords(postgres)
    await set_limits(postgres.admin_url, settings)
    notify_schema_changed(state)
    if seed:
        with console.step("seed"):
            await apply_seed(project, postgres)


def notify_schema_changed(state: State) -> None:
    """Let the REST API of a running suite read the tables and functions anew."""
    supabase = state.processes.get("supabase")
    process = supabase.find() if supabase else None
    if process is not None:
        process.send_signal(signal.SIGHUP)
