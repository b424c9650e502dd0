"""Single calls: REST to Postgres and back, beside the monolith, and appending beside pgbench."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.load import calls
from benchmarks.load.calls import Load
from benchmarks.measures import Processes
from benchmarks.progress import say
from benchmarks.rows import MeasurementError, Row
from benchmarks.suites import SENTENCE, Suite, claims_of
from tests.support.api import Person

SESSIONS = 64
"""Sessions that are appended to in turn, so that nobody waits for a session's lock."""
LISTED = 100
"""Sessions of the user who lists them, and messages of each; twice a page, so each answer leads to the next page."""
PAGE = 50
AT_LEAST = {
    "processes": {"POST a message": 0.60, "pgbench": 0.28, "GET 50 messages": 0.60, "GET 50 sessions": 0.60},
    "one-process": {"POST a message": 1.0, "pgbench": 0.50, "GET 50 messages": 1.0, "GET 50 sessions": 1.0},
}
MESSAGE = {"role": "user", "content": SENTENCE}

Side = Callable[[float], Awaitable[Load]]


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the rows of appending, listing messages, and listing sessions: requests per second, CPU per request."""
    rounds, seconds = (3, 1.0) if quick else (5, 4.0)
    writer, reader = await suite.person(), await suite.person()
    written = await suite.fill(writer, SESSIONS)
    listed = await suite.fill(reader, LISTED, messages=LISTED)

    def asks(url: str, person: Person, paths: Sequence[str], body: object = None) -> Side:
        async def side(for_seconds: float) -> Load:
            token = person.tokens["access_token"]
            return await calls.wrk(url, paths, token=token, seconds=for_seconds, body=body)

        return side

    async def in_the_database(for_seconds: float) -> Load:
        arguments = [{"session_id": session_id, "request_id": None, "messages": [MESSAGE]} for session_id in written]
        return await calls.pgbench(
            suite.stack.db_url,
            operation="append_messages",
            claims=claims_of(writer),
            arguments=arguments,
            seconds=for_seconds,
        )

    works = {
        "POST a message": (writer, [f"/sessions/{session_id}/messages" for session_id in written]),
        "GET 50 messages": (reader, [f"/sessions/{session_id}/messages?page_size={PAGE}" for session_id in listed]),
        "GET 50 sessions": (reader, [f"/sessions?page_size={PAGE}"]),
    }
    rows = []
    for name, (person, paths) in works.items():
        is_append = person is writer
        body = {"messages": [MESSAGE]} if is_append else None
        sides = {
            "suite": asks(suite.url, person, paths, body),
            "monolith": asks(suite.references["monolith"].url, person, paths, body),
        }
        if is_append:
            sides["pgbench"] = in_the_database
        found, cpu = await _alternate(suite, name, sides, rounds=rounds, seconds=seconds)
        targets = AT_LEAST[suite.mode]
        rows.append(
            Row.compared(
                name,
                suite.mode,
                [phase.rate for phase in found["suite"]],
                [phase.rate for phase in found["monolith"]],
                unit="requests/s",
                at_least=targets[name],
                beside="monolith.py",
                generator_share=_generator_share(found["suite"]),
            )
        )
        if is_append:
            rows.append(
                Row.compared(
                    name,
                    suite.mode,
                    [phase.rate for phase in found["suite"]],
                    [phase.rate for phase in found["pgbench"]],
                    unit="requests/s",
                    at_least=targets["pgbench"],
                    beside="pgbench, same operation",
                )
            )
        rows.append(
            Row.compared(
                f"{name}: CPU per request",
                suite.mode,
                [sum(parts.values()) for parts in cpu["suite"]],
                [sum(parts.values()) for parts in cpu["monolith"]],
                unit="µs",
                beside="monolith.py; both with Postgres",
                note=f"in µs: {_told(cpu['suite'][-1])}; monolith.py: {_told(cpu['monolith'][-1])}",
            )
        )
    return rows


async def _alternate(
    suite: Suite, work: str, sides: Mapping[str, Side], *, rounds: int, seconds: float
) -> tuple[dict[str, list[Load]], dict[str, list[dict[str, float]]]]:
    """Measure the sides in turn; return what was found, and the microseconds of each process per request."""
    ours, database = suite.our_processes(), suite.database_processes()
    programs: dict[str, Sequence[Processes]] = {
        "suite": (ours, database),
        "monolith": (suite.reference_processes("monolith"), database),
        "pgbench": (database,),
    }
    found: dict[str, list[Load]] = {name: [] for name in sides}
    cpu: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for side in sides.values():
        await side(1.0)  # plans, pools and caches are warm afterwards
    for number in range(rounds):
        say(f"{suite.mode}: {work}, round {number + 1} of {rounds}")
        for name, side in sides.items():
            before = [some.cpu() for some in programs[name]]
            phase = await side(seconds)
            parts = {
                part: used / phase.requests * 1e6
                for some, past in zip(programs[name], before, strict=True)
                for part, used in some.since(past).items()
            }
            found[name].append(phase)
            cpu[name].append(parts)
    if not all(found.values()):
        raise MeasurementError("A side was not measured.")
    return found, cpu


def _generator_share(phases: Sequence[Load]) -> float:
    return sum(phase.generator_cpu_seconds for phase in phases) / sum(phase.seconds for phase in phases)


def _told(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {used:.0f}" for name, used in sorted(parts.items()) if used >= 0.5)
