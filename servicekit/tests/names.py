"""A DNS server of the tests' own: the addresses of one name, as they are at the moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

NAME = "sessions.test"


class Names(asyncio.DatagramProtocol):
    """Answers questions for NAME with `addresses`, and that there is no such name when there are none."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = list(addresses)
        self.port = 0
        self.questions = 0
        self._transport: Any = None

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, *addresses: str) -> AsyncIterator["Names"]:
        """Serve on a free UDP port of 127.0.0.1 while the block runs."""
        names = cls(addresses)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: names, local_addr=("127.0.0.1", 0)
        )
        names.port = transport.get_extra_info("sockname")[1]
        try:
            yield names
        finally:
            transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = DNSRecord.parse(data)
        answer = question.reply()
        asked = str(question.q.qname).rstrip(".").lower()
        if asked != NAME or not self.addresses:
            answer.header.rcode = RCODE.NXDOMAIN
        elif question.q.qtype == QTYPE.A:
            self.questions += 1
            for address in self.addresses:
                answer.add_answer(RR(NAME, QTYPE.A, rdata=A(address), ttl=0))
        self._transport.sendto(answer.pack(), addr)

    def target(self, port: int) -> str:
        """Return the target with which a channel asks this server."""
        return f"dns://127.0.0.1:{self.port}/{NAME}:{port}"
