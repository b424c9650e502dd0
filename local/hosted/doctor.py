"""`concerto doctor --target hosted`: looks at a hosted project from outside, and says how to fix what is wrong."""

import contextlib
from pathlib import Path

import asyncpg
from pydantic import ValidationError

from local.console import Console
from local.doctor import check_model, check_processes, check_variables, known_names
from local.embedded.credentials import Credentials
from local.findings import Finding, show
from local.hosted.api import check_api
from local.hosted.database import check_database
from local.hosted.migrate import HostedProject
from local.migrations.supabase_cli import MigrationError, with_tls
from local.settings import ROOT, SettingsError, load_settings
from local.settings import Settings as LocalSettings
from local.sign_up.warning import findings_of, rule_at
from local.suite.processes import node_program, service_environment, suite_variables
from servicekit.outgoing import clients
from services.sessions.settings import Settings


async def run(console: Console) -> int:
    """Print every finding; 1 when something is wrong, otherwise 0."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return show([Finding("settings", str(error), "Correct it in the environment or in .env.")], console)
    return show(await examine(settings, ROOT), console)


async def examine(settings: LocalSettings, project: Path) -> list[Finding]:
    """Every finding about the project that the settings name, and about settings that do not fit it."""
    if not settings.is_hosted:
        advice = "Set SUPABASE_URL and what belongs to it; docs/hosted.md begins with nothing."
        return [Finding("SUPABASE_URL", "names no hosted project", advice)]
    findings = check_variables(settings.variables, known_names(project))
    reported = {finding.subject for finding in findings}
    findings += [finding for finding in check_processes(settings) if finding.subject not in reported]
    async with clients.client() as client:
        findings += await check_api(settings, client)
    try:
        # Keys of ours that are not set are made where the services start.
        suite = suite_variables(settings, Credentials.generate(), None)
        environment = service_environment("sessions", settings, suite)
        services = Settings.model_validate(environment)
    except ValidationError:
        pass  # said already, by the check of each process's settings
    else:
        findings += await check_database(services)
    findings += check_service_key(settings)
    findings += await check_model(settings)
    findings += await check_migrations(settings, project)
    findings += await check_sign_up(settings)
    return findings


async def check_sign_up(settings: LocalSettings) -> list[Finding]:
    """Who may sign up, where the database's owner can be asked; otherwise as far as the settings tell."""
    url = settings.migration_db_url.get_secret_value()
    admits: str | None = settings.sign_up
    with contextlib.suppress(
        MigrationError, OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError
    ):
        admits = (await rule_at(with_tls(url)) if url else None) or admits
    # Whether the project confirms addresses is said of the project itself.
    return findings_of(settings, admits, are_addresses_confirmed=True)


def check_service_key(settings: LocalSettings) -> list[Finding]:
    """Whether the services that run elsewhere can know each other."""
    if "CONCERTO_SERVICE_KEY" in settings.variables:
        return [Finding("CONCERTO_SERVICE_KEY", "is set; it must be the same for orchestrator and sessions everywhere")]
    advice = "Set it for the orchestrator and the sessions service, from openssl rand -hex 32."
    if settings.environment == "production":
        return [Finding("CONCERTO_SERVICE_KEY", "is missing", advice)]
    return [Finding("CONCERTO_SERVICE_KEY", "is made by `concerto up` for this machine alone", hint=advice)]


async def check_migrations(settings: LocalSettings, project: Path) -> list[Finding]:
    """Whether the project has the migrations of the working copy, and what Supabase's advisors say."""
    linked = (project / "supabase" / ".temp" / "project-ref").is_file()
    if not (settings.migration_db_url.get_secret_value() or settings.project_id or linked):
        hint = "Set SUPABASE_MIGRATION_DB_URL (or SUPABASE_PROJECT_ID and its password) where migrations are applied."
        return [Finding("migrations", "were not compared", hint=hint)]
    try:
        hosted = HostedProject(settings, project, node=node_program())
        found = await hosted.history()
        history, folded = found.at_baseline(), found.folded
        clean, report = await hosted.advise()
    except MigrationError as error:
        return [Finding("migrations", "cannot be compared", str(error))]
    findings = []
    if folded:
        subject = f"the history names {len(folded)} that stand in the baseline now"
        findings.append(Finding("migrations", subject, "concerto migrate --target hosted"))
    if history.unknown:
        advice = "`git pull`; docs/migrations.md, Repair, says what else it can be."
        findings.append(Finding("migrations", f"applied, but no file here: {', '.join(history.unknown)}", advice))
    if history.pending:
        advice = "concerto migrate --target hosted"
        findings.append(Finding("migrations", f"{len(history.pending)} pending: {', '.join(history.pending)}", advice))
    if not findings:
        findings.append(Finding("migrations", f"all {len(history.applied)} applied"))
    findings.append(Finding("advisors", "nothing to say") if clean else Finding("advisors", "found something", report))
    return findings
