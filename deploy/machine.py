"""Podman on this machine, with images, networks and volumes of its own in build/, and nothing left behind."""

import contextlib
import os
import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy import tools
from deploy.tools import BUILD, ROOT
from local.console import Console
from local.settings import read_environment

FOLDER = BUILD / "containers"
PACKAGES = {
    "podman": "podman", "runc": "runc", "debootstrap": "debootstrap", "iptables": "iptables",
    "/usr/lib/podman/netavark": "netavark", "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}  # fmt: skip
"""What is needed, and the Debian package that has it."""
# What containers may use at most; less where this machine allows less.
LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 20_000), "nproc": (resource.RLIMIT_NPROC, 20_000)}
TAIL_LINES = 40


class NoPodmanError(Exception):
    """Podman cannot be had on this machine. The message says why."""


class PodmanError(Exception):
    """A command has failed. The message holds the end of what it said."""


class Machine:
    """Runs podman and podman-compose with an own store. Leaving `opened` takes away all that ran."""

    def __init__(self, console: Console) -> None:
        self._console = console
        real = read_environment()
        path = os.pathsep.join((str(tools.TOOLS / "bin"), real.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        self.environment = {**real, "PATH": path}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, console: Console) -> Iterator["Machine"]:
        """Yield the machine; afterwards end every container, network, volume, mount and firewall rule of ours.

        Raises NoPodmanError where podman is absent and cannot be installed.
        """
        machine = cls(console)
        machine._install()
        machine._configure()
        chains = _chains()
        machine.clear()  # what a killed run has left
        try:
            yield machine
        finally:
            with console.step("containers, networks, volumes and mounts removed"):
                machine.clear()
                _remove_chains(keep=chains)

    def _install(self) -> None:
        missing = [package for name, package in PACKAGES.items() if not self._has(name)]
        if not missing:
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NoPodmanError(f"missing here are {', '.join(missing)}; as root on Debian they would be installed")
        environment = {**self.environment, "DEBIAN_FRONTEND": "noninteractive"}
        with self._console.step(f"installed: {', '.join(missing)}"):
            for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", *missing)):
                done = subprocess.run(
                    ["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False
                )
                if done.returncode != 0:
                    raise NoPodmanError(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")

    def _has(self, program: str) -> bool:
        return shutil.which(program, path=self.environment["PATH"]) is not None

    def _configure(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        storage, containers = FOLDER / "storage.conf", FOLDER / "containers.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{FOLDER}/root"\nrunroot = "{FOLDER}/run"\n')
        limits = []
        for name, (which, most) in LIMITS.items():
            hard = resource.getrlimit(which)[1]
            value = most if hard == resource.RLIM_INFINITY else min(most, hard)
            limits.append(f'"{name}={value}:{value}"')
        containers.write_text(
            f"[containers]\ndefault_ulimits = [{', '.join(limits)}]\n"
            # Neither systemd nor a journal need be there, and crun refuses some kernels that runc takes.
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'tmp_dir = "{FOLDER / "tmp"}"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{FOLDER}/networks"\n'
        )
        self.environment |= {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)}

    def podman(self, *arguments: str, check: bool = True, stdin: Path | None = None) -> str:
        """Run podman and return what it printed. Raises PodmanError when it fails and `check` is set."""
        return self.run("podman", *arguments, check=check, stdin=stdin)

    def run(
        self, *command: str, check: bool = True, stdin: Path | None = None, extra: Mapping[str, str] | None = None
    ) -> str:
        """Run a command with podman's settings and return what it printed; `extra` joins its environment."""
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
            done = subprocess.run(
                command, cwd=ROOT, env={**self.environment, **(extra or {})}, stdin=source,
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
        if check and done.returncode != 0:
            output = f"{done.stdout.rstrip()}\n{done.stderr.rstrip()}"
            tail = "\n".join(output.splitlines()[-TAIL_LINES:])
            raise PodmanError(f"{tail}\n{' '.join(command[:6])} failed with exit code {done.returncode}.")
        return done.stdout

    def is_healthy(self, container: str) -> tuple[bool, str]:
        """Run a container's health check, which podman does not do by itself without systemd; also what it said."""
        done = subprocess.run(
            ["podman", "healthcheck", "run", container],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode == 0, f"{done.stdout} {done.stderr}".strip()

    def clear(self) -> None:
        """Take away every container, network and volume of our store, and its mounts. Images stay for the next time."""
        if not (FOLDER / "root").exists():
            return
        self.podman("rm", "--all", "--force", "--time", "5", check=False)
        self.podman("network", "prune", "--force", check=False)
        self.podman("volume", "prune", "--force", check=False)
        self.podman("umount", "--all", check=False)
        for mount in reversed(_mounts_under(FOLDER)):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)


def _mounts_under(folder: Path) -> list[str]:
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    paths = [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]
    return [path for path in paths if path.startswith(f"{folder}/")]


def _chains() -> set[tuple[str, str]]:
    """Return (table, chain) of the firewall chains that podman's network program has made."""
    found: set[tuple[str, str]] = set()
    for table in ("nat", "filter"):
        found |= {(table, line.split()[1]) for line in _rules(table) if line.startswith(("-N NETAVARK", "-N NV_"))}
    return found


def _remove_chains(*, keep: set[tuple[str, str]]) -> None:
    # Netavark leaves its chains when its last network goes.
    for table, chain in _chains() - keep:
        for rule in _rules(table):
            if rule.startswith("-A ") and rule.split()[1] != chain and rule.endswith(f"-j {chain}"):
                words = shlex.split(rule)[1:]
                subprocess.run(["iptables", "-t", table, "-D", *words], capture_output=True, check=False)
        subprocess.run(["iptables", "-t", table, "-F", chain], capture_output=True, check=False)
    for table, chain in _chains() - keep:
        subprocess.run(["iptables", "-t", table, "-X", chain], capture_output=True, check=False)


def _rules(table: str) -> list[str]:
    if shutil.which("iptables") is None:
        return []
    done = subprocess.run(["iptables", "-t", table, "-S"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
