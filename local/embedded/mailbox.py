"""The e-mails that the embedded Supabase keeps as files instead of sending them."""

import json
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError


class Mail(BaseModel):
    """One kept e-mail. `code` is the one-time code in it, `links` are the addresses to follow."""

    to: str
    subject: str
    sent_at: datetime
    code: str | None = None
    links: list[str] = []
    text: str = ""

    def describe(self) -> str:
        """The whole e-mail for a terminal."""
        lines = [f"To:      {self.to}", f"Subject: {self.subject}", f"Sent:    {self.sent_at:%Y-%m-%d %H:%M:%S %Z}"]
        if self.code:
            lines.append(f"Code:    {self.code}")
        lines += [f"Link:    {link}" for link in self.links]
        return "\n".join([*lines, "", self.text.strip()])


def read_mails(home: Path) -> list[Mail]:
    """All kept e-mails, oldest first; files that are not e-mails are passed over."""
    mails: list[Mail] = []
    for file in sorted((home / "mail").glob("[!.]*.json")):
        try:
            mails.append(Mail.model_validate(json.loads(file.read_text())))
        except (OSError, ValueError, ValidationError):
            continue
    return mails
