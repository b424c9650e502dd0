"""The processes of the suite: how each is started, what it is told, and how one sees that it is ready."""

import asyncio
import functools
import json
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from local.embedded.credentials import Credentials
from local.embedded.postgres import Postgres
from local.environment import PROXIES, basic
from local.settings import PORT_NAMES, ROOT, Settings
from local.suite import health
from local.suite.deaths import end_leases
from servicekit import parts
from servicekit.tls import loopback

EMBEDDED = ("postgres", "supabase")
SERVICES = tuple(part.name for part in parts.SERVICES)
PARTS = tuple(part.name for part in parts.PARTS)
"""What is ours; each can be a process of its own."""
WHOLE = "concerto"
"""All parts in one process (local.suite.serve)."""
NAMES = (*EMBEDDED, *PARTS)
"""With a process per part, in the order of starting; stopped the other way round."""
ONE_PROCESS_NAMES = (*EMBEDDED, WHOLE)
"""With one process for all parts, likewise."""
Mode = Literal["one-process", "processes"]

CHECK_SECONDS = 3

_COMMON = (
    *("CONCERTO_ENVIRONMENT", "CONCERTO_LOG_LEVEL", "CONCERTO_LOG_FORMAT"),
    *("CONCERTO_DRAIN_SECONDS", "CONCERTO_DRAIN_DELAY_SECONDS", "CONCERTO_CONNECTION_AGE_SECONDS"),
    "CONCERTO_SIGN_IN_CHECK_SECONDS",
    "CONCERTO_METRICS_HOST",
)
_SUPABASE = (
    "SUPABASE_URL",
    "SUPABASE_PUBLIC_URL",
    "SUPABASE_PUBLISHABLE_KEY",
    "SUPABASE_DB_URL",
    "SUPABASE_LISTEN_DB_URL",
    "SUPABASE_JWT_SECRET",
    "SUPABASE_JWT_ISSUER",
)


def node_program() -> Path:
    """The Node that `make setup` linked into the working copy."""
    return ROOT / ".node" / "node"


@dataclass(frozen=True)
class ProcessSpec:
    """One process to supervise. `is_ready` is asked again and again until it says yes."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    port: int
    is_ready: Callable[[], Awaitable[bool]]
    before_start: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    quick_stop_signal: signal.Signals = signal.SIGKILL
    address: str = ""
    folder: Path = ROOT
    user: str | None = None
    inherits: tuple[int, ...] = ()
    """File descriptors of ours that the process gets."""
    on_end: Callable[[str], Awaitable[None]] | None = None
    """Called when a process of it has ended by itself, with the id that it had as CONCERTO_PROCESS_ID."""
    is_connected: Callable[[], Awaitable[bool]] | None = None
    """Whether it reaches all other parts, which may have begun to listen after it; None where that is not asked."""


def replicas_of(part: str, count: int) -> tuple[str, ...]:
    """The names of a part's processes: `sessions`, `sessions-2`, …"""
    return (part, *(f"{part}-{number}" for number in range(2, count + 1)))


def part_of(name: str) -> str:
    """The part that a process runs, by the process's name."""
    return name.partition("-")[0]


def ports_of(settings: Settings, names: Iterable[str], replicas: int) -> dict[str, int]:
    """The port of each process, for the parts `names` with as many processes each.

    Several gateways share the suite's address, and each has a port of its own beside it, by which it is told apart.
    """
    ports: dict[str, int] = {}
    for part in names:
        for name in replicas_of(part, replicas) if part in PARTS else (part,):
            shares_port = part == "gateway" and replicas > 1
            ports[name] = settings.port_of(name) + (len(PORT_NAMES) if shares_port else 0)
    return ports


def _target(settings: Settings, part: str, replicas: int) -> str:
    addresses = ",".join(f"127.0.0.1:{settings.port_of(name)}" for name in replicas_of(part, replicas))
    return addresses if replicas == 1 else f"ipv4:{addresses}"


def suite_variables(
    settings: Settings, credentials: Credentials | None, postgres: Postgres | None, *, replicas: int = 1
) -> dict[str, str]:
    """Every variable that some service of the suite needs, by its documented name.

    What a person has set wins; the rest comes from the embedded stack. For a hosted project `credentials` is None
    or only lends the secrets of our own parts. replicas: processes of each service, all of which the targets name.
    """
    made: dict[str, str] = {"GATEWAY_PUBLIC_URL": settings.gateway_url, "GATEWAY_HOST": settings.gateway_host}
    made["GATEWAY_PORT"] = str(settings.port)
    for name in SERVICES:
        port = settings.port_of(name)
        made |= {
            f"{name.upper()}_HOST": "127.0.0.1",
            f"{name.upper()}_PORT": str(port),
            f"{name.upper()}_TARGET": _target(settings, name, replicas),
        }
    if credentials is not None:
        made |= {"GATEWAY_COOKIE_SECRET": credentials.cookie_secret, "CONCERTO_SERVICE_KEY": credentials.service_key}
    own = ("GATEWAY_COOKIE_SECRET", "CONCERTO_SERVICE_KEY")
    chosen = {name: settings.variables[name] for name in own if name in settings.variables}
    chosen |= settings.tls_variables
    if settings.is_hosted:
        chosen |= {name: settings.variables[name] for name in _SUPABASE if name in settings.variables}
    elif credentials is not None and postgres is not None:
        made |= {
            "SUPABASE_URL": settings.embedded_url,
            "SUPABASE_PUBLISHABLE_KEY": credentials.publishable_key,
            "SUPABASE_DB_URL": postgres.login_url,
            "SUPABASE_JWT_SECRET": credentials.jwt_secret,
            "SUPABASE_JWT_ISSUER": "*",  # the address moves with the port, and sign-ins stay
            "AUTH_FORWARDING_KEY": credentials.forwarding_key,
        }
    return made | chosen


def service_environment(name: str, settings: Settings, suite: dict[str, str]) -> dict[str, str]:
    """What one Python process is told, and no more: its own settings, its neighbours' addresses, how to check a JWT.

    The one process of all parts is told what they are told, and its parts find each other within it.
    """
    if name == WHOLE:
        return {key: value for part in PARTS for key, value in service_environment(part, settings, suite).items()}
    part, real = parts.named(name), settings.variables
    own = ("OTEL_", f"{part.variable}_", *part.prefixes, *(("CONCERTO_DB_",) if part.database else ()))
    environment = basic(real, *_COMMON, *PROXIES)
    environment |= {key: value for key, value in real.items() if key.startswith(own)}
    environment |= settings.tls_variables
    # The file has been read already; a service that read it again would see what is meant for others.
    environment |= {"CONCERTO_ENV_FILE": "/dev/null", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    environment.setdefault("CONCERTO_ENVIRONMENT", settings.environment)
    wanted = {"SUPABASE_URL", "SUPABASE_PUBLIC_URL", "SUPABASE_JWT_SECRET", "SUPABASE_JWT_ISSUER"}
    wanted |= {parts.named(called).target_variable for called in part.calls}
    wanted |= {
        f"{part.variable}_{suffix}" for suffix in ("HOST", "PORT", "PUBLIC_URL", "COOKIE_SECRET", "FORWARDING_KEY")
    }
    wanted |= {secret.variable for secret in part.secrets}
    if part.database:
        wanted.add("SUPABASE_DB_URL")
        wanted |= {"SUPABASE_LISTEN_DB_URL"} if part.database.listeners else set()
    if part.publishable_key or (part.database and "SUPABASE_DB_URL" not in suite):
        wanted.add("SUPABASE_PUBLISHABLE_KEY")
    if settings.metrics_port is not None:
        environment["CONCERTO_METRICS_PORT"] = str(metrics_port(settings.metrics_port, name))
    # The addresses come from CONCERTO_PORT, so that one variable moves everything.
    return environment | {key: suite[key] for key in wanted if key in suite}


def metrics_port(base: int, name: str) -> int:
    """Where a process serves its metrics: the gateway, and our one process, at `base`, the services at the next ports.

    The second replicas follow at the next ports, and so on.
    """
    if name == WHOLE:
        return base
    part, _, number = name.partition("-")
    return base + len(PARTS) * (int(number or 1) - 1) + ("gateway", *SERVICES).index(part)


def postgres_spec(postgres: Postgres) -> ProcessSpec:
    """The database server."""
    return ProcessSpec(
        name="postgres",
        command=postgres.command(),
        environment={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        port=postgres.port,
        is_ready=postgres.is_ready,
        before_start=postgres.prepare_start,
        stop_signal=signal.SIGINT,  # "fast": ends the sessions and writes a clean checkpoint
        quick_stop_signal=signal.SIGQUIT,
        address=f"127.0.0.1:{postgres.port}",
        folder=Path("/"),
        user=postgres.account.user,
    )


def supabase_spec(settings: Settings, credentials: Credentials, postgres: Postgres) -> ProcessSpec:
    """Auth, REST and storage. The secrets travel in its environment; the secret key reaches no other process."""
    site = settings.gateway_url
    redirects = [f"{site}/**", f"http://127.0.0.1:{settings.port}/**", f"http://localhost:{settings.port}/**"]
    providers = {
        provider: {
            "enabled": True,
            "client_id": client_id,
            "secret": secret.get_secret_value(),
            "redirect_uri": f"{settings.embedded_url}/auth/v1/callback",
        }
        for provider, client_id, secret in (
            ("github", settings.github_client_id, settings.github_client_secret),
            ("google", settings.google_client_id, settings.google_client_secret),
        )
        if client_id and secret.get_secret_value()
    }
    environment = basic(settings.variables, *PROXIES)
    environment |= {
        "HOST_DATABASE_URL": postgres.admin_url,
        "HOST_JWT_SECRET": credentials.jwt_secret,
        "HOST_PUBLISHABLE_KEY": credentials.publishable_key,
        "HOST_SECRET_KEY": credentials.secret_key,
        "HOST_FORWARDING_KEY": credentials.forwarding_key,
        "HOST_SIGNING_KEY": credentials.signing_key if settings.embedded_signing == "ES256" else "",
        "HOST_API_URL": settings.embedded_url,
        "HOST_SITE_URL": site,
        "HOST_REDIRECT_URLS": json.dumps(redirects),
        "HOST_PROVIDERS": json.dumps(providers),
        "HOST_CONFIRM_EMAIL": "true" if settings.confirm_email else "false",
        "HOST_ACCESS_TOKEN_SECONDS": str(settings.access_token_seconds),
        "HOST_SIGN_IN_LIMIT": str(settings.embedded_sign_in_limit),
        "HOST_CODE_LIMIT": str(settings.embedded_code_limit),
        "HOST_REFRESH_LIMIT": str(settings.embedded_refresh_limit),
        "HOST_MAIL_SECONDS": str(settings.embedded_mail_seconds),
        "HOST_HOME": str(settings.home),
        "HOST_PORT": str(settings.port_of("supabase")),
        "HOST_LISTEN": settings.embedded_host,
        "LITE_AUTH_BCRYPT_COST": str(settings.bcrypt_cost),
        "NO_COLOR": "1",
    }
    return ProcessSpec(
        name="supabase",
        command=[str(node_program()), str(ROOT / "local" / "embedded" / "host" / "main.mjs")],
        environment=environment,
        port=settings.port_of("supabase"),
        is_ready=_http_check(settings.port_of("supabase"), "/auth/v1/health", {"apikey": credentials.publishable_key}),
        address=settings.embedded_url,
    )


def service_specs(
    settings: Settings,
    suite: dict[str, str],
    names: Iterable[str],
    *,
    replicas: int = 1,
    shared: socket.socket | None = None,
) -> list[ProcessSpec]:
    """Our own processes, those of `names`. shared: the listening socket that several gateways serve together."""
    # A server that listens on every address also listens on the loopback one.
    host = "127.0.0.1" if settings.gateway_host in ("0.0.0.0", "::", "localhost") else settings.gateway_host  # noqa: S104
    db_url = suite.get("SUPABASE_DB_URL")
    specs: list[ProcessSpec] = []
    for name, port in ports_of(settings, names, replicas).items():
        part = part_of(name)
        is_web = part in ("gateway", WHOLE)
        environment = service_environment(part, settings, suite)
        if part != WHOLE:
            environment[f"{part.upper()}_PORT"] = str(port)
        if settings.metrics_port is not None:
            environment["CONCERTO_METRICS_PORT"] = str(metrics_port(settings.metrics_port, name))
        inherits: tuple[int, ...] = ()
        if part == "gateway" and shared is not None:
            host = "127.0.0.1"
            environment |= {"GATEWAY_HOST": host, "GATEWAY_SOCKET_FD": str(shared.fileno())}
            inherits = (shared.fileno(),)
        # One process is ready when everything in it is; the gateway alone does not answer for its neighbours.
        health_path = "/readyz" if part == WHOLE else "/healthz"
        check = _http_check(port, health_path, {}, host) if is_web else _grpc_check(port, settings)
        specs.append(
            ProcessSpec(
                name=name,
                command=[sys.executable, "-m", "local.suite.serve" if part == WHOLE else parts.named(part).module],
                environment=environment,
                port=port,
                is_ready=check,
                address=f"http://{host}:{port}" if is_web else f"127.0.0.1:{port}",
                inherits=inherits,
                on_end=functools.partial(end_leases, db_url) if db_url else None,
                is_connected=_http_check(port, "/readyz", {}, host) if part == "gateway" else None,
            )
        )
    return specs


def _http_check(
    port: int, path: str, headers: dict[str, str], host: str = "127.0.0.1"
) -> Callable[[], Awaitable[bool]]:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{head}\r\n".encode()

    async def ask() -> bool:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request)
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    async def check() -> bool:
        try:
            return await asyncio.wait_for(ask(), CHECK_SECONDS)
        except (TimeoutError, OSError):
            return False

    return check


def _grpc_check(port: int, settings: Settings) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        try:
            # Read each time, as a service that is started again uses what is in the files then.
            certificate, key = settings.tls_cert_file, settings.tls_key_file
            tls = loopback.tls_context(certificate, key) if certificate and key else None
            return await asyncio.wait_for(health.is_serving("127.0.0.1", port, tls=tls), CHECK_SECONDS)
        except (TimeoutError, OSError):
            return False

    return check
