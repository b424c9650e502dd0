"""The few frames of HTTP/2 in which a gRPC server is asked for its health; the gRPC library is large for so little."""

import struct

# RFC 9113: connection preface, frame types and flags.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEAD_BYTES = 9
SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
"""A gRPC message (not compressed, two bytes) that says `status: SERVING`, field 1 = 1 of grpc.health.v1."""
LONGEST_TEXT_BYTES = 120
"""Longer ones would have lengths of more than one byte, in HPACK and in protobuf."""


def question(authority: str, *, service: str = "", is_secure: bool = False) -> bytes:
    """Return all that a client says to ask for a service's health; an empty one means the server as a whole.

    authority: host:port, as the server is addressed. Both texts may have LONGEST_TEXT_BYTES.
    """
    name = service.encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""  # HealthCheckRequest{service}
    message = struct.pack(">BI", 0, len(request)) + request
    fields = {
        ":method": "POST",
        ":scheme": "https" if is_secure else "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # RFC 7541, 6.2.2: literal header fields that no table remembers.
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers)
        + frame(DATA, END_STREAM, 1, message)
    )


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def parse_head(head: bytes) -> tuple[int, int, int, bool]:
    """Return size, type and flags of a frame, and whether it belongs to a stream rather than to the connection."""
    return int.from_bytes(head[:3], "big"), head[3], head[4], any(head[5:])


def reply_to(kind: int, flags: int, body: bytes) -> bytes:
    """Return what has to be answered to a frame; mostly nothing."""
    if flags & ACK or kind not in (SETTINGS, PING):
        return b""
    return frame(kind, ACK, 0, body if kind == PING else b"")


def is_end(kind: int, flags: int, *, of_stream: bool) -> bool:
    """Whether a frame says that no answer will come: refused, or a status without a message."""
    return kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and bool(flags & END_STREAM) and of_stream)
