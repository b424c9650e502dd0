"""The metrics of a process, by Prometheus' client, and their listener. Imported only while metrics are on."""

import socket
import socketserver
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, MetricsHandler, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from servicekit.telemetry import logs, measures
from servicekit.telemetry.measures import Counts, Measure, Pool

_LOG = structlog.stdlib.get_logger(__name__)

PATH = "/metrics"
READ_SECONDS = 10.0
"""How long a client of the listener may be silent."""

_KINDS: Mapping[type[Measure], Any] = {measures.Counter: Counter, measures.Gauge: Gauge}


class Metrics:
    """What a process measures, as Prometheus' client keeps it. A measure is there once it is used."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each series, which nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._metrics: dict[Measure, Any] = {}
        self._lock = threading.Lock()
        self._pools: Pools | None = None
        self._listener: Listener | None = None

    def child(self, measure: Measure, labels: tuple[str, ...]) -> Any:
        """Return the metric that takes a measure's values for these values of its labels."""
        metric = self._metrics.get(measure) or self._make(measure)
        return metric.labels(*labels) if labels else metric

    def watch_pool(self, pool: Pool) -> None:
        """Count a pool's connections for as long as it lives, together with those of all others."""
        if self._pools is None:
            self._pools = Pools()
            self.registry.register(self._pools)
        self._pools.add(pool)

    def listen(self, host: str, port: int) -> "Listener":
        """Serve them at /metrics, in a thread of their own. Raises SystemExit when the port is taken."""
        self._listener = Listener(self.registry, host, port)
        return self._listener

    def close(self) -> None:
        """Serve them no more."""
        if self._listener is not None:
            self._listener.close()

    def _make(self, measure: Measure) -> Any:
        with self._lock:  # threads may use one for the first time at once
            if measure not in self._metrics:
                words = (measure.name, measure.description, measure.labels)
                if isinstance(measure, measures.Histogram):
                    made = Histogram(*words, buckets=measure.buckets, registry=self.registry)
                else:
                    made = _KINDS[type(measure)](*words, registry=self.registry)
                self._metrics[measure] = made
            return self._metrics[measure]


class Pools(Collector):
    """The connections of all pools of the process; asks them when they are scraped."""

    def __init__(self) -> None:
        self._pools: weakref.WeakSet[Pool] = weakref.WeakSet()

    def add(self, pool: Pool) -> None:
        """Count this one too, for as long as it lives."""
        self._pools.add(pool)

    def collect(self) -> Iterable[Metric]:
        """Yield the two metrics."""
        counts = [pool.counts() for pool in self._pools.copy()]
        total = Counts(*(sum(column) for column in zip(*counts, strict=True))) if counts else Counts(0, 0, 0, 0)
        states = GaugeMetricFamily(
            "concerto_db_connections", "Connections of the pools, by what they do.", labels=("state",)
        )
        for state in ("idle", "busy", "opening"):
            states.add_metric((state,), getattr(total, state))
        yield states
        yield GaugeMetricFamily("concerto_db_waiting", "Operations that wait for a connection.", value=total.waiting)


class Listener:
    """Answers GET /metrics on an address of its own, and nothing else."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry})
        server_class = _ServerV6 if ":" in host else _Server
        try:
            self._server = server_class((host, port), handler)
        except OSError as error:
            raise SystemExit(
                f"{host}:{port} cannot be listened on for metrics ({error.strerror}). "
                "Set CONCERTO_METRICS_PORT to a free port, or stop what is there."
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    # Unlike http.server's own, it asks no name server for the name of its host.
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (socketserver's)
        """Pass over clients that go away in between; log everything else."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            _LOG.error("metrics.not_served", cause=logs.describe(error))


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(MetricsHandler):
    timeout = READ_SECONDS
    server_version = "concerto"
    sys_version = ""

    def do_GET(self) -> None:
        if urlsplit(self.path).path == PATH:
            super().do_GET()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
