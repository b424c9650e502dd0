"""Reads a file of settings such as `.env`, whichever editor wrote it, or says in a sentence where it cannot be read."""

import io
from pathlib import Path

from dotenv import dotenv_values

_ADVICE = "Save the file as UTF-8."


class SettingsFileError(ValueError):
    """The file cannot be read. The message names the file and the line, and nothing that is in it."""


def read(file: Path) -> dict[str, str | None]:
    """Return what the file sets, by name; nothing where there is no file. A mark of UTF-8 at its beginning is left out.

    Raises SettingsFileError.
    """
    if not file.is_file():
        return {}
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsFileError(f"{file} cannot be read ({error.strerror}). Let this user read it.") from None
    return dict(dotenv_values(stream=io.StringIO(_text(file, content))))


def _text(file: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SettingsFileError(f"{file}, line 1: the file is in UTF-16. {_ADVICE}")
    if (position := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise SettingsFileError(f"{file}, line {line}: this is no text in UTF-8, perhaps UTF-16. {_ADVICE}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsFileError(f"{file}, line {line}: this is no text in UTF-8, perhaps Latin-1. {_ADVICE}") from None
