"""The settings of the login role, as its schema file has them: it may change its own, so they are set anew."""

import re
from pathlib import Path

from local.embedded.postgres import LOGIN_ROLE

FILE = Path("supabase") / "schemas" / "foundation" / "concerto_login.sql"
_SETTING = re.compile(rf"^alter role {LOGIN_ROLE} set (\w+) = ('?)(\w+)\2;$", re.MULTILINE)


def role_settings(project: Path) -> dict[str, str]:
    """Return each setting that sessions of the role begin with, by its name."""
    return {name: value for name, _, value in _SETTING.findall((project / FILE).read_text())}


def role_statements(project: Path) -> str:
    """Return the statements that give the role these settings and no others."""
    chosen = [f"set {name} = '{value}'" for name, value in role_settings(project).items()]
    return " ".join(f"alter role {LOGIN_ROLE} {change};" for change in ("reset all", *chosen))
