"""Asks a gRPC server for its health over a plain socket: the gRPC library would double the supervisor's memory.

The supervisor awaits many answers at once; `servicekit.probe`, a container's health check, blocks and ends with an exit
code. Both read frames with `servicekit.probe.frames`.
"""

import asyncio
import ssl

from servicekit.probe import frames


async def is_serving(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether the server as a whole says SERVING. Raises OSError when it cannot be reached; set a time limit.

    tls: for a server that listens with TLS; see `servicekit.tls.loopback`.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(frames.question(f"{host}:{port}", is_secure=tls is not None))
        while True:
            size, kind, flags, of_stream = frames.parse_head(await reader.readexactly(frames.HEAD_BYTES))
            body = await reader.readexactly(size)
            if kind == frames.DATA:
                return body == frames.SERVING
            if frames.is_end(kind, flags, of_stream=of_stream):
                return False
            writer.write(frames.reply_to(kind, flags, body))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        writer.close()
