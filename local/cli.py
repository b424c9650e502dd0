"""The `concerto` command: up, down, restart, status, doctor, migrate, sign-up, backup, restore and what they need."""

import asyncio
import contextlib
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psutil
import typer

from local import help_pages
from local.backup.faults import BackupError, StoppedError
from local.console import Console, human_bytes
from local.embedded import mailbox
from local.embedded.credentials import ensure_credentials, read_credentials
from local.embedded.postgres import Postgres
from local.files import make_private_folder, write_private
from local.settings import MOST_REPLICAS, ROOT, Settings, SettingsError, load_settings
from local.sign_up import commands as sign_up
from local.suite import stack
from local.suite.processes import EMBEDDED, NAMES, PARTS, WHOLE, Mode, node_program, part_of, suite_variables
from local.suite.state import end_orphans, read_state, supervisor_lock
from local.suite.supervisor import last_lines
from local.target import TargetName, TargetOption

# A command imports what it alone needs: `up` stays, and would keep all of it in memory.
if TYPE_CHECKING:
    from local.hosted.migrate import Ask

app = typer.Typer(cls=help_pages.Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(sign_up.app, name="sign-up")
DOWN_SECONDS = 60
DETACH_SECONDS = 120
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells know it."""

PortOption = Annotated[int | None, typer.Option("--port", help="The gateway's port; the others follow it.")]


def main() -> None:
    """The entry point; a known fault is one message and exit code 1."""
    try:
        app(prog_name="concerto")
    except (*stack.FAULTS, BackupError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(INTERRUPTED if isinstance(error, StoppedError) else 1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"concerto {metadata.version('concerto')}")
        raise typer.Exit


@app.callback(help="Runs Concerto on this machine.")
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def _settings(port: int | None = None) -> Settings:
    settings = load_settings()
    if port is not None:
        return settings.with_port(port)
    if "CONCERTO_PORT" not in settings.variables:
        state = read_state(settings.home)
        if state is not None and state.supervisor is not None:
            return settings.with_port(state.base_port)
    return settings


@app.command()
def up(
    port: PortOption = None,
    only: Annotated[
        str | None,
        typer.Option(
            help=f"Only these, comma-separated: {', '.join((*NAMES, WHOLE))}. A part without the others is a "
            "process of its own."
        ),
    ] = None,
    processes: Annotated[
        bool, typer.Option("--processes/--one-process", help="A process for each of our parts, or one for all.")
    ] = False,
    replicas: Annotated[
        int, typer.Option(help=f"Processes of each of our parts, 1 to {MOST_REPLICAS}; with --processes.")
    ] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready and go on in the background.")] = False,
    migrations: Annotated[
        bool,
        typer.Option(
            "--migrate/--no-migrate", help="Apply pending migrations, or leave a database as a new project has it."
        ),
    ] = True,
) -> None:
    """Start the suite and stay until Ctrl-C."""
    settings = load_settings().with_port(port)
    console = Console()
    mode: Mode = "processes" if processes else "one-process"
    stack.check_replicas(settings, replicas, mode)
    if detach:
        raise typer.Exit(_detach(settings, only, mode, replicas, console, migrations=migrations))
    console.line(f"Starting Concerto in {settings.home}")
    plan = stack.Plan(stack.plan_names(settings, only, mode), ROOT, replicas=replicas, migrate=migrations)
    raise typer.Exit(stack.run(settings, plan, console))


@app.command()
def serve() -> None:
    """Run the gateway and all services in this one process, with the settings of the environment; no Supabase."""
    # Imported here: no other command needs the services, which take a second to load.
    from local.suite.serve import main as serve_all

    serve_all()


def _detach(
    settings: Settings, only: str | None, mode: Mode, replicas: int, console: Console, *, migrations: bool
) -> int:
    stack.open_home(settings.home)
    running = read_state(settings.home)
    if running is not None and running.supervisor is not None:
        # Told here, as the log below is the one that the running suite writes to.
        console.problem(stack.already_running(settings.home))
        return 1
    make_private_folder(settings.home / "logs")
    log = settings.home / "logs" / "up.log"
    command = [sys.executable, "-I", "-X", "utf8", "-m", "local.cli", "up", f"--{mode}", "--port", str(settings.port)]
    command += ["--replicas", str(replicas)]
    if only:
        command += ["--only", only]
    if not migrations:
        command += ["--no-migrate"]
    write_private(log, "")
    with log.open("a") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
        )
    deadline = time.monotonic() + DETACH_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            console.line("\n".join(last_lines(log, 40)))
            return process.returncode or 1
        state = read_state(settings.home)
        if state is not None and state.ready and state.pid == process.pid:
            console.line(f"Concerto runs at {state.address} (process {state.pid}). Stop it with `concerto down`.")
            return 0
        time.sleep(0.1)
    console.problem(f"Concerto is not ready after {DETACH_SECONDS} s. See {log}.")
    return 1


@app.command()
def down() -> None:
    """Stop the suite of this data folder, however it was started."""
    settings = load_settings()
    state = read_state(settings.home)
    supervisor = state.supervisor if state else None
    if state is not None and supervisor is not None:
        supervisor.terminate()
        deadline = time.monotonic() + DOWN_SECONDS
        while state.supervisor is not None:
            if time.monotonic() > deadline:
                typer.echo(f"Process {supervisor.pid} does not stop. See {settings.home / 'logs'}.", err=True)
                raise typer.Exit(1)
            time.sleep(0.05)
        typer.echo("Concerto has stopped.")
        return
    with supervisor_lock(settings.home) as is_acquired:
        ended = end_orphans(settings.home) if is_acquired else []
    typer.echo(f"Ended what was left: {', '.join(ended)}." if ended else "Concerto does not run.")


@app.command()
def restart(
    name: Annotated[
        str | None, typer.Argument(help="A part, or one process of it as `status` names it; without it, all of ours.")
    ] = None,
) -> None:
    """Replace our processes one at a time: each ends what it was doing, and the new one is ready, before the next."""
    from local.suite import restarts

    restarts.run(load_settings(), name, Console())


@app.command()
def status() -> None:
    """Show what runs. Exit code 1 when something does not."""
    settings = load_settings()
    state = read_state(settings.home)
    if state is None or state.supervisor is None:
        left = [name for name, recorded in state.processes.items() if recorded.find()] if state else []
        typer.echo("Concerto does not run. Start it with `make up`.")
        if left:
            typer.echo(f"Left over from a killed run: {', '.join(left)}. End them with `concerto down`.")
        raise typer.Exit(1)
    typer.echo(f"{state.address}  {'ready' if state.ready else 'starting'}  (process {state.pid})")
    complete = state.ready
    for name, recorded in state.processes.items():
        process = recorded.find()
        complete = complete and process is not None
        starting = "" if recorded.ready or process is None else ", starting"
        typer.echo(f"  {name:<14} {f'127.0.0.1:{recorded.port}':<16} {_describe(process)}{starting}")
    raise typer.Exit(0 if complete else 1)


def _describe(process: psutil.Process | None) -> str:
    if process is None:
        return "not running"
    with contextlib.suppress(psutil.Error):
        since = datetime.fromtimestamp(process.create_time(), UTC)
        minutes = int((datetime.now(UTC) - since).total_seconds() // 60)
        memory = process.memory_info().rss // (1024 * 1024)
        return f"process {process.pid}, {memory} MB, for {minutes} min"
    return "not running"


@app.command()
def doctor(target: TargetOption = TargetName.EMBEDDED) -> None:
    """Check this machine and the settings, or a hosted project, and say what to do. Exit code 1 if all is not well."""
    # Imported here: it reads every part's settings with the part's own code, which `up` would keep in memory.
    if target is TargetName.HOSTED:
        from local.hosted.doctor import run as run_checks
    else:
        from local.doctor import run as run_checks

    raise typer.Exit(asyncio.run(run_checks(Console())))


@app.command()
def migrate(
    target: TargetOption = TargetName.EMBEDDED,
    seed: Annotated[bool, typer.Option("--seed", help="Also run supabase/seed.sql (embedded).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be applied (hosted).")] = False,
    undo: Annotated[
        int | None, typer.Option("--undo", min=1, metavar="N", help="Undo the last N instead, by supabase/rollbacks.")
    ] = None,
    include_all: Annotated[
        bool, typer.Option("--include-all", help="Also apply what is older than an applied one (hosted).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Apply the migrations to the embedded database, running or not, or to a hosted project; or undo some."""
    ask = None if yes else _ask
    if target is TargetName.EMBEDDED:
        if dry_run or include_all:
            raise SettingsError("--dry-run and --include-all belong to --target hosted.")
        raise typer.Exit(_migrate_embedded(seed=seed, undo=undo, ask=ask))
    if seed or (undo is not None and (dry_run or include_all)):
        raise SettingsError("--seed is for the embedded database, and --undo goes without --dry-run and --include-all.")
    from local.hosted import migrate as hosted

    settings, console = load_settings(), Console()
    if undo is not None:
        asyncio.run(hosted.undo_hosted(settings, ROOT, console, count=undo, ask=ask))
        return
    asyncio.run(
        hosted.migrate(settings, ROOT, console, node=node_program(), ask=ask, dry_run=dry_run, include_late=include_all)
    )


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise SettingsError("Nobody can be asked here. Say --yes to do it without a question.")
    return typer.confirm(question)


def _migrate_embedded(*, seed: bool, undo: int | None, ask: "Ask | None") -> int:
    settings, console = _settings(), Console()
    if settings.is_hosted:
        raise SettingsError("SUPABASE_URL names a project of your own: concerto migrate --target hosted")
    state = read_state(settings.home)
    if state is not None and state.supervisor is not None and "postgres" in state.processes:
        postgres = Postgres(settings.home, state.processes["postgres"].port, read_credentials(settings.home))
        if undo is not None:
            from local.hosted.migrate import undo_embedded

            asyncio.run(undo_embedded(ROOT, postgres, console, count=undo, ask=ask))
            stack.notify_schema_changed(state)
            return 0
        asyncio.run(stack.migrate_running(settings, ROOT, postgres, state, seed=seed, console=console))
        console.line("The database is up to date.")
        return 0
    if undo is not None:
        raise SettingsError("The database does not run. Start it: concerto up --only postgres,supabase --detach")
    code = stack.run(settings, stack.Plan(EMBEDDED, ROOT, in_foreground=False, seed=seed), console)
    if code == 0:
        console.line("The database is up to date.")
    return code


@app.command()
def backup(
    file: Annotated[
        Path | None, typer.Argument(help="The file to write, or its folder; without it, beside the data folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also keep the keys, so that access tokens stay valid elsewhere.")
    ] = False,
) -> None:
    """Write the embedded database and the stored files into one file, whether the suite runs or not."""
    from local.backup import create as backups
    from local.backup import restore as restores
    from local.embedded.temporary import run_stoppable

    settings, console = load_settings(), Console()
    backups.refuse_hosted(settings)
    target = backups.target_of(settings, file, force=force)
    console.line(f"Backing up {settings.home}")
    work = backups.back_up(settings, target, force=force, with_secrets=with_secrets, console=console)
    manifest = run_stoppable(work)
    for line in (*restores.list_tables(manifest), *restores.describe(manifest)):
        console.line(line)
    for name in manifest.missing[:10]:
        console.problem(f"Stored file without content: {name}")
    console.line(f"Written  {target} ({human_bytes(target.stat().st_size)})")
    console.line("It holds people's messages and ways to sign in: keep it where nobody else can read it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `concerto backup` has written.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before replacing the present data.")] = False,
) -> None:
    """Put the content of a backup in the place of the present data, which is kept. The suite must be stopped."""
    from local.backup import restore as restores
    from local.backup.create import refuse_hosted
    from local.embedded.temporary import run_stoppable

    settings, console = load_settings(), Console()
    refuse_hosted(settings)
    state = read_state(settings.home)
    if state is not None and state.supervisor is not None:
        raise BackupError(stack.already_running(settings.home))
    found = run_stoppable(restores.open_backup(settings, file.expanduser().absolute(), console))
    for line in restores.describe(found.manifest):
        console.line(line)
    if (settings.home / "postgres").exists() and not yes:
        if not sys.stdin.isatty():
            raise BackupError(
                f"{settings.home} holds data. Add --yes to replace it; the present data is kept beside it."
            )
        typer.confirm(f"Replace what is in {settings.home}? The present data is kept beside it.", abort=True)
    stack.open_home(settings.home)
    with supervisor_lock(settings.home) as is_acquired:
        if not is_acquired:
            raise BackupError(stack.already_running(settings.home))
        end_orphans(settings.home)
        kept = run_stoppable(restores.restore(settings, found, console))
    for line in restores.list_tables(found.manifest):
        console.line(line)
    console.line("Every table, stored file, policy and right is as it was backed up. Start with `concerto up`.")
    if kept is not None:
        console.line(f"The data of before is in {kept}. Look at it with CONCERTO_HOME={kept}; when you no longer need")
        console.line(f"it, delete it: rm -r {shlex.quote(str(kept))}")


@app.command()
def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join((*NAMES, WHOLE))}, or a replica as `status` names it; without it, all."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing what is written.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Show the end of the processes' logs."""
    settings = load_settings()
    running = read_state(settings.home)
    if name in PARTS and running is not None and WHOLE in running.processes:
        name = WHOLE  # the part's own entries carry its name as `service`
    names = [name] if name else [*NAMES, WHOLE]
    if running is not None and running.supervisor is not None:
        # Without a name those that run: a log of the other mode is an old one. A part's name means all its replicas.
        names = [each for each in running.processes if not name or part_of(each) == name] or names
    files = {each: settings.home / "logs" / f"{each}.log" for each in names}
    present = {each: file for each, file in files.items() if file.exists()}
    if not present:
        typer.echo(f"There is no log of {name or 'anything'} in {settings.home / 'logs'} yet.", err=True)
        raise typer.Exit(1)
    for each, file in present.items():
        for line in last_lines(file, lines):
            typer.echo(f"{each:<14} {line}" if len(names) > 1 else line)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(present, prefix=len(names) > 1)


def _follow(files: dict[str, Path], *, prefix: bool) -> None:
    positions = {name: file.stat().st_size for name, file in files.items()}
    while True:
        for name, file in files.items():
            size = file.stat().st_size if file.exists() else 0
            if size < positions[name]:
                positions[name] = 0  # started anew
            if size > positions[name]:
                with file.open(errors="replace") as stream:
                    stream.seek(positions[name])
                    text = stream.read()
                    positions[name] = stream.tell()
                for line in text.splitlines():
                    typer.echo(f"{name:<14} {line}" if prefix else line)
        time.sleep(0.3)


@app.command()
def mail(
    number: Annotated[int | None, typer.Argument(help="The number of an e-mail in the list.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Show the newest one.")] = False,
) -> None:
    """List the e-mails that were kept instead of sent, or show one with its link and code."""
    settings = load_settings()
    mails = mailbox.read_mails(settings.home)
    if not mails:
        typer.echo("There are no e-mails.")
        raise typer.Exit(1 if last or number else 0)
    if last:
        number = len(mails)
    if number is None:
        for position, each in enumerate(mails, start=1):
            typer.echo(f"{position:>3}  {each.sent_at:%Y-%m-%d %H:%M:%S}  {each.to:<32}  {each.subject}")
        return
    if not 1 <= number <= len(mails):
        typer.echo(f"There are {len(mails)} e-mails; choose a number from 1 to {len(mails)}.", err=True)
        raise typer.Exit(1)
    typer.echo(mails[number - 1].describe())


@app.command()
def env(
    admin: Annotated[bool, typer.Option("--admin", help="Also the addresses for superuser and migrations.")] = False,
) -> None:
    """Print `export` lines with which one process can be started by hand: eval "$(concerto env)"."""
    for name, value in sorted(exported_variables(_settings(), admin=admin).items()):
        typer.echo(f"export {name}={shlex.quote(value)}")


def exported_variables(settings: Settings, *, admin: bool) -> dict[str, str]:
    """Return what `concerto env` prints, by name. admin: with the addresses for superuser and migrations."""
    credentials = ensure_credentials(settings.home, settings.chosen_credentials)
    postgres = Postgres(settings.home, settings.port_of("postgres"), credentials)
    running = read_state(settings.home)
    replicas = running.replicas if running is not None and running.supervisor is not None else 1
    values = suite_variables(settings, credentials, postgres, replicas=replicas)
    values |= {"CONCERTO_HOME": str(settings.home), "CONCERTO_PORT": str(settings.port)}
    if admin and not settings.is_hosted:
        values |= {"SUPABASE_ADMIN_DB_URL": postgres.admin_url, "SUPABASE_MIGRATION_DB_URL": postgres.migration_url}
        values |= {"SUPABASE_SECRET_KEY": credentials.secret_key}
    return values


if __name__ == "__main__":
    main()
