"""What certificate files hold: read as PEM and checked, so that a wrong one is told in a sentence and never used."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servicekit.settings import TlsSettings

CERT_FILE, KEY_FILE, CA_FILE = "CONCERTO_TLS_CERT_FILE", "CONCERTO_TLS_KEY_FILE", "CONCERTO_TLS_CA_FILE"


class CertificateError(Exception):
    """A file cannot be used. The message names the variable and the file, and says what to do; it quotes no content."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the files held at one moment, checked. What is not configured is None."""

    certificate: bytes | None = None
    """The certificate and its chain, PEM."""
    key: bytes | None = field(default=None, repr=False)
    """The certificate's private key, PEM."""
    authority: bytes | None = None
    """The authorities whose certificates are trusted, PEM."""
    ends_at: datetime | None = None
    """When the certificate ends to be valid, UTC."""
    names: frozenset[str] = frozenset()
    """The DNS names and addresses that the certificate is for."""


def read(settings: TlsSettings) -> Material:
    """Read and check the configured files. Raises CertificateError."""
    certificate = _read(settings.tls_cert_file, CERT_FILE)
    key = _read(settings.tls_key_file, KEY_FILE)
    authority = _read(settings.tls_ca_file, CA_FILE)
    if authority is not None:
        _load(authority, settings.tls_ca_file, CA_FILE)
    if certificate is None or key is None:
        return Material(authority=authority)
    leaf = _load(certificate, settings.tls_cert_file, CERT_FILE)[0]
    _check_key(key, leaf, settings)
    _check_time(leaf, settings)
    if settings.tls_client_auth:
        _check_usage(leaf, settings)
    return Material(
        certificate=certificate,
        key=key,
        authority=authority,
        ends_at=leaf.not_valid_after_utc,
        names=_names(leaf, settings),
    )


def _read(path: Path | None, variable: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{variable}: {path} cannot be read ({error.strerror}). Name a file that this process may read."
        ) from None


def _load(pem: bytes, path: Path | None, variable: str) -> list[Any]:
    # Imported here and below: a process without TLS does without it.
    from cryptography import x509

    try:
        return list(x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise CertificateError(
            f"{variable}: {path} holds no whole PEM certificate. Write BEGIN CERTIFICATE … END CERTIFICATE blocks into "
            "it, a service's own certificate before those of its chain."
        ) from None


def _check_key(key: bytes, leaf: Any, settings: TlsSettings) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    subject = f"{KEY_FILE}: {settings.tls_key_file}"
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError(
            f"{subject} holds no whole PEM private key without a passphrase. Write the certificate's key into it."
        ) from None
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{subject} holds a key of a kind that gRPC does not use. Make an ECDSA or RSA key.")

    def encoded(public: Any) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        found: bytes = public.public_bytes(serialization.Encoding.DER, form)
        return found

    try:
        is_its_key = encoded(private.public_key()) == encoded(leaf.public_key())
    except (ValueError, UnsupportedAlgorithm):  # a certificate for a key of another kind
        is_its_key = False
    if not is_its_key:
        raise CertificateError(
            f"{subject} is not the key of the certificate in {settings.tls_cert_file} ({CERT_FILE}). Name the two "
            "files that were issued together; in a chain the own certificate comes first."
        )


def _check_time(leaf: Any, settings: TlsSettings) -> None:
    now = datetime.now(UTC)
    begins_at, ends_at = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    subject = f"{CERT_FILE}: the certificate in {settings.tls_cert_file}"
    if now >= ends_at:
        raise CertificateError(f"{subject} has ended at {ends_at:%Y-%m-%d %H:%M} UTC. Renew it.")
    if now < begins_at:
        raise CertificateError(
            f"{subject} begins at {begins_at:%Y-%m-%d %H:%M} UTC, which is to come. Set the clock, or renew it."
        )


def _check_usage(leaf: Any, settings: TlsSettings) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    usage = _extension(leaf, x509.ExtendedKeyUsage, settings)
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise CertificateError(
            f"{CERT_FILE}: the certificate in {settings.tls_cert_file} may not be shown by a client, as "
            "CONCERTO_TLS_CLIENT_AUTH demands. Issue it with the extended key usages serverAuth and clientAuth."
        )


def _names(leaf: Any, settings: TlsSettings) -> frozenset[str]:
    from cryptography import x509

    found = _extension(leaf, x509.SubjectAlternativeName, settings)
    if found is None:
        return frozenset()
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return frozenset((*found.get_values_for_type(x509.DNSName), *addresses))


def _extension(leaf: Any, kind: Any, settings: TlsSettings) -> Any:
    from cryptography import x509

    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateError(
            f"{CERT_FILE}: the certificate in {settings.tls_cert_file} has unreadable extensions. Issue it anew."
        ) from None
