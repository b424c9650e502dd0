"""The metrics of a process, by Prometheus' client, and their listener. Imported only while metrics are on.

Labels are few: names of the contract and of routes, codes, and models that are configured. An id, a path or a word of a
user's is never one.
"""

import functools
import socket
import socketserver
import sys
import threading
import weakref
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, MetricsHandler, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from servicekit.telemetry import logs
from servicekit.telemetry.observing import Counts, Pool

_LOG = structlog.stdlib.get_logger(__name__)

PATH = "/metrics"
READ_SECONDS = 10.0
"""How long a client of the listener may be silent."""

# A call within the process takes a millisecond, a stream minutes.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
QUERY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 13, 20, 30, 60, 120)


class Metrics:
    """All metrics of a process. Those of a kind of work are there once it is done here."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each series, which nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._listener: Listener | None = None

    @functools.cached_property
    def rpcs(self) -> "Rpcs":
        """Rpcs that are served here."""
        return Rpcs(self.registry)

    @functools.cached_property
    def http(self) -> "Http":
        """Requests at the gateway."""
        return Http(self.registry)

    @functools.cached_property
    def database(self) -> "Database":
        """Operations of the database, and connections to it."""
        return Database(self.registry)

    @functools.cached_property
    def runs(self) -> "Runs":
        """Runs that are executed here."""
        return Runs(self.registry)

    @functools.cached_property
    def models(self) -> "Models":
        """Calls of language models."""
        return Models(self.registry)

    def listen(self, host: str, port: int) -> "Listener":
        """Serve them at /metrics, in a thread of their own. Raises SystemExit when the port is taken."""
        self._listener = Listener(self.registry, host, port)
        return self._listener

    def close(self) -> None:
        """Serve them no more."""
        if self._listener is not None:
            self._listener.close()


class Rpcs:
    """Rate, errors and durations of rpcs, refused ones included."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "concerto_rpc_duration_seconds",
            "Time to answer an rpc, of a stream to its end, by its gRPC code.",
            ("service", "method", "code"),
            buckets=SECONDS,
            registry=registry,
        )
        self.active = Gauge("concerto_rpc_active", "Rpcs that are being answered.", registry=registry)


class Http:
    """Rate, errors and durations of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "concerto_http_request_duration_seconds",
            "Time to answer a request, of a stream to its end, by its route's template.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self.active = Gauge("concerto_http_active", "Requests that are being answered.", registry=registry)


class Database:
    """Durations of operations, and the connections of all pools of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "concerto_db_call_duration_seconds",
            "Time of an operation of the database, waiting for a connection included, by how it ended.",
            ("operation", "outcome"),
            buckets=QUERY_SECONDS,
            registry=registry,
        )
        self._pools = _Pools()
        registry.register(self._pools)

    def watch(self, pool: Pool) -> None:
        """Count a pool's connections for as long as it lives."""
        self._pools.add(pool)


class Runs:
    """Runs that are under way, and how others have ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.active = Gauge("concerto_runs_active", "Runs that are executed, queued ones included.", registry=registry)
        self.finished = Counter(
            "concerto_runs_finished", "Runs that have stored their end, by their state.", ("state",), registry=registry
        )


class Models:
    """What calls of models took, used and cost. `model` is one that is configured, or `other`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.first_token_seconds = Histogram(
            "concerto_model_first_token_seconds",
            "Time from asking a model to the first text of its answer.",
            ("model",),
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "concerto_model_tokens",
            "Tokens as the provider counts them; `cached` ones are among those of the `prompt`.",
            ("model", "kind"),
            registry=registry,
        )
        self.dollars = Counter(
            "concerto_model_cost_dollars",
            "What these tokens cost by CONCERTO_MODEL_PRICES, in US dollars.",
            ("model",),
            registry=registry,
        )


class _Pools(Collector):
    """Asks all pools when somebody wants to know."""

    def __init__(self) -> None:
        self._pools: weakref.WeakSet[Pool] = weakref.WeakSet()

    def add(self, pool: Pool) -> None:
        self._pools.add(pool)

    def collect(self) -> Iterable[Metric]:
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
