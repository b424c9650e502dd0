"""Whether the suite's ports are free, and if not, who has them."""

import contextlib
import random
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from local.settings import Settings

COMMAND_LENGTH = 80


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def owner_of(port: int) -> str:
    """Who listens on a port: name, process id and shortened command line, as far as this user may see it."""
    with contextlib.suppress(psutil.AccessDenied, OSError):
        for connection in psutil.net_connections("tcp"):
            if _listens(connection.status, connection.laddr, port) and connection.pid:
                return _describe(connection.pid)
    for pid in psutil.pids():  # some systems let a user see only the sockets of their own processes
        with contextlib.suppress(psutil.Error, OSError):
            listening = psutil.Process(pid).net_connections("tcp")
            if any(_listens(c.status, c.laddr, port) for c in listening):
                return _describe(pid)
    return "a process of another user"


def _listens(status: str, address: tuple[object, ...], port: int) -> bool:
    return status == psutil.CONN_LISTEN and len(address) > 1 and address[1] == port


def _describe(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        command = " ".join(process.cmdline())
        shortened = command if len(command) <= COMMAND_LENGTH else command[: COMMAND_LENGTH - 1] + "…"
        name = process.name()
        with contextlib.suppress(psutil.AccessDenied):
            name = Path(process.exe()).name or name  # a process may call itself anything
        return f"{name} (process {pid}: {shortened})"
    return f"process {pid}"


def listen(port: int, host: str) -> socket.socket:
    """Return a socket that listens there, to be handed to the processes that serve it. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def describe_taken(settings: Settings, ports: Mapping[str, int]) -> list[str]:
    """One sentence for each of these ports that somebody else has, by the process's name; empty when all are free."""
    problems: list[str] = []
    for name, port in ports.items():
        # Other processes, and replicas of the gateway, listen on the loopback address.
        host = settings.gateway_host if port == settings.port else "127.0.0.1"
        if not is_free(port, host):
            problems.append(f"Port {port} ({name}) is taken by {owner_of(port)}.")
    return problems


def free_base(settings: Settings, count: int, *, is_any: bool = False) -> int | None:
    """A nearby base port with `count` free ports after it; None when none is found.

    is_any: a random one, for commands that take it at once, so that two of them hardly ever meet; else the lowest.
    """
    bases = range(8100, 12000, 100)
    for base in random.sample(bases, len(bases)) if is_any else bases:
        if base != settings.port and all(is_free(base + offset) for offset in range(count)):
            return base
    return None
