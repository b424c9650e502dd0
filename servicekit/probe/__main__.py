"""Asks a server of ours how it is: the health check of containers, cheap enough to be started every few seconds.

    python -m servicekit.probe 127.0.0.1:8004                    gRPC health of the server as a whole
    python -m servicekit.probe 127.0.0.1:8004 <service>          of one service
    python -m servicekit.probe http://127.0.0.1:8000/healthz     a page that answers 200

The supervisor on a laptop asks from its own event loop, with `local.suite.health`, which no
service's image has. Both read frames with `servicekit.probe.frames`.

Exit code 0 when it is well, otherwise 1 and one line that says why. Where CONCERTO_TLS_CERT_FILE is set, the server is
asked over TLS and shown that certificate.
"""

import http.client
import socket
import sys
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from servicekit.probe import frames
from servicekit.probe.settings import Settings
from servicekit.tls import loopback

TIMEOUT_SECONDS = 4.0


class ProbeError(Exception):
    """It is not well, or cannot be asked. The message is one line."""


def main(arguments: list[str]) -> int:
    """Ask what the arguments name; return the exit code."""
    if len(arguments) not in (1, 2):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        ask(*arguments, settings=Settings.load())
    except ProbeError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


def ask(target: str, service: str = "", *, settings: Settings) -> None:
    """Return when the target is well.

    target: host:port of a gRPC server, or the http:// address of a page.
    service: the gRPC service that is meant; empty means the server as a whole.
    Raises ProbeError when it says that it is not, says nothing within TIMEOUT_SECONDS, or cannot be reached.
    """
    try:
        if target.startswith("http://"):
            _ask_page(target)
        else:
            _ask_server(target, service, settings)
    except TimeoutError:
        raise ProbeError(f"{target} does not answer within {TIMEOUT_SECONDS:.0f} s") from None
    except (OSError, EOFError, http.client.HTTPException) as error:
        raise ProbeError(f"{target} cannot be asked: {type(error).__name__} {error}".rstrip()) from None


def _ask_page(address: str) -> None:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise ProbeError(f"{address} answers {status}")


def _ask_server(target: str, service: str, settings: Settings) -> None:
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or max(len(target), len(service)) > frames.LONGEST_TEXT_BYTES:
        raise ProbeError(f"{target!r} is no host:port")
    certificate, key = Path(settings.tls_cert_file), Path(settings.tls_key_file)
    secure = loopback.tls_context(certificate, key) if settings.tls_cert_file else None
    with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_SECONDS) as plain:
        if secure is None:
            answer = _health(plain, frames.question(target, service=service))
        else:
            with secure.wrap_socket(plain, server_hostname=host) as wrapped:
                answer = _health(wrapped, frames.question(target, service=service, is_secure=True))
    if answer != frames.SERVING:
        raise ProbeError(f"{target} is not serving")


def _health(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    with connection.makefile("rb") as reader:
        while True:
            size, kind, flags, of_stream = frames.parse_head(_read(reader, frames.HEAD_BYTES))
            body = _read(reader, size)
            if kind == frames.DATA:
                return body
            if frames.is_end(kind, flags, of_stream=of_stream):
                return b""
            connection.sendall(frames.reply_to(kind, flags, body))


def _read(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise EOFError("closed without an answer")
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
