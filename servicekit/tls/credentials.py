"""TLS between services: the one place that makes credentials, and renews them when their files change."""

import contextvars
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import grpc
import structlog

from servicekit.settings import TlsSettings
from servicekit.tls import certificates
from servicekit.tls.certificates import CertificateError, Material

_LOG = structlog.stdlib.get_logger(__name__)

CHECK_SECONDS = 1.0
"""The files are looked at when a connection or a call begins, no more often than this."""
WARN_BEFORE = timedelta(days=7)
WARN_EVERY_SECONDS = 86_400.0

Mode = Literal["off", "tls", "mutual"]
_State = tuple[tuple[int, ...] | None, ...]


def load(settings: TlsSettings) -> "Certificates":
    """Return the process's certificates, or end the process with one sentence that says what is wrong with them.

    Warns when the own certificate ends in less than a week.
    """
    try:
        loaded = Certificates(settings)
    except CertificateError as error:
        raise SystemExit(str(error)) from None
    loaded.warn_of_end()
    return loaded


class Certificates:
    """The configured certificates as they are now; without any configured, TLS is off in both directions.

    Renewed files are used by connections that begin after that. Files that cannot be used are logged, and what was in
    use stays in use. May be asked from any thread, as gRPC asks from its own. Raises CertificateError when made.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._files = [
            file for file in (settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file) if file is not None
        ]
        self._state = self._read_file_states()
        self._material = certificates.read(settings)
        self._version = 0
        self._refused: _State | None = None
        self._refusals = 0
        self._checked_at = time.monotonic()
        self._warned_at: float | None = None
        self._lock = threading.Lock()
        # Entries that gRPC's threads cause name the service as all others do.
        self._context = contextvars.copy_context()

    @property
    def server_mode(self) -> Mode:
        """How a server of this process listens."""
        if self._material.certificate is None:
            return "off"
        return "mutual" if self._settings.tls_client_auth else "tls"

    @property
    def client_mode(self) -> Mode:
        """How this process calls others: `mutual` shows its own certificate to servers that ask for one."""
        if self._material.authority is None:
            return "off"
        return "tls" if self._material.certificate is None else "mutual"

    @property
    def ends_at(self) -> datetime | None:
        """When the own certificate ends to be valid, UTC; None without one."""
        return self._material.ends_at

    def describe(self) -> dict[str, str]:
        """Return what a server's first log entry says of it."""
        fields: dict[str, str] = {"tls": self.server_mode}
        if self.ends_at is not None:
            fields["certificate_ends_at"] = self.ends_at.isoformat()
        return fields

    def current_version(self) -> int:
        """Read the files again when they have changed, and return the number of what is in use, which then rises.

        Never raises. Costs a comparison between two looks, and then a stat of each file.
        """
        if not self._files or time.monotonic() - self._checked_at < CHECK_SECONDS:
            return self._version
        with self._lock:
            if time.monotonic() - self._checked_at >= CHECK_SECONDS:
                self._context.run(self._renew)
                self._checked_at = time.monotonic()
        return self._version

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """Return what a server listens with; None without a certificate of its own."""
        if self.server_mode == "off":
            return None
        given = self._version

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC with each new connection.
            nonlocal given
            version = self.current_version()
            if version == given:
                return None
            given = version
            return self._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(),
            fetch,  # type: ignore[arg-type] # None says that nothing has changed
            require_client_authentication=self._settings.tls_client_auth,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what connections to other services begin with as long as `current_version` returns the same number."""
        material = self._material
        return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)

    def warn_of_end(self) -> None:
        """Log a warning, at most once a day, when the own certificate ends in less than a week."""
        now, ends_at = time.monotonic(), self.ends_at
        if ends_at is None or ends_at - datetime.now(UTC) >= WARN_BEFORE:
            return
        if self._warned_at is None or now - self._warned_at >= WARN_EVERY_SECONDS:
            self._warned_at = now
            hours_left = (ends_at - datetime.now(UTC)).total_seconds() / 3600
            _LOG.warning("tls.ends_soon", certificate_ends_at=ends_at.isoformat(), hours_left=round(hours_left, 1))

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        material = self._material
        pairs = [(material.key or b"", material.certificate or b"")]
        clients = material.authority if self._settings.tls_client_auth else None
        return grpc.ssl_server_certificate_configuration(pairs, clients)

    def _renew(self) -> None:
        state = self._read_file_states()
        if state == self._state:
            self._refused = None
            self.warn_of_end()
            return
        try:
            material = certificates.read(self._settings)
        except CertificateError as error:
            self._refuse(state, str(error))
            return
        if self._read_file_states() != state:
            return  # it is being written just now; the next look finds it settled
        self._use(material, state)

    def _use(self, material: Material, state: _State) -> None:
        self._material, self._state, self._refused, self._warned_at = material, state, None, None
        self._version += 1
        ends_at = material.ends_at.isoformat() if material.ends_at else None
        _LOG.info("tls.renewed", certificate_ends_at=ends_at)
        self.warn_of_end()

    def _refuse(self, state: _State, reason: str) -> None:
        # Files that are replaced one after the other do not fit for a moment; what stays so is told, once.
        if state != self._refused:
            self._refused, self._refusals = state, 0
        self._refusals += 1
        if self._refusals == 2:
            _LOG.warning("tls.not_renewed", reason=reason, kept="what was in use before")

    def _read_file_states(self) -> _State:
        return tuple(_state_of(file) for file in self._files)


def _state_of(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()  # of what a link leads to
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
