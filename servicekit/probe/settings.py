"""What the probe reads from the environment: without pydantic, which takes longer to load than the server to answer."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The certificate that the server next to the probe listens with; see servicekit.settings.TlsSettings."""

    tls_cert_file: str = ""
    """CONCERTO_TLS_CERT_FILE; empty: the server speaks plainly."""
    tls_key_file: str = ""
    """CONCERTO_TLS_KEY_FILE."""

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings as they are."""
        names = ("CONCERTO_TLS_CERT_FILE", "CONCERTO_TLS_KEY_FILE")
        return cls(*(os.environ.get(name, "") for name in names))  # noqa: TID251
