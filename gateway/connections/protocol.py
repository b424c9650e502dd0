"""One connection of a client: what it may send, how long it may take, and what becomes of it otherwise."""

import asyncio
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.connections import refusals
from gateway.connections.state import State
from gateway.connections.transport import Joining

_END_OF_HEAD = b"\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, one request after the other, within the limits of `State`.

    Of a client's bytes no more than one request is understood at a time; what is sent ahead waits as it came.
    """

    def __init__(
        self,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.state = server_state
        self.limits = server_state.limits
        self._head_fields = server_state.limits.head_fields
        self.address: str | None = None
        """As whose the connection counts; None when it counts as nobody's."""
        self._since = server_state.tick
        """Since when the client is waited for: to begin, to end its head, or to hang up."""
        self._has_begun = False
        """Whether a request is being received: its first byte is there and its last one not."""
        self._is_in_head = False
        self._head_bytes = 0
        self._head_tail = b""
        self._body_left: int | None = 0
        """Bytes of the body that are still to come; None while only its end will tell."""
        self._framing_bytes = 0
        self._may_stay = False
        """Whether the connection outlives the answer once the body is there."""
        self._held = b""
        self._is_discarding = False
        """True once nothing that comes is a request any more."""
        self._dropped_bytes = 0
        self._stalled_since: int | None = None
        self._taken_bytes = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection, if there is room for it."""
        joining = Joining(transport, self.loop, self._may_be_sending)
        super().connection_made(joining)  # type: ignore[arg-type]
        self._since = self.state.tick
        refusal = self.state.admit(self)
        if refusal is None:
            return
        if self.state.may_answer(self):
            self._refuse(refusal)
        else:
            self.state.refused[refusal] += 1
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with a connection."""
        self.state.forget(self)
        self._held = b""
        self._is_discarding = True
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close when the answer that is under way has ended, without waiting for what else the client sends."""
        if self._joining.is_ending:
            self.transport.close()
        super().shutdown()

    def check(self, *, is_crowded: bool) -> int:
        """End the connection if its client takes too long; called at each tick. Return how many bytes wait for it."""
        waiting: int = self.transport.get_write_buffer_size()
        if self._is_stalled(waiting):
            self.state.refused["READER_TOO_SLOW"] += 1
            self.transport.abort()
            return 0
        limits, waited = self.state.ticks, self.state.tick - self._since
        if self._joining.is_ending:
            if waited > limits.linger:
                self.transport.abort()
        elif self._is_in_head:
            if waited > limits.head:
                self._refuse("HEAD_TOO_SLOW")
        elif self._is_idle() and not waiting and waited > (limits.crowded_idle if is_crowded else limits.idle):
            self.transport.close()
        return waiting

    @property
    def stalled_ticks(self) -> int:
        """For how long the client has taken next to nothing of what waits for it."""
        return 0 if self._stalled_since is None else self.state.tick - self._stalled_since

    def cut(self) -> None:
        """End the connection at once, with all that waits for it."""
        self.transport.abort()

    def _is_stalled(self, waiting: int) -> bool:
        if not waiting:
            self._stalled_since = None
            return False
        taken = self._joining.written_bytes - waiting
        if self._stalled_since is None or taken - self._taken_bytes >= self.limits.send_bytes:
            self._stalled_since, self._taken_bytes = self.state.tick, taken
        return self.stalled_ticks > self.state.ticks.send

    # What the client sends

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._is_discarding:
            self._drop(len(data))
        elif self._held:
            self._hold(data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        start, size, is_new = 0, len(data), False
        while start < size and not self._is_discarding:
            if not self._has_begun:
                if self._is_answering() or self.flow.write_paused:
                    self._hold(data[start:] if start else data)
                    return
                self._begin()
            if self._is_in_head:
                start += self._receive_head(data, start)
                is_new = not self._is_in_head
            else:
                start += self._receive_body(data, start)
        if is_new and self._has_begun and not self._is_discarding:
            # The rest of the body is left to the kernel until the application reads.
            self.flow.pause_reading()

    def _begin(self) -> None:
        self._has_begun = self._is_in_head = True
        self._head_bytes, self._head_tail = 0, b""
        self._since = self.state.tick

    def _receive_head(self, data: bytes, start: int) -> int:
        room = self.limits.head_bytes - self._head_bytes
        if room <= 0:
            self._refuse("HEAD_TOO_LARGE")
            return 0
        piece = data if not start and len(data) <= room else data[start : start + room]
        tail = self._head_tail
        end = (tail + piece).find(_END_OF_HEAD) if tail else piece.find(_END_OF_HEAD)
        if end >= 0:
            end += len(_END_OF_HEAD) - len(tail)
            self._head_tail = b""
            if end < len(piece):
                piece = piece[:end]
        else:
            self._head_tail = (tail + piece)[1 - len(_END_OF_HEAD) :]
        self._head_bytes += len(piece)
        self._feed(piece)
        if end < 0 and not self._is_in_head and not self._is_discarding:
            self._refuse("MALFORMED_REQUEST")  # its end is where only a lenient reader would see one
        return len(piece)

    def _receive_body(self, data: bytes, start: int) -> int:
        left = self._body_left
        if left is not None:
            piece = data if not start and len(data) <= left else data[start : start + left]
            self._body_left = left - len(piece)
            self._feed(piece)
            return len(piece)
        piece = data[start : start + self.limits.framing_bytes]
        self._framing_bytes += len(piece)
        self._feed(piece)
        if self._framing_bytes > self.limits.framing_bytes and self._has_begun and not self._is_discarding:
            self._refuse("MALFORMED_REQUEST")
        return len(piece)

    def _feed(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Other protocols are not spoken here: the request is answered as it is, and what follows it is none.
            self._end_with_answer()
        except httptools.HttpParserError as error:
            problem = error.__context__
            if isinstance(problem, _SentAheadError):
                self._end_with_answer()
            else:
                self._refuse(problem.args[0] if isinstance(problem, _RefusedError) else "MALFORMED_REQUEST")

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) > self.limits.held_bytes:
            self._end_with_answer()
            return
        self._held += data
        self.flow.pause_reading()

    def _release(self) -> None:
        if self._held and not self._is_answering() and not self.flow.write_paused:
            held, self._held = self._held, b""
            self.flow.resume_reading()
            self._receive(held)

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._joining.is_ending and self._dropped_bytes > self.limits.linger_bytes:
            self.transport.abort()

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin with a request."""
        if not self._is_in_head:
            raise _SentAheadError  # right behind a chunked body, whose end only the parser sees
        super().on_message_begin()
        self._body_left = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those behind a chunked body are no part of the request."""
        if not self._is_in_head:
            return
        name = name.lower()
        self.headers.append((name, value))
        if len(self.headers) > self._head_fields:
            raise _RefusedError("HEAD_TOO_LARGE")
        if name == b"content-length":
            self._body_left = int(value)
        elif name == b"transfer-encoding":
            self._body_left = None
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if self._body_left != 0 and self.parser.should_upgrade():
            raise _RefusedError("UPGRADE_NOT_SUPPORTED")  # the parser takes the body for the other protocol
        super().on_headers_complete()
        self._is_in_head = False
        self._framing_bytes = 0
        if self.state.is_leaving:
            self.cycle.keep_alive = False
        if self._body_left != 0:
            # Answered before its body is there, a request ends the connection.
            self._may_stay, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        super().on_body(body)
        self._framing_bytes = 0

    def on_message_complete(self) -> None:
        """End with a request; its answer may still be to come."""
        super().on_message_complete()
        self._has_begun = False
        if self._may_stay:
            self._may_stay = False
            if not self.cycle.response_started and not self.state.is_leaving:
                self.cycle.keep_alive = True

    # What the application answers

    def on_response_complete(self) -> None:
        """Wait for the next request, or take the one that was sent ahead."""
        self.state.total_requests += 1
        # A connection that waits for its next request holds nothing of the last one.
        self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        if self.transport.is_closing():
            return
        if self._is_discarding:
            self.transport.close()
            return
        self._since = self.state.tick
        if self._held:
            self._release()
        else:
            self.flow.resume_reading()

    def resume_writing(self) -> None:
        """Go on when the client has taken most of what waited for it."""
        super().resume_writing()
        if self._held:
            self._release()

    @property
    def _joining(self) -> Joining:
        return cast(Joining, self.transport)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_idle(self) -> bool:
        return not self._has_begun and not self._is_answering()

    def _may_be_sending(self) -> bool:
        """Say whether the client may be in the middle of something, as the connection is closed; it then lingers."""
        if not (self._has_begun or self._is_discarding) or self.state.is_leaving:
            return False
        self._since = self.state.tick
        self._is_discarding = True
        self.flow.resume_reading()
        return True

    def _end_with_answer(self) -> None:
        """Take no more requests, and end the connection when what was asked is answered."""
        self._is_discarding, self._held = True, b""
        self._has_begun = False
        if self._is_answering():
            self.cycle.keep_alive = False
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _refuse(self, reason: str) -> None:
        """Answer what is no request, and end the connection."""
        self.state.refused[reason] += 1
        self._is_discarding = True
        self._has_begun = False
        if self._is_answering():
            cycle = self.cycle
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()  # it is in the middle of another answer
                return
        self.transport.write(refusals.answer(reason))
        self.transport.close()


class _RefusedError(Exception):
    """The parser is to stop: the request is refused, for the reason that is the only argument."""


class _SentAheadError(Exception):
    """The parser is to stop: another request begins before the one before it is answered."""
