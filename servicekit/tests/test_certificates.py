from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from servicekit.settings import ServiceSettings, TlsSettings
from servicekit.tls import credentials
from tests.support.certificates import Mount, days


def loaded(mount: Mount, *, client_auth: bool = False) -> credentials.Certificates:
    chosen: dict[str, Any] = dict(mount.variables(client_auth=client_auth))
    return credentials.load(TlsSettings(_env_file=None, **chosen))


def start_with(mount: Mount, *, client_auth: bool = False) -> str:
    """Return the sentence with which a start ends."""
    with pytest.raises(SystemExit) as ended:
        loaded(mount, client_auth=client_auth)
    return str(ended.value)


def entries_of_start(mount: Mount) -> list[Any]:
    with structlog.testing.capture_logs() as entries:
        loaded(mount)
    return list(entries)


def test_a_certificate_that_ends_within_a_week_is_warned_of(tmp_path: Path, authority: trustme.CA) -> None:
    (warning,) = entries_of_start(Mount(tmp_path / "six", authority, not_after=days(6)))
    assert (warning["event"], warning["log_level"]) == ("tls.ends_soon", "warning")
    assert warning["hours_left"] == pytest.approx(144, abs=0.2)
    assert entries_of_start(Mount(tmp_path / "eight", authority, not_after=days(8))) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("CERT",), "set CONCERTO_TLS_KEY_FILE too"),
        (("KEY",), "set CONCERTO_TLS_CERT_FILE too"),
        (("CLIENT_AUTH",), "needs this process's own certificate"),
        (("CLIENT_AUTH", "CA"), "needs this process's own certificate"),
        (("CLIENT_AUTH", "CERT", "KEY"), "needs CONCERTO_TLS_CA_FILE"),
    ],
)
def test_half_settings_end_the_start_with_what_to_do(mount: Mount, names: tuple[str, ...], message: str) -> None:
    every = mount.variables(client_auth=True)
    chosen = {
        name: value for name, value in every.items() if name.removeprefix("CONCERTO_TLS_").split("_F")[0] in names
    }
    assert len(chosen) == len(names)
    with pytest.raises(SystemExit, match=message):
        ServiceSettings.load(_env_file=None, **chosen)


def test_files_that_cannot_be_used_end_the_start_with_what_to_do(mount: Mount, tmp_path: Path) -> None:
    key, certificate = mount.key.read_bytes(), mount.certificate.read_bytes()
    mount.key.unlink()
    assert start_with(mount) == (
        f"CONCERTO_TLS_KEY_FILE: {mount.key} cannot be read (No such file or directory). "
        "Name a file that this process may read."
    )
    for wrong in (b"", b"not PEM", key[:60], certificate):
        mount.key.write_bytes(wrong)
        assert "holds no whole PEM private key" in start_with(mount)
    mount.key.write_bytes(Mount(tmp_path / "other", trustme.CA()).key.read_bytes())
    assert "is not the key of the certificate" in start_with(mount)
    mount.key.write_bytes(key)
    mount.authority.unlink()
    mount.authority.write_bytes(b"")
    assert start_with(mount).startswith(f"CONCERTO_TLS_CA_FILE: {mount.authority} holds no whole PEM certificate.")
    assert key.decode().splitlines()[1] not in start_with(mount)


def test_a_certificate_out_of_its_time_ends_the_start(tmp_path: Path, authority: trustme.CA) -> None:
    assert "has ended at" in start_with(Mount(tmp_path / "ended", authority, not_after=days(-0.01)))
    assert "which is to come" in start_with(Mount(tmp_path / "early", authority, not_before=days(1), not_after=days(2)))


def signed_by_itself(key: Any, *usages: x509.ObjectIdentifier) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "itself")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, days(-1), days(30))
    if usages:
        made = made.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return made.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def write(mount: Mount, key: Any, certificate: bytes, *, passphrase: bytes | None = None) -> None:
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    mount.key.resolve().write_bytes(pem)
    mount.certificate.resolve().write_bytes(certificate)


def test_keys_that_no_handshake_would_use_end_the_start(mount: Mount) -> None:
    edwards, ecdsa = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    write(mount, edwards, signed_by_itself(edwards))
    assert "Make an ECDSA or RSA key" in start_with(mount)
    write(mount, ecdsa, signed_by_itself(ecdsa), passphrase=b"secret")
    assert "without a passphrase" in start_with(mount)


def test_a_certificate_that_clients_may_not_show_is_none_for_mutual_tls(mount: Mount) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    write(mount, key, signed_by_itself(key, ExtendedKeyUsageOID.SERVER_AUTH))
    assert "extended key usages serverAuth and clientAuth" in start_with(mount, client_auth=True)
    assert loaded(mount).server_mode == "tls"
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    for usages in (both, ()):
        write(mount, key, signed_by_itself(key, *usages))
        assert loaded(mount, client_auth=True).server_mode == "mutual"


def test_a_process_with_a_certificate_makes_no_plain_call(mount: Mount) -> None:
    chosen: dict[str, Any] = {name: value for name, value in mount.variables().items() if "_CA_" not in name}
    half = TlsSettings(_env_file=None, **chosen)
    half.refuse_plain_calls("inprocess:")
    with pytest.raises(ValueError, match="set CONCERTO_TLS_CA_FILE too"):
        half.refuse_plain_calls("inprocess:", "sessions:8004")
    TlsSettings(_env_file=None).refuse_plain_calls("sessions:8004")
    assert (loaded(mount).client_mode, credentials.load(half).client_mode) == ("mutual", "off")
