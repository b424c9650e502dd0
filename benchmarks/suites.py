"""What is measured: a suite in one of its modes, the references beside it, the model server, and their one database.

One suite runs at a time. The references use its Postgres server, so both sides have the same tables, caches and disk,
and no second server takes a share of the cores. All sides wait for requests meanwhile, which costs next to nothing.
"""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import jwt
import orjson

from benchmarks.measures import Processes
from benchmarks.rows import MeasurementError
from local.settings import ROOT
from local.suite.processes import EMBEDDED, Mode
from tests.support.api import Person
from tests.support.suites import RunningStack, free_base_port, stack_environment, start_stack, stop_stack

MODES: tuple[Mode, ...] = ("processes", "one-process")
REFERENCES = ("monolith", "stream")
MODEL = "test-model"
START_SECONDS = 60
STOP_SECONDS = 10
PATIENCE_SECONDS = 60
SAYS_WHERE = "http://"
T = TypeVar("T")
SENTENCE = "This message says a few words, as people do, and then it ends."


@dataclass
class Program:
    """One of the benchmarks' own processes: a reference, or the model server. It prints its address when it serves."""

    name: str
    process: "subprocess.Popen[bytes]"
    url: str

    @classmethod
    def start(cls, name: str, *command: str, env: Mapping[str, str], log: Path) -> "Program":
        """Start `python -m <command>` and wait for its address. Raises MeasurementError with what it has printed."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = cls(name, process, "")
        deadline = time.monotonic() + START_SECONDS
        while not program.url:
            printed = log.read_text(errors="replace")
            lines = [line for line in printed.splitlines() if line.startswith(SAYS_WHERE)]
            if lines:
                program.url = lines[0].strip()
            elif process.poll() is not None or time.monotonic() > deadline:
                program.stop()
                raise MeasurementError(f"{name} did not start:\n{printed}")
            else:
                time.sleep(0.05)
        return program

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Suite:
    """A running suite with what it is compared with."""

    mode: Mode
    stack: RunningStack
    client: httpx.AsyncClient
    folder: Path
    model: Program
    clean_up: contextlib.AsyncExitStack
    """Stops what belongs to the suite when it ends."""
    references: dict[str, Program] = field(default_factory=dict)
    """`monolith` and `stream`; empty until `start_references`."""

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return self.stack.gateway_url

    @property
    def pids(self) -> dict[str, int]:
        """The processes of the suite by name, the supervisor among them."""
        state: dict[str, Any] = self.stack.state()
        return {name: entry["pid"] for name, entry in state["processes"].items()} | {"supervisor": state["pid"]}

    def our_processes(self) -> Processes:
        """All that is written in Python here: the suite without Postgres and the Node program, with the supervisor.

        The supervisor is the parent of all the others, so its children are not counted with it.
        """
        return Processes({name: pid for name, pid in self.pids.items() if name not in EMBEDDED}, alone=("supervisor",))

    def database_processes(self) -> Processes:
        """Postgres with all of its children."""
        return Processes({"postgres": self.pids["postgres"]})

    def reference_processes(self, name: str) -> Processes:
        """One of the references."""
        return Processes({name: self.references[name].pid})

    async def start_references(self) -> None:
        """Start the references beside the suite. Raises MeasurementError when one does not start."""
        for name in REFERENCES:
            start = partial(
                start_reference, name, self.stack, model_url=self.model.url, log=self.folder / f"{name}.out"
            )
            self.references[name] = await _started(self.clean_up, start, Program.stop)

    async def person(self) -> Person:
        """Sign up somebody new, with a fresh token and no sessions."""
        return await Person.sign_up(self.client)

    @contextlib.asynccontextmanager
    async def database(self, connections: int = 4) -> AsyncIterator[asyncpg.Pool]:
        """Yield a pool of connections as concerto_login, which `call` uses."""
        async with asyncpg.create_pool(self.stack.db_url, min_size=0, max_size=connections) as pool:
            yield pool

    async def fill(self, person: Person, sessions: int, *, messages: int = 0, text: str = SENTENCE) -> list[str]:
        """Create so many sessions with so many messages (at most 100), past the gateway, and return the ids."""
        claims = claims_of(person)
        lines = [{"role": "assistant" if index % 2 else "user", "content": text} for index in range(messages)]
        async with self.database() as pool:

            async def one() -> str:
                answer = await call(pool, claims, "create_session", {"name": "benchmark"})
                session_id = str(answer["session"]["id"])
                if lines:
                    await call(pool, claims, "append_messages", {"session_id": session_id, "messages": lines})
                return session_id

            return list(await asyncio.gather(*(one() for _ in range(sessions))))


def claims_of(person: Person) -> str:
    """Return the claims of a person's token as the services hand them to the database (JSON)."""
    token = person.tokens["access_token"]
    return orjson.dumps(jwt.decode(token, options={"verify_signature": False})).decode()


async def call(pool: asyncpg.Pool, claims: str, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Run an operation of schema `api` as somebody."""
    statement = "select private.call($1::jsonb, $2, $3::jsonb)::text"
    answer: dict[str, Any] = orjson.loads(
        await pool.fetchval(statement, claims, operation, orjson.dumps(args).decode())
    )
    return answer


@contextlib.asynccontextmanager
async def running(mode: Mode) -> AsyncIterator[Suite]:
    """Start the suite in `mode` on a data folder of its own, with a model server; stop all of it at the end.

    Raises MeasurementError when something does not start.
    """
    async with contextlib.AsyncExitStack() as clean_up:
        folder = Path(tempfile.mkdtemp(prefix="concerto-bench-"))
        clean_up.callback(shutil.rmtree, folder, ignore_errors=True)
        plain = stack_environment(folder / "none", free_base_port())
        log = folder / "model.out"
        model = await _started(
            clean_up,
            lambda: Program.start("model server", "benchmarks.load.model_server", env=plain, log=log),
            Program.stop,
        )
        start_suite = partial(
            start_stack,
            folder,
            mode=mode,
            OPENAI_BASE_URL=model.url,
            CONCERTO_MODEL=MODEL,
            # The load comes from one user.
            CONCERTO_MAX_RUNS_PER_USER="2000",
            CONCERTO_MAX_RUNS="2000",
        )
        stack = await _started(clean_up, start_suite, stop_stack)
        client = await clean_up.enter_async_context(
            httpx.AsyncClient(base_url=stack.gateway_url, timeout=PATIENCE_SECONDS)
        )
        yield Suite(mode, stack, client, folder, model, clean_up)


def start_reference(name: str, stack: RunningStack, *, model_url: str, log: Path) -> Program:
    """Start `reference/<name>.py` on the database of `stack`, with the keys that its tokens are signed with."""
    env = {
        **stack_environment(stack.home.parent / "none", stack.base_port),
        "DATABASE_URL": stack.db_url,
        "JWT_SECRET": stack.jwt_secret,
        "KEYS_URL": f"{stack.supabase_url}/auth/v1/.well-known/jwks.json",
        "MODEL_URL": model_url,
        "MODEL": MODEL,
    }
    return Program.start(name, f"benchmarks.reference.{name}", env=env, log=log)


async def _started(clean_up: contextlib.AsyncExitStack, start: Callable[[], T], stop: Callable[[T], object]) -> T:
    """Start something in a thread, and have it stopped with `clean_up`, also when we are told to end meanwhile."""
    starting = asyncio.create_task(asyncio.to_thread(start))
    try:
        found = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            stop(await starting)
        raise
    except RuntimeError as error:
        raise MeasurementError(str(error)) from error
    clean_up.callback(stop, found)
    return found
