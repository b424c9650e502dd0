"""Says where anybody may sign up while somebody pays for the answers, and where a rule can be walked around."""

from urllib.parse import urlsplit

import asyncpg

from local.environment import LOOPBACK
from local.findings import Finding
from local.settings import Settings

_RULE = "select admits, domains from private.sign_up_rule"
_SUBJECT = "sign-up"
_ADVICE = "Set CONCERTO_SIGN_UP to invitations, domains or closed (then `concerto migrate`), or to open if it is meant."
_SUMMARIES = {
    "open": "open to everybody",
    "domains": "open to addresses of certain domains, and by invitation",
    "invitations": "by invitation",
    "closed": "closed",
}


def pays_for_answers(settings: Settings) -> bool:
    """Whether a key of a model provider is set that is not on this machine."""
    key = settings.variables.get("OPENAI_API_KEY", "")
    try:
        host = urlsplit(settings.variables.get("OPENAI_BASE_URL", "")).hostname
    except ValueError:
        host = None
    return bool(key) and host not in LOOPBACK


def warning_of(settings: Settings, admits: str | None) -> str:
    """Return the warning for people, empty where there is none to give.

    admits: what the database says; None where it was not asked. Who has set `open` has decided.
    """
    if not pays_for_answers(settings) or settings.sign_up is not None or admits not in (None, "open"):
        return ""
    return "Anybody may sign up and ask your paid model." if admits else "Nobody has said who may sign up here."


async def rule_at(url: str) -> str | None:
    """Return whom the rule of the database at `url` admits; None where it cannot be read.

    url: of a role that may. Raises OSError, TimeoutError or asyncpg.PostgresError where there is no connection.
    """
    connection = await asyncpg.connect(url, timeout=10, statement_cache_size=0)
    try:
        row = await connection.fetchrow(_RULE)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError):
        return None
    finally:
        await connection.close()
    return row["admits"] if row is not None else "closed"


def findings_of(settings: Settings, admits: str | None, *, are_addresses_confirmed: bool) -> list[Finding]:
    """Return what there is to say of the rule. admits: as of `rule_at`."""
    warning = warning_of(settings, admits)
    summary = _SUMMARIES[admits] if admits else "not known: the database was not asked"
    if warning:
        return [Finding(_SUBJECT, f"{summary}. {warning}", _ADVICE)]
    if admits in ("domains", "invitations") and not are_addresses_confirmed:
        advice = "Let addresses be confirmed by mail: anybody can write somebody else's (CONCERTO_CONFIRM_EMAIL=true)."
        return [Finding(_SUBJECT, summary, advice)]
    return [Finding(_SUBJECT, summary)]
