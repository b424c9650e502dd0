"""Certificate files as Kubernetes mounts them: links into a folder that is swapped as a whole."""

import itertools
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from servicekit.settings import TlsSettings
from servicekit.tls.credentials import Certificates

LOCAL_NAMES = ("localhost", "127.0.0.1")
"""The names of a service on this machine."""


class Mount:
    """A folder with `tls.crt`, `tls.key` and `ca.crt`."""

    def __init__(self, folder: Path, authority: trustme.CA, *names: str, **options: Any) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)
        self.renew(authority, *names, **options)
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (folder / name).symlink_to(f"..data/{name}")

    @property
    def certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        return self.folder / "tls.key"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    def renew(self, authority: trustme.CA, *names: str, trusted: bytes | None = None, **options: Any) -> None:
        """Put a new certificate in place of the old one, at once.

        trusted: the authorities, PEM; absent, the one that has signed it.
        """
        leaf = authority.issue_cert(*(names or LOCAL_NAMES), **options)
        target = self.folder / f"..{next(self._numbers)}"
        target.mkdir()
        (target / "tls.crt").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        (target / "tls.key").write_bytes(leaf.private_key_pem.bytes())
        (target / "ca.crt").write_bytes(authority.cert_pem.bytes() if trusted is None else trusted)
        link = self.folder / "..data_tmp"
        link.symlink_to(target.name)
        os.replace(link, self.folder / "..data")

    def variables(self, *, client_auth: bool = False) -> dict[str, str]:
        """Return the settings that name all three files."""
        files = {
            "CONCERTO_TLS_CERT_FILE": str(self.certificate),
            "CONCERTO_TLS_KEY_FILE": str(self.key),
            "CONCERTO_TLS_CA_FILE": str(self.authority),
        }
        return {**files, "CONCERTO_TLS_CLIENT_AUTH": "true"} if client_auth else files


def certificates_of(variables: Mapping[str, str]) -> Certificates:
    """Return the certificates that the variables of a suite (`stack.env`) or a mount name; without any, TLS is off."""
    chosen: dict[str, Any] = {name: value for name, value in variables.items() if name.startswith("CONCERTO_TLS_")}
    return Certificates(TlsSettings(_env_file=None, **chosen))


def days(count: float) -> datetime:
    """Return the moment that is so many days from now, as trustme takes it."""
    return datetime.now(UTC) + timedelta(days=count)
