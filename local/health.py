"""Asks a gRPC server for its health over a plain socket: the gRPC library would double the supervisor's memory."""

import asyncio
import ssl
import struct

# RFC 9113: connection preface, frame types and flags.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_HEAD_BYTES = 9
# A gRPC message (not compressed, two bytes) that says `status: SERVING`, field 1 = 1 of grpc.health.v1.
_SERVING = b"\x00\x00\x00\x00\x02\x08\x01"


async def is_serving(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether the server as a whole says SERVING. Raises OSError when it cannot be reached; set a time limit.

    tls: for a server that listens with TLS; see `servicekit.loopback`.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        writer.write(_frame(_HEADERS, _END_HEADERS, 1, _headers(f"{host}:{port}", "https" if tls else "http")))
        writer.write(_frame(_DATA, _END_STREAM, 1, b"\x00\x00\x00\x00\x00"))  # an empty HealthCheckRequest
        while True:
            head = await reader.readexactly(_FRAME_HEAD_BYTES)
            size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], head[5:]
            body = await reader.readexactly(size)
            if kind == _DATA:
                return body == _SERVING
            if kind == _SETTINGS and not flags & _ACK:
                writer.write(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                writer.write(_frame(_PING, _ACK, 0, body))
            elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM and any(stream)):
                return False  # refused, or a status without an answer
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _headers(authority: str, scheme: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": scheme,
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # RFC 7541, 6.2.2: literal header fields that no table remembers; all strings here are shorter than 127 bytes.
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
