import subprocess
from importlib import metadata
from typing import Any

import pytest
import typer

from local.cli import app
from local.setup.bootstrap import LAUNCHER


def commands() -> list[tuple[str, ...]]:
    """Return every command as it is typed, groups too."""
    found: list[tuple[str, ...]] = []

    def add(command: Any, path: tuple[str, ...]) -> None:
        found.append(path)
        for name, each in getattr(command, "commands", {}).items():
            add(each, (*path, name))

    add(typer.main.get_command(app), ())
    return found


def concerto(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(LAUNCHER), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", [(), ("up",), ("sign-up",), ("sign-up", "show")], ids=" ".join)
def test_help_shows_values_alone(path: tuple[str, ...]) -> None:
    shown = concerto(*path, "--help").stdout
    assert "<bool>" not in shown
    assert f"Usage: {' '.join(('concerto', *path))} " in shown
    assert "Show this message and exit." in shown
    assert ("<int>" in shown) == (path == ("up",))


def test_every_command_is_helped_in_the_same_way() -> None:
    from typer.testing import CliRunner

    runner = CliRunner()
    assert len(commands()) > 15
    for path in commands():
        result = runner.invoke(app, [*path, "--help"])
        assert result.exit_code == 0, path
        assert "<bool>" not in result.output, path


def test_the_version_is_that_of_the_distribution() -> None:
    done = concerto("--version")
    assert (done.returncode, done.stdout) == (0, f"concerto {metadata.version('concerto')}\n")


def test_an_unknown_command_is_refused() -> None:
    done = concerto("fly")
    assert done.returncode == 2
    assert "fly" in done.stderr
