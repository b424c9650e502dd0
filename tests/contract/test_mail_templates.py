import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract import ROOT

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())
TEMPLATES: dict[str, Any] = CONFIG["auth"]["email"]["template"]
FOLDER = ROOT / "supabase" / "templates"
# What the mail was sent for, as the link says; a reauthentication has no link.
TYPES = {
    "confirmation": "signup",
    "recovery": "recovery",
    "magic_link": "magiclink",
    "invite": "invite",
    "email_change": "email_change",
}
# Of what the auth server of a hosted project fills in, what the embedded one fills in too.
VARIABLES = {"SiteURL", "RedirectTo", "Token", "TokenHash", "Email", "NewEmail"}


def text_of(kind: str) -> str:
    return (ROOT / TEMPLATES[kind]["content_path"]).read_text()


def test_every_mail_with_a_code_has_a_template_of_ours_and_no_file_is_left_over() -> None:
    assert set(TEMPLATES) == {*TYPES, "reauthentication"}
    assert {Path(each["content_path"]).name for each in TEMPLATES.values()} == {file.name for file in FOLDER.iterdir()}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_mail_is_called_what_its_template_says_and_holds_its_code(kind: str) -> None:
    text = text_of(kind)
    assert f"<title>{TEMPLATES[kind]['subject']}</title>" in text
    assert "{{ .Token }}" in text
    assert set(re.findall(r"\{\{(.*?)\}\}", text)) <= {f" .{name} " for name in VARIABLES}


@pytest.mark.parametrize("kind", TYPES)
def test_a_link_leads_to_a_page_and_is_spent_by_nobody_who_only_opens_it(kind: str) -> None:
    (address,) = re.findall(r'href="([^"]*)"', text_of(kind))
    email = "{{ .NewEmail }}" if kind == "email_change" else "{{ .Email }}"
    assert address == f"{{{{ .RedirectTo }}}}#token_hash={{{{ .TokenHash }}}}&amp;type={TYPES[kind]}&amp;email={email}"
    assert f"{{{{ .SiteURL }}}}/confirm/?type={TYPES[kind]}" in text_of(kind)


def test_both_addresses_of_a_change_are_asked() -> None:
    assert CONFIG["auth"]["email"]["double_confirm_changes"] is True
