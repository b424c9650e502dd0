"""How much and how long the gateway's connections may take, by themselves and all together."""

import contextlib
import math
import resource
from dataclasses import dataclass
from typing import Self

from gateway.settings import Settings

OWN_FILES = 256
"""Files that the process opens for others than its clients: calls to services, logs, files of the web app."""
MOST_FILES = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may take. The defaults are those of the settings."""

    head_bytes: int = 65_536
    """Most bytes of a request's head: request line, fields, and what stands before them."""
    head_fields: int = 500
    """Most fields of a head: each costs more memory than it has bytes."""
    head_seconds: float = 10.0
    """How long a head may take from its first byte on."""
    idle_seconds: float = 75.0
    """How long a connection stays open between requests; balancers keep theirs less long, and so close first."""
    crowded_idle_seconds: float = 5.0
    """The same while nine tenths of all connections are taken."""
    send_seconds: float = 30.0
    """How long a client may take so little of what waits for it (`send_bytes`), before the connection is cut."""
    send_bytes: int = 16_384
    """The least that a client must take of an answer that waits, in `send_seconds`, or all of it."""
    unsent_bytes: int = 64 * 1024 * 1024
    """Most bytes of all answers that wait for their clients; beyond, who has read nothing for longest is cut."""
    held_bytes: int = 65_536
    """Most bytes that are kept of requests sent ahead; a connection with more ends after the answer under way."""
    framing_bytes: int = 16_384
    """Most bytes between two pieces of a chunked body: extensions, and the fields behind it."""
    linger_seconds: float = 3.0
    """How long what still comes is read and dropped when a connection ends, so that the client sees its last answer."""
    linger_bytes: int = 16 * 1024 * 1024
    """The most that is dropped so."""
    per_address: int = 512
    """Most connections of one client address."""
    connections: int = 8192
    """Most connections of all clients."""
    refusals: int = 64
    """Connections beyond either which are told so; further ones are closed without a word."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the settings say, with as many connections as the process may have files."""
        return cls(
            head_seconds=settings.head_timeout_seconds,
            send_seconds=settings.send_timeout_seconds,
            unsent_bytes=settings.max_buffered_bytes,
            per_address=settings.max_connections_per_address,
            connections=max(1, min(settings.max_connections, raise_file_limit() - OWN_FILES)),
        )

    @property
    def tick_seconds(self) -> float:
        """How often all connections are looked at: each second, or more often where a limit is that short."""
        return min(1.0, min(self.head_seconds, self.idle_seconds, self.send_seconds, self.linger_seconds) / 4)

    def ticks(self, seconds: float) -> int:
        """Return after how many ticks so many seconds have passed for certain."""
        return math.ceil(seconds / self.tick_seconds) + 1


def raise_file_limit() -> int:
    """Let the process open as many files as it may, each connection being one; return how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft
