"""`concerto doctor`: looks at the machine, the set-up, the settings and the running suite, and says what to do."""

import difflib
import importlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from pydantic import ValidationError

from local.console import Console
from local.embedded.credentials import Credentials, CredentialsError, credentials_file, read_credentials
from local.embedded.postgres import Postgres, PostgresError
from local.environment import is_unusable
from local.findings import Finding, show
from local.migrations.apply import pending_versions
from local.settings import ROOT, SettingsError, load_settings
from local.settings import Settings as LocalSettings
from local.setup import bootstrap
from local.sign_up.warning import findings_of, rule_at
from local.suite.model import OFFLINE, SUBJECT, is_offline
from local.suite.ports import is_free, owner_of
from local.suite.processes import EMBEDDED, NAMES, node_program, service_environment, suite_variables
from local.suite.state import State, read_state
from servicekit import parts
from servicekit.outgoing.settings import TRUST_VARIABLES, Outgoing
from servicekit.settings import ProcessSettings, TlsSettings
from servicekit.tls import certificates
from servicekit.tls.credentials import WARN_BEFORE
from services.orchestrator import settings as orchestrator
from services.orchestrator.models import provider_check

LEAST_FREE_BYTES = 1024**3
PROCESS_SETTINGS: dict[str, type[ProcessSettings]] = {
    part.name: importlib.import_module(f"{part.module}.settings").Settings for part in parts.PARTS
}
"""What each of our processes reads its environment with."""
PREFIXES = ("CONCERTO_", "SUPABASE_", "OPENAI_", *(f"{part.variable}_" for part in parts.PARTS))
URL_NAMES = (
    "SUPABASE_URL",
    "SUPABASE_JWT_ISSUER",
    "OPENAI_BASE_URL",
    "GATEWAY_PUBLIC_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
PLACEHOLDER = re.compile(r"^(change-?me|your[-_ ].*|<.*>|xxx+|todo)$", re.IGNORECASE)
# Read by tools beside ours, or printed by `concerto env`.
OTHER_NAMES = {"SUPABASE_YES", "SUPABASE_ADMIN_DB_URL", "SUPABASE_SECRET_KEY", "OPENAI_ORG_ID"}
OTHER_NAMES |= {"SUPABASE_TELEMETRY_DISABLED", "SUPABASE_EXPERIMENTAL_STACK"}


async def run(console: Console) -> int:
    """Print every finding; 1 when something is wrong, otherwise 0."""
    findings = [*_machine(), *_setup()]
    try:
        settings = load_settings()
    except SettingsError as error:
        findings.append(Finding("settings", str(error), "Correct it in the environment or in .env."))
    else:
        named = check_variables(settings.variables, known_names(ROOT))
        named += _hosted(settings) if settings.is_hosted else []
        reported = {finding.subject for finding in named}
        named += [finding for finding in check_processes(settings) if finding.subject not in reported]
        findings += named or [Finding("settings", "no mistake found")]
        findings += check_environment(settings.variables)
        findings += check_tls(settings)
        findings += await check_model(settings)
        findings += [] if settings.is_hosted else check_data(settings)
        state = read_state(settings.home)
        running = state if state is not None and state.supervisor is not None else None
        findings += _ports(settings, running)
        if not settings.is_hosted:
            findings += await _database(settings, running)
    return show(findings, console)


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    advice = "" if sys.version_info[:2] >= bootstrap.OLDEST else "Install Python 3.11 or newer, then `make setup`."
    yield Finding("Python", version, advice)
    free = shutil.disk_usage(ROOT).free
    advice = "" if free >= LEAST_FREE_BYTES else "Make room: the database and the packages need 1 GB."
    yield Finding("disk", f"{free / 1024**3:.1f} GB free", advice)


def _setup() -> Iterator[Finding]:
    stale = [step.label for step in bootstrap.steps() if not step.is_done()]
    yield Finding(
        "set-up", f"out of date: {', '.join(stale)}" if stale else "up to date", "Run `make setup`." if stale else ""
    )
    node = node_program()
    yield Finding("Node", "present" if node.exists() else "missing", "" if node.exists() else "Run `make setup`.")


def check_environment(variables: Mapping[str, str]) -> list[Finding]:
    """Proxies, certificates and folders that cannot be used; nothing where all can."""
    problems = [problem.partition(". ") for problem in Outgoing.read(variables).problems]
    findings = [Finding("environment", detail, advice) for detail, _, advice in problems]
    for name, value in sorted(variables.items()):
        if is_unusable(name, value) and name not in TRUST_VARIABLES:
            hint = "It is left out; correct it, or unset it."
            findings.append(Finding("environment", f"{name} names nothing that can be used", hint=hint))
    return findings


async def check_model(settings: LocalSettings) -> list[Finding]:
    """Which model answers, and whether it can: the provider is asked for its list of models, two seconds long."""
    credentials = Credentials.generate()
    suite = suite_variables(settings, credentials, Postgres(settings.home, settings.port_of("postgres"), credentials))
    environment = service_environment("orchestrator", settings, suite)
    if is_offline(environment):
        return [OFFLINE]
    try:
        chosen = orchestrator.Settings.model_validate(environment)
    except ValidationError:
        return []  # has been said of the processes
    found = await provider_check.check(chosen, environment=environment)
    return [Finding(SUBJECT, found.detail, found.advice, found.hint)]


def check_tls(settings: LocalSettings) -> list[Finding]:
    """Whether the certificates between our processes can be used; nothing where none are configured."""
    if not settings.tls_variables:
        return []
    try:
        material = certificates.read(TlsSettings.model_validate(settings.tls_variables))
    except ValidationError:
        return []  # has been said of the processes
    except certificates.CertificateError as error:
        return [Finding("TLS", "the certificates cannot be used", str(error))]
    detail = "certificates read"
    if material.ends_at is not None:
        detail = f"the certificate ends at {material.ends_at:%Y-%m-%d %H:%M} UTC"
        # By this address our processes call each other on this machine.
        if material.authority is not None and "127.0.0.1" not in material.names:
            names = ", ".join(sorted(material.names)) or "nothing"
            return [Finding("TLS", f"the certificate is for {names}", "Issue it for IP:127.0.0.1 too.")]
        if material.ends_at - datetime.now(UTC) < WARN_BEFORE:
            return [Finding("TLS", detail, "Renew it: see docs/tls.md.")]
    return [Finding("TLS", detail)]


def known_names(project: Path) -> set[str]:
    """Every variable that .env.example explains."""
    try:
        text = (project / ".env.example").read_text()
    except OSError:
        return set()
    return set(re.findall(r"^\s*#?\s*([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))


def check_variables(variables: Mapping[str, str], known: set[str]) -> list[Finding]:
    """Misspelt names, addresses that are none, placeholders, and settings that only make sense together."""
    findings: list[Finding] = []
    known = known | OTHER_NAMES
    for name, value in sorted(variables.items()):
        if not name.startswith(PREFIXES):
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if close:
                findings.append(Finding(name, "is not a setting", f"Did you mean {close[0]}?"))
            elif name.startswith("CONCERTO_"):
                findings.append(Finding(name, "is not a setting", "Remove it; .env.example lists all of them."))
        if PLACEHOLDER.match(value.strip()):
            findings.append(Finding(name, "holds a placeholder", "Set the real value, or remove it."))
        elif name in URL_NAMES and not _is_url(value):
            findings.append(Finding(name, "is not a web address", "Write it whole: https://host/path."))
        elif name.endswith("_PORT") and not (value.isdigit() and 0 < int(value) < 65536):
            findings.append(Finding(name, "is not a port", "Use a number from 1 to 65535."))
    for provider in ("GITHUB", "GOOGLE"):
        names = (f"CONCERTO_{provider}_CLIENT_ID", f"CONCERTO_{provider}_CLIENT_SECRET")
        missing = [name for name in names if name not in variables]
        if len(missing) == 1:
            findings.append(Finding(missing[0], "is missing", "Set both variables of this provider, or neither."))
    origins = [part.strip(" \t[]\"'") for part in variables.get("GATEWAY_CORS_ORIGINS", "").split(",")]
    if any(origin and origin != "*" and not _is_url(origin) for origin in origins):
        findings.append(
            Finding("GATEWAY_CORS_ORIGINS", "holds something else than origins", "Use https://host[:port].")
        )
    return findings


def check_processes(settings: LocalSettings) -> list[Finding]:
    """Every variable with which one of our processes would refuse to start, once."""
    # Credentials that are made up: what the embedded stack adds is right, only what a person has set can be wrong.
    credentials = Credentials.generate()
    postgres = Postgres(settings.home, settings.port_of("postgres"), credentials)
    suite = suite_variables(settings, credentials, postgres)
    found: dict[str, Finding] = {}
    for name, kind in PROCESS_SETTINGS.items():
        try:
            kind.model_validate(service_environment(name, settings, suite))
        except ValidationError as error:
            for problem in error.errors(include_input=False, include_url=False):
                subject = ".".join(map(str, problem["loc"])) or name
                detail = problem["msg"].removeprefix("Value error, ")
                advice = f"Correct it, or {name} does not start; .env.example explains it."
                found.setdefault(subject, Finding(subject, detail, advice))
    return list(found.values())


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _hosted(settings: LocalSettings) -> Iterator[Finding]:
    hint = "`concerto doctor --target hosted` looks at the project itself."
    yield Finding("Supabase", f"your project at {settings.supabase_url}", hint=hint)
    if "SUPABASE_PUBLISHABLE_KEY" not in settings.variables:
        yield Finding("SUPABASE_PUBLISHABLE_KEY", "is missing", "Copy it from the project's API settings.")
    database = settings.variables.get("SUPABASE_DB_URL", "")
    if database and not database.startswith(("postgres://", "postgresql://")):
        yield Finding(
            "SUPABASE_DB_URL", "is not a Postgres address", "Copy it from the project, or unset it to use REST."
        )


def check_data(settings: LocalSettings) -> Iterator[Finding]:
    """Whether the data folder can be used, and is closed to others."""
    home = settings.home
    if not bootstrap.can_write(home):
        yield Finding("data", f"{home} cannot be written", "Set CONCERTO_HOME to a folder of your own.")
        return
    if not home.exists():
        yield Finding("data", f"{home} is made at the first start")
    elif home.stat().st_mode & 0o066:
        yield Finding("data", f"{home} is open to others", f"chmod 700 {home}")
    else:
        yield Finding("data", str(home))
    file = credentials_file(home)
    if file.exists() and file.stat().st_mode & 0o077:
        yield Finding("secrets", f"{file} can be read by others", f"chmod 600 {file}")
    elif (home / "postgres").exists() and not file.exists():
        yield Finding("secrets", f"{file} is missing", f"Restore it, or move {home} away and start afresh.")
    else:
        yield Finding("secrets", "closed to others")


def _ports(settings: LocalSettings, running: State | None) -> Iterator[Finding]:
    names = [name for name in NAMES if not (settings.is_hosted and name in EMBEDDED)]
    if running is not None:
        missing = [name for name, recorded in running.processes.items() if recorded.find() is None]
        detail = f"{running.address}, process {running.pid}"
        if missing:
            detail += f"; not running: {', '.join(missing)}"
        yield Finding("suite", detail, f"See `concerto logs {missing[0]}`." if missing else "")
        return
    taken = [name for name in names if not is_free(settings.port_of(name))]
    for name in taken:
        port = settings.port_of(name)
        advice = "End that process, or move all ports with CONCERTO_PORT."
        yield Finding("port", f"{port} ({name}) is taken by {owner_of(port)}", advice)
    if not taken:
        yield Finding("ports", f"{settings.port} to {settings.port + len(NAMES) - 1} are free; the suite does not run")


async def _database(settings: LocalSettings, running: State | None) -> list[Finding]:
    recorded = running.processes.get("postgres") if running else None
    try:
        credentials = read_credentials(settings.home)
        port = recorded.port if recorded else settings.port_of("postgres")
        postgres = Postgres(settings.home, port, credentials)
        _ = postgres.account
    except (CredentialsError, OSError):
        return []  # a new data folder; what is wrong with an old one has been said
    except PostgresError as error:
        return [Finding("Postgres", "cannot run here", str(error))]
    if recorded is None:
        return [Finding("Postgres", "does not run; it starts with `make up`")]
    try:
        pending = await pending_versions(ROOT, postgres.admin_url)
        admits = await rule_at(postgres.admin_url)
    except (TimeoutError, OSError, asyncpg.PostgresError):
        return [Finding("Postgres", f"does not answer on port {port}", "See `concerto logs postgres`.")]
    advice = "Run `concerto migrate`." if pending else ""
    detail = f"{len(pending)} migrations are pending" if pending else "reachable, all migrations applied"
    confirmed = settings.confirm_email
    return [Finding("Postgres", detail, advice), *findings_of(settings, admits, are_addresses_confirmed=confirmed)]
