"""What observing, traces and their users share: the watch of a piece of work, its place in a trace, the part's name."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from structlog.contextvars import STRUCTLOG_KEY_PREFIX

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

TRACEPARENT = "traceparent"
"""The header, and the key of the metadata, that carries a trace (https://www.w3.org/TR/trace-context/)."""

Value = str | int | float | Sequence[str]
"""What an attribute of a span may be."""

# By its name structlog adds it to each log entry; of a task that begins without a context nobody knows the part.
_service: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}service")


def name_service(name: str) -> None:
    """Let log entries and spans of this context, and of what is started from it, carry a part's name."""
    _service.set(name)


def service_name(otherwise: str) -> str:
    """Return the name that `name_service` gave to this context."""
    return _service.get(otherwise)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a trace, and the part that is there."""

    service: str
    span: "SpanContext"


class Watch:
    """A piece of work that is watched while its block runs. Every exception passes through it.

    This class itself watches nothing; it stands wherever telemetry is off.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @property
    def traceparent(self) -> str:
        """What a callee is told of the trace; empty for nothing."""
        return ""

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes to the span, if there is one."""


NOTHING = Watch()
