"""What all connections of a process share: who has how many, what they hold together, and how time passes for them."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol, Self, cast

import structlog
from uvicorn.server import ServerState

from gateway import addresses
from gateway.connections.limits import Limits

_LOG = structlog.stdlib.get_logger(__name__)


class Connection(Protocol):
    """What is asked of a connection."""

    client: tuple[str, int] | None
    """Its other end; None where that is no address."""
    address: str | None
    """As whose it counts; None when it counts as nobody's."""

    @property
    def stalled_ticks(self) -> int:
        """For how long the client has taken next to nothing of what waits for it."""

    def check(self, *, is_crowded: bool) -> int:
        """End the connection if its client takes too long; return how many bytes wait for it."""

    def cut(self) -> None:
        """End the connection at once, with all that waits for it."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """The limits of time, in ticks."""

    head: int
    idle: int
    crowded_idle: int
    send: int
    linger: int

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """Return the limits' times."""
        return cls(
            head=limits.ticks(limits.head_seconds),
            idle=limits.ticks(limits.idle_seconds),
            crowded_idle=limits.ticks(limits.crowded_idle_seconds),
            send=limits.ticks(limits.send_seconds),
            linger=limits.ticks(limits.linger_seconds),
        )


class State(ServerState):
    """What all connections of a server share.

    Time passes in ticks, in which all of them are looked at: a timer for each would cost every request something. A
    tick comes late when the process is busy, and so what we keep waiting is not taken for a client that is slow.
    trusted_proxies: whose connections are not counted, as many clients share them.
    """

    def __init__(self, limits: Limits, trusted_proxies: Collection[str] = ()) -> None:
        super().__init__()
        self.limits = limits
        self.ticks = Ticks.of(limits)
        self.tick = 0
        """How often all connections were looked at."""
        self.is_leaving = False
        """True once the process is to stop: each connection then ends with its next answer, which says so.

        A client that is told opens another one elsewhere; one whose idle connection is just closed may lose a
        request."""
        self.refused: Counter[str] = Counter()
        """Connections that were ended because of their client since the last tick, by reason."""
        self._by_address: Counter[str] = Counter()
        self._trusts_all = "*" in trusted_proxies
        self._trusted = _networks(trusted_proxies)

    def admit(self, connection: Connection) -> str | None:
        """Count a new connection; return the reason for which it is refused, None when it is not."""
        if len(self.connections) > self.limits.connections:
            return "GATEWAY_FULL"
        if connection.client is None or self._is_trusted(connection.client[0]):
            return None
        address = connection.address = addresses.network_of(connection.client[0])
        self._by_address[address] += 1
        count = self._by_address[address]
        return "TOO_MANY_CONNECTIONS" if count > self.limits.per_address else None

    def may_answer(self, connection: Connection) -> bool:
        """Say whether a refused connection is answered; where very many are refused, the others are just closed."""
        limits = self.limits
        if connection.address is None:
            return len(self.connections) <= limits.connections + limits.refusals
        return self._by_address[connection.address] <= limits.per_address + limits.refusals

    def forget(self, connection: Connection) -> None:
        """Count a connection no more, as it has ended."""
        address, connection.address = connection.address, None
        if address is None:
            return
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def watch(self) -> None:
        """Look at all connections again and again."""
        while True:
            await asyncio.sleep(self.limits.tick_seconds)
            self.look()

    def look(self) -> None:
        """Let a tick pass: end the connections whose clients take too long, or whose answers take too much room."""
        self.tick += 1
        is_crowded = len(self.connections) > self.limits.connections * 0.9
        waiting: list[tuple[int, int, Connection]] = []
        total = 0
        for connection in [cast(Connection, one) for one in self.connections]:
            size = connection.check(is_crowded=is_crowded)
            if size:
                total += size
                waiting.append((connection.stalled_ticks, size, connection))
        if total > self.limits.unsent_bytes:
            for _, size, connection in sorted(waiting, key=lambda one: one[:2], reverse=True):
                connection.cut()
                self.refused["TOO_MUCH_UNSENT"] += 1
                total -= size
                if total <= self.limits.unsent_bytes:
                    break
        if self.refused:
            _LOG.info("connections.ended", open=len(self.connections), **self.refused)
            self.refused.clear()

    def _is_trusted(self, host: str) -> bool:
        if self._trusts_all or not self._trusted:
            return self._trusts_all
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _networks(entries: Collection[str]) -> list[IPv4Network | IPv6Network]:
    found = []
    for entry in entries:
        try:
            found.append(ip_network(entry, strict=False))
        except ValueError:  # `*`, or a name
            continue
    return found
