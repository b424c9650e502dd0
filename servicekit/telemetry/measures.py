"""Metrics as their owners declare them: a name, a sentence, labels; next to nothing while metrics are off.

A part declares what it counts at the top of the module that counts it, and that is all: it is exported once it is first
used in a process whose metrics are on. Labels are few: names of the contract and of routes, codes, and names that are
configured. An id, a path or a word of a user's is never one.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

# A call within the process takes a millisecond, a stream minutes.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets of durations in seconds, for what takes anything from a call to a stream."""


class Counts(NamedTuple):
    """The connections of a pool."""

    idle: int
    busy: int
    opening: int
    waiting: int
    """Calls that wait for a connection."""


class Pool(Protocol):
    """A pool of database connections."""

    def counts(self) -> Counts:
        """Return what it has now. Called from another thread."""
        ...


class Recorder(Protocol):
    """What keeps the values of measures; `servicekit.telemetry.metrics.Metrics` does, for Prometheus."""

    def child(self, measure: "Measure", labels: tuple[str, ...]) -> Any:
        """Return what takes the values of a measure for these values of its labels."""
        ...

    def watch_pool(self, pool: Pool) -> None:
        """Count a pool's connections for as long as it lives."""
        ...


_declared: "dict[str, Measure]" = {}
DECLARED: "Mapping[str, Measure]" = MappingProxyType(_declared)
"""All measures of the modules that are imported, by name."""

_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Record what is measured from now on; None ends that."""
    global _recorder
    _recorder = recorder


def is_recorded() -> bool:
    """Say whether metrics are on."""
    return _recorder is not None


def watch_pool(pool: Pool) -> None:
    """Count the pool's connections for as long as it lives."""
    if _recorder is not None:
        _recorder.watch_pool(pool)


class Measure:
    """A metric. Values of labels are given in the order of `labels`. Raises ValueError for a name that is taken."""

    def __init__(self, name: str, description: str, labels: Iterable[str] = ()) -> None:
        if name in _declared:
            raise ValueError(f"{name} is declared twice")
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        _declared[name] = self


class Counter(Measure):
    """Something that is only ever added to; exported as `<name>_total`."""

    def add(self, amount: float, *labels: str) -> None:
        """Add an amount, 0 or more."""
        if _recorder is not None:
            _recorder.child(self, labels).inc(amount)


class Gauge(Measure):
    """Something that rises and falls."""

    def add(self, amount: float, *labels: str) -> None:
        """Add an amount, which may be negative."""
        if _recorder is not None:
            _recorder.child(self, labels).inc(amount)

    def set(self, value: float, *labels: str) -> None:
        """Set the value."""
        if _recorder is not None:
            _recorder.child(self, labels).set(value)


class Histogram(Measure):
    """A distribution; exported as `<name>_bucket`, `<name>_count` and `<name>_sum`.

    buckets: their upper bounds, rising.
    """

    def __init__(self, name: str, description: str, labels: Iterable[str] = (), *, buckets: Sequence[float]) -> None:
        super().__init__(name, description, labels)
        self.buckets = tuple(buckets)

    def observe(self, value: float, *labels: str) -> None:
        """Take in one value."""
        if _recorder is not None:
            _recorder.child(self, labels).observe(value)
