"""Writes the lock files anew: requirements.lock and both package-lock.json, with hashes and without addresses."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from local.environment import for_tools

ROOT = Path(__file__).resolve().parent.parent.parent
NPM_FOLDERS = (ROOT, ROOT / "web")
NPM_FILES = ("package.json", "package-lock.json", ".npmrc")


def main() -> None:
    """Lock the newest versions that pyproject.toml and each package.json allow. Exits with the failing tool's code."""
    lock_python()
    for folder in NPM_FOLDERS:
        lock_node(folder)


def lock_python() -> None:
    """Resolve all extras for every platform and Python version at once."""
    _run(
        [
            str(Path(sys.executable).parent / "uv"), "pip", "compile", "pyproject.toml", "--all-extras", "--universal",
            "--python-version", "3.11", "--generate-hashes", "--quiet", "--output-file", "requirements.lock",
            "--custom-compile-command", "make lock",
        ]
    )  # fmt: skip


def lock_node(project: Path, *, is_anew: bool = False) -> None:
    """Resolve the packages of the project's package.json.

    is_anew: what is locked so far does not count, so that every range gets its newest version.
    It is done in an empty folder, as npm leaves other platforms' packages out when it finds node_modules. An optional
    package that the registry does not hold is taken out of the lock: npm writes a lock with the gap, and `npm ci` then
    refuses it everywhere, also on platforms that do not need the package.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / ".npmrc", folder)
        for name in NPM_FILES:
            if (project / name).exists() and not (is_anew and name == "package-lock.json"):
                shutil.copy(project / name, folder)
        _run(
            [str(ROOT / ".node" / "node"), str((ROOT / ".node" / "npm").resolve()), "install", "--package-lock-only"],
            folder=Path(folder),
        )
        lock = json.loads((Path(folder) / "package-lock.json").read_text())
    for name, gap in gaps(lock):
        del lock["packages"][name]["optionalDependencies"][gap]
        sys.stdout.write(f"not in the registry, left out: {gap} (optional, for {name})\n")
    (project / "package-lock.json").write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n")


def gaps(lock: dict[str, dict[str, dict[str, dict[str, str]]]]) -> list[tuple[str, str]]:
    """Return (entry, optional package) for each optional package that a lock names but does not hold."""
    packages = lock["packages"]
    return [
        (name, wanted)
        for name, entry in packages.items()
        for wanted in entry.get("optionalDependencies", {})
        if f"node_modules/{wanted}" not in packages and f"{name}/node_modules/{wanted}" not in packages
    ]


def _run(command: list[str], *, folder: Path = ROOT) -> None:
    code = subprocess.run(command, cwd=folder, env=for_tools(os.environ), check=False).returncode  # noqa: TID251
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    main()
