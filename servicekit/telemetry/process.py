"""Telemetry of a process from its start to its end: its log, and the metrics and traces that its settings ask for."""

from typing import TYPE_CHECKING

import structlog

from servicekit.outgoing.settings import Outgoing
from servicekit.settings import ProcessSettings
from servicekit.telemetry import logs, observing, watches

if TYPE_CHECKING:
    from servicekit.telemetry.metrics import Metrics
    from servicekit.telemetry.traces import Traces

_LOG = structlog.stdlib.get_logger(__name__)

_metrics: "Metrics | None" = None
_traces: "Traces | None" = None


def configure(settings: ProcessSettings, *, service: str) -> None:
    """Set up the log, and switch on what the settings ask for; once per process and before anything is served.

    service: the process's name in every entry and trace. End with `close`. Raises SystemExit as `start` does.
    """
    logs.configure(settings, trace_ids=observing.trace_ids if settings.otlp_endpoint else None)
    watches.name_service(service)
    for problem in Outgoing.read().problems:
        _LOG.warning("outgoing.unusable", problem=problem)
    start(settings, service=service)


def start(settings: ProcessSettings, *, service: str) -> None:
    """Switch on the metrics and traces that the settings ask for; traces stay off where OpenTelemetry cannot send them.

    service: the process's name in traces where no part has named itself. Raises SystemExit with what to do when the
    port of the metrics is taken, or when what is needed is not installed.
    """
    global _metrics, _traces
    # Imported here: without them a process has neither OpenTelemetry's SDK nor Prometheus' client in memory.
    try:
        if settings.metrics_port is not None:
            from servicekit.telemetry.metrics import Metrics

            _metrics = Metrics()
            _metrics.listen(settings.metrics_host, settings.metrics_port)
        if settings.otlp_endpoint:
            try:
                from servicekit.telemetry.traces import Traces

                _traces = Traces.to_collector(settings.otlp_endpoint, service=service, environment=settings.environment)
            except (ValueError, OSError) as error:
                problem = f"OpenTelemetry cannot use one of its variables, OTEL_…: {error}"
                _LOG.warning("traces.off", problem=problem)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"Telemetry is asked for, but {error.name} is not installed. Install the extra `telemetry`, or unset "
            "CONCERTO_METRICS_PORT and OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from None
    observing.use(metrics=_metrics, traces=_traces)


def close() -> None:
    """Send the spans that wait, for a few seconds at most, and switch everything off; the last thing a process does."""
    global _metrics, _traces
    metrics, traces, _metrics, _traces = _metrics, _traces, None, None
    observing.use()
    if traces is not None:
        traces.close()
    if metrics is not None:
        metrics.close()
