"""`concerto sign-up`: shows who may sign up, invites people and takes invitations back."""

import asyncio
from typing import Annotated

import typer

from local.embedded.credentials import read_credentials
from local.embedded.postgres import Postgres
from local.settings import Settings, SettingsError, load_settings
from local.suite.state import read_state
from local.target import TargetName, TargetOption

app = typer.Typer(help="Who may sign up: show it, invite people, take invitations back.", no_args_is_help=True)
Emails = Annotated[list[str], typer.Argument(help="E-mail addresses, in any spelling.")]


@app.command()
def show(target: TargetOption = TargetName.EMBEDDED) -> None:
    """Show whom the database admits, and the invitations that nobody has used yet."""
    from local.sign_up.invitations import Invitations
    from local.sign_up.warning import rule_at

    url = _owner_url(load_settings(), target)

    async def look() -> None:
        typer.echo(f"Sign-up: {await rule_at(url) or 'not judged yet; apply the migrations: concerto migrate'}")
        for each in await Invitations(url).all():
            until = f"until {each.expires_at:%Y-%m-%d %H:%M} UTC" if each.expires_at else "without an end"
            typer.echo(f"  {each.email:<40} {until}")

    asyncio.run(look())


@app.command()
def invite(
    emails: Emails,
    days: Annotated[int, typer.Option(min=0, max=3650, help="How long they may sign up; 0: without an end.")] = 14,
    target: TargetOption = TargetName.EMBEDDED,
) -> None:
    """Let addresses sign up where the rule asks for an invitation. No mail is sent: tell them where Concerto is."""
    from local.sign_up.invitations import Invitations

    spelt = _spelt(emails)
    taken = asyncio.run(Invitations(_owner_url(load_settings(), target)).invite(spelt, days=days or None))
    for email in spelt:
        typer.echo(f"{email}: {'has an account' if email in taken else 'may sign up'}")


@app.command()
def withdraw(emails: Emails, target: TargetOption = TargetName.EMBEDDED) -> None:
    """Take invitations back. Accounts that were made with one stay."""
    from local.sign_up.invitations import Invitations

    count = asyncio.run(Invitations(_owner_url(load_settings(), target)).withdraw(_spelt(emails)))
    typer.echo(f"Taken back: {count} of {len(emails)}.")


def _owner_url(settings: Settings, target: TargetName) -> str:
    if target is TargetName.HOSTED:
        from local.migrations.supabase_cli import address_target, with_tls

        url = settings.migration_db_url.get_secret_value()
        if not url:
            raise SettingsError("Set SUPABASE_MIGRATION_DB_URL: the address of the project's role postgres.")
        address_target(url, home=settings.home / "run")  # refuses what is no such address
        return with_tls(url)
    if settings.is_hosted:
        raise SettingsError("SUPABASE_URL names a project of your own: add --target hosted.")
    state = read_state(settings.home)
    if state is None or state.supervisor is None or "postgres" not in state.processes:
        raise SettingsError("The database does not run. Start it: concerto up --only postgres,supabase --detach")
    return Postgres(settings.home, state.processes["postgres"].port, read_credentials(settings.home)).admin_url


def _spelt(emails: list[str]) -> list[str]:
    from servicekit import spelling

    found = []
    for email in emails:
        local, _, domain = email.strip().rpartition("@")
        try:
            if not local or not domain or "@" in local or email.strip() != "".join(email.split()):
                raise ValueError
            found.append(spelling.address(email))
        except ValueError:
            raise SettingsError(f"{email[:100]!r} is no e-mail address. Nobody was invited or taken back.") from None
    return list(dict.fromkeys(found))
