"""Logs that carry the request, the user and the trace but never what they said."""

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from servicekit.settings import ProcessSettings

TraceIds = Callable[[], tuple[str, str] | None]
"""Returns the current span's trace id and span id as hexadecimal text; None without a span."""

_SQL_CODE = re.compile(r"(?=(?:[A-Z]*[0-9]){2})[0-9A-Z]{5}|PGRST[0-9]{3}")
# A backstop: nothing of ours logs these, but a library's key/value might.
_SECRET_KEYS = frozenset(
    {"access_token", "apikey", "authorization", "code_verifier", "content", "cookie", "password", "refresh_token",
     "secret", "token"}
)  # fmt: skip


def configure(settings: ProcessSettings, *, trace_ids: TraceIds | None = None) -> None:
    """Send all logs of the process to stderr in one form.

    trace_ids: gives the current trace id and span id, which then are in each entry; None leaves them out.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_secrets,
    ]
    if trace_ids is not None:
        shared.append(_adding(trace_ids))
    finishing: list[structlog.types.Processor] = [structlog.processors.format_exc_info, _renderer(settings)]
    # Our own entries take no detour through logging: one entry per request would cost more than half of its answer.
    structlog.configure(
        processors=[*shared, *finishing],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finishing],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # One line per outgoing request is noise, and httpx puts query strings (which may hold tokens) into it.
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)


def describe(cause: BaseException | str) -> str:
    """Return what a log may say of a cause: its type, its code and where it arose, never its text.

    Texts of exceptions quote values (a failing row, an input that did not parse), and values are what users wrote. A
    code in words is told only where it is one of SQL's: others are whatever a server beyond ours has put there.
    """
    if isinstance(cause, str):
        return cause
    name = type(cause).__name__
    for attribute in ("sqlstate", "status_code", "code"):
        code = getattr(cause, attribute, None)
        code = code() if callable(code) else code
        if isinstance(code, int) or (isinstance(code, str) and _SQL_CODE.fullmatch(code)):
            name += f" {attribute}={code}"
            break
        if code is not None and hasattr(code, "name"):
            name += f" {attribute}={code.name}"
            break
    frames = traceback.extract_tb(cause.__traceback__)
    steps = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[:-9:-1])
    return f"{name} at {steps}" if steps else name


class _Lines:
    """Writes rendered entries to stderr, one line each; the last link of structlog's chain."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write one entry."""
        with contextlib.suppress(OSError, ValueError):  # whoever read our log is gone; the request goes on
            sys.stderr.write(f"{line}\n")

    log = debug = info = warning = error = critical = exception = msg


def _renderer(settings: ProcessSettings) -> structlog.types.Processor:
    if settings.log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else _to_plain_line


def _to_plain_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """Return an entry as ConsoleRenderer writes it without colours, at a tenth of the cost."""
    exception = event.pop("exception", None)
    head = (
        f"{event.pop('timestamp', '')} [{event.pop('level', ''):<9}] {event.pop('event', '')!s:<30} "
        f"[{event.pop('logger', '')}]"
    )
    values = "".join([f" {key}={_plain(value)}" for key, value in sorted(event.items())])
    return f"{head}{values}\n{exception}" if exception else head + values


def _plain(value: Any) -> str:
    if type(value) is str:
        return value if value.isprintable() and value and " " not in value and "=" not in value else repr(value)
    return repr(value)


def _drop_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "[removed]"
    return event


def _adding(trace_ids: TraceIds) -> structlog.types.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        ids = trace_ids()
        if ids is not None:
            event["trace_id"], event["span_id"] = ids
        return event

    return add
