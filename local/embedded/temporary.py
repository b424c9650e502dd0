"""The embedded Postgres for the length of one command, and how such a command is interrupted."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from local.backup.faults import StoppedError
from local.console import Console
from local.embedded.credentials import Credentials
from local.embedded.postgres import Postgres
from local.settings import PORT_NAMES, Settings, SettingsError
from local.suite.ports import free_base
from local.suite.processes import postgres_spec
from local.suite.supervisor import Supervisor

Result = TypeVar("Result")


def run_stoppable(work: Coroutine[None, None, Result]) -> Result:
    """Run to the end. SIGINT, SIGTERM and SIGHUP let it clean up, once; then StoppedError is raised."""
    asked = False

    async def main() -> Result:
        task = asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal asked
            if not asked:  # a second Ctrl-C must not cut the cleaning up short
                asked = True
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise StoppedError("Stopped. Nothing was changed, and nothing half-written is left.") from None


def on_free_ports(settings: Settings, home: Path) -> Settings:
    """The same settings for a data folder that is open for this command only, beside whatever else runs."""
    base = free_base(settings, len(PORT_NAMES), is_any=True)
    if base is None:
        raise SettingsError("No free ports were found between 8100 and 12000. End something, then try again.")
    return settings.model_copy(update={"home": home, "port": base})


@asynccontextmanager
async def started_postgres(
    settings: Settings, credentials: Credentials, console: Console, *, logs: Path
) -> AsyncIterator[tuple[Postgres, Supervisor]]:
    """Start Postgres on the data folder of these settings, and stop it at the end, whatever happens.

    The caller holds the folder's lock. Further processes may be started with the supervisor; they end with it.
    """
    postgres = Postgres(settings.home, settings.port_of("postgres"), credentials)
    supervisor = Supervisor(logs, console, lambda: None)
    try:
        postgres.initialise()
        await supervisor.start(postgres_spec(postgres))
        yield postgres, supervisor
    finally:
        await supervisor.stop()
