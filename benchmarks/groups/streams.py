"""Turns: the first token, tokens per second and processor time per token, beside stream.py and the direct call."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from benchmarks.load import streams as stream_load
from benchmarks.load.streams import Plan, StreamLoad
from benchmarks.measures import Phase
from benchmarks.progress import say
from benchmarks.rows import Row
from benchmarks.suites import Suite
from tests.support.api import Person

MILLISECONDS = 20
SLOW_MILLISECONDS = 100
"""As 100 streams at the usual pace are more than stream.py can do: at this one, nobody queues."""
STREAMS = 100
FEW = (1, 20)
"""Streams that share no write, or few: each pays for its own."""
EARLIER_MESSAGES = 10
"""Messages in a session before the turn, so that both sides have a history to read."""
TARGETS = {
    "processes": {"one": 5.0, "first": 1.5, "rate": 0.8, "cpu": 1.3},
    "one-process": {"one": 3.0, "first": 1.0, "rate": 1.0, "cpu": 1.0},
}


@dataclass(frozen=True)
class Shape:
    """How many streams of what kind a phase has."""

    streams: int
    turns: int
    tokens: int
    milliseconds: int

    @property
    def over_seconds(self) -> float:
        """The beginnings are spread over the time of one turn, as people do not begin at once."""
        return self.tokens * self.milliseconds / 1000 if self.streams > 1 else 0.0


@dataclass
class Found:
    """What the rounds of one side have found."""

    waits: list[float] = field(default_factory=list)
    """Milliseconds to the first token, the median of each round."""
    rates: list[float] = field(default_factory=list)
    """Tokens per second."""
    cpu: list[float] = field(default_factory=list)
    """Microseconds of processor time per token, Postgres included."""
    python_cpu: list[float] = field(default_factory=list)
    """The same without Postgres."""
    parts: dict[str, float] = field(default_factory=dict)
    """The same by process, of the last round."""
    generator: list[float] = field(default_factory=list)
    """Share of a core that the load generator took."""

    @property
    def summary(self) -> str:
        """The processor time by process, for people."""
        return "in µs: " + ", ".join(f"{name} {used:.0f}" for name, used in sorted(self.parts.items()) if used >= 0.5)


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the rows of one stream, and of many: as fast as models speak, slower, and without any pause."""
    rounds = 2 if quick else 5
    mode, targets = suite.mode, TARGETS[suite.mode]
    one = await _one_stream(suite, Shape(1, 8 if quick else 40, 3, MILLISECONDS), rounds)
    paced = await _alternate(suite, Shape(STREAMS, 1 if quick else 2, 50 if quick else 100, MILLISECONDS), rounds)
    few = {
        streams: await _alternate(suite, Shape(streams, 2 if streams == 1 else 1, 100, MILLISECONDS), rounds)
        for streams in FEW
    }
    slow = None if quick else await _alternate(suite, Shape(STREAMS, 1, 30, SLOW_MILLISECONDS), rounds)
    fast = await _alternate(suite, Shape(STREAMS, 1, 50 if quick else 200, 0), rounds, is_warm=quick)

    def row(name: str, sides: tuple[Found, Found], figure: str, unit: str, **target: float) -> Row:
        ours, theirs = sides
        return Row.compared(
            name,
            mode,
            getattr(ours, figure),
            getattr(theirs, figure),
            unit=unit,
            beside="stream.py; both with Postgres" if figure == "cpu" else "stream.py",
            generator_share=statistics.median(ours.generator),
            note=ours.summary if figure == "cpu" else "",
            **target,
        )

    many, slowly = (f"{STREAMS} streams of {1000 // pause} tokens/s" for pause in (MILLISECONDS, SLOW_MILLISECONDS))
    found = [
        Row.difference(
            f"first token, 1 stream of {1000 // MILLISECONDS} tokens/s, p50",
            mode,
            one["suite"],
            one["direct"],
            unit="ms",
            beside="ChatOpenAI.astream, direct",
            at_most=targets["one"],
            note=f"stream.py {statistics.median(one['stream']) - statistics.median(one['direct']):+.1f} ms",
        ),
        row(f"first token, {many}, p50", paced, "waits", "ms", at_most=targets["first"]),
        row(f"tokens delivered, {STREAMS} streams, no delay", fast, "rates", "tokens/s", at_least=targets["rate"]),
        *(
            row(f"CPU per token, {_several(streams)}", sides, "cpu", "µs", at_most=targets["cpu"])
            for streams, sides in few.items()
        ),
        row(f"CPU per token, {many}", paced, "cpu", "µs", at_most=targets["cpu"]),
        row("the same without Postgres", paced, "python_cpu", "µs"),
        row("CPU per token, no delay", fast, "cpu", "µs"),
    ]
    if slow is not None:
        found += [
            row(f"first token, {slowly}, p50", slow, "waits", "ms"),
            row(f"CPU per token, {slowly}", slow, "cpu", "µs"),
        ]
    return found


def _several(streams: int) -> str:
    return f"{streams} stream{'s' * (streams > 1)} of {1000 // MILLISECONDS} tokens/s"


async def _one_stream(suite: Suite, shape: Shape, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first token of each side, the median of each round."""
    person = await suite.person()
    urls = {"suite": suite.url, "stream": suite.references["stream"].url}
    found: dict[str, list[float]] = {"suite": [], "stream": [], "direct": []}
    for number in range(rounds + 1):
        say(f"{suite.mode}: 1 stream, round {number} of {rounds}")
        # The program that asks the model directly warms up by itself.
        waits = {"direct": (await _directly(suite, shape)).waits} if number else {}
        for name, url in urls.items():
            sessions = await suite.fill(person, shape.streams * shape.turns, messages=EARLIER_MESSAGES)
            waits[name] = (await through(url, person, shape, sessions)).waits
        if number:  # the first round warms up
            for name, seconds in waits.items():
                found[name].append(statistics.median(seconds) * 1000)
    return found


async def _alternate(suite: Suite, shape: Shape, rounds: int, *, is_warm: bool = False) -> tuple[Found, Found]:
    """What was found of the suite and of stream.py, which take turns. is_warm: both have streamed just before."""
    person = await suite.person()
    urls = {"suite": suite.url, "stream": suite.references["stream"].url}
    python = {"suite": suite.our_processes(), "stream": suite.reference_processes("stream")}
    database = suite.database_processes()
    found = {name: Found() for name in urls}
    small = Shape(max(1, shape.streams // 5), 1, 20, shape.milliseconds)
    for url in () if is_warm else urls.values():
        await through(url, person, small, await suite.fill(person, small.streams, messages=EARLIER_MESSAGES))
    for number in range(rounds):
        pace = f"{1000 // shape.milliseconds} tokens/s" if shape.milliseconds else "no delay"
        say(f"{suite.mode}: {shape.streams} streams, {pace}, round {number + 1} of {rounds}")
        # Who begins changes, so that what a phase leaves behind in the database burdens both.
        for name in sorted(urls, reverse=number % 2 == 0):
            sessions = await suite.fill(person, shape.streams * shape.turns, messages=EARLIER_MESSAGES)
            before, before_database = python[name].cpu(), database.cpu()
            load = await through(urls[name], person, shape, sessions)
            used = python[name].since(before) | database.since(before_database)
            side = found[name]
            side.parts = {part: seconds / load.tokens * 1e6 for part, seconds in used.items()}
            side.waits.append(statistics.median(load.waits) * 1000)
            side.rates.append(load.tokens / load.seconds)
            side.cpu.append(sum(side.parts.values()))
            side.python_cpu.append(side.cpu[-1] - side.parts["postgres"])
            side.generator.append(load.cpu_seconds / load.seconds)
    return found["suite"], found["stream"]


async def through(url: str, person: Person, shape: Shape, sessions: Sequence[str]) -> StreamLoad:
    """Ask for so many turns of a kind, each in a session of its own, and return what was found."""
    plan = Plan(
        url=url,
        token=person.tokens["access_token"],
        paths=[f"/sessions/{session_id}/turns" for session_id in sessions],
        streams=shape.streams,
        turns=shape.turns,
        tokens=shape.tokens,
        milliseconds=shape.milliseconds,
        over_seconds=shape.over_seconds,
    )
    return await stream_load.measure(plan)


async def _directly(suite: Suite, shape: Shape) -> Phase:
    numbers = (shape.streams, shape.turns, shape.tokens, shape.milliseconds)
    output = await stream_load.call_program("benchmarks.load.direct", b"", [suite.model.url, *map(str, numbers)])
    return Phase(**orjson.loads(output))
