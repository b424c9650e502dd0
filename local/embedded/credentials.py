"""The keys and passwords of the embedded Supabase: made on first start, kept in one file for its owner only."""

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from pydantic import BaseModel, ConfigDict, ValidationError

from local.files import make_private_folder, write_private

FILE_NAME = "secrets.json"


class CredentialsError(Exception):
    """The file of secrets cannot be used. The message says what to do."""


def _token(prefix: str = "") -> str:
    return prefix + secrets.token_urlsafe(32)


def _key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _signing_key() -> str:
    """A private key for ES256 as a JSON Web Key, as `supabase gen signing-key` writes it."""
    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    return json.dumps({**key, "kid": str(uuid4()), "alg": "ES256", "use": "sig"})


class Credentials(BaseModel):
    """Everything secret that the embedded stack needs. Never printed; `repr` hides all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jwt_secret: str
    publishable_key: str
    secret_key: str
    cookie_secret: str
    admin_password: str
    migration_password: str
    login_password: str
    signing_key: str = ""
    """Signs access tokens (ES256): a private JSON Web Key. Empty until the next start in an earlier version's file."""
    forwarding_key: str = ""
    """With which the auth service says that it speaks for several people; empty likewise."""
    service_key: str = ""
    """By which our services know each other, with any project; empty likewise."""

    def __repr__(self) -> str:
        return "Credentials(hidden)"

    __str__ = __repr__

    @classmethod
    def generate(cls) -> "Credentials":
        """Fresh random values of 256 bits each."""
        return cls(
            jwt_secret=_token(),
            publishable_key=_token("sb_publishable_"),
            secret_key=_token("sb_secret_"),
            cookie_secret=_key(),
            admin_password=_token(),
            migration_password=_token(),
            login_password=_token(),
            signing_key=_signing_key(),
            forwarding_key=_token(),
            service_key=_token(),
        )


def credentials_file(home: Path) -> Path:
    """Where the secrets of this data folder are."""
    return home / FILE_NAME


def read_credentials(home: Path) -> Credentials:
    """Read what an earlier start has made. Raises CredentialsError when it is absent or damaged."""
    file = credentials_file(home)
    try:
        return Credentials.model_validate(json.loads(file.read_text()))
    except FileNotFoundError:
        raise CredentialsError(f"{file} does not exist yet. Run `concerto up` once.") from None
    except (ValueError, ValidationError):
        raise CredentialsError(
            f"{file} is damaged. Restore it from a copy, or move {home} away and start afresh."
        ) from None


def ensure_credentials(home: Path, chosen: Mapping[str, str] | None = None) -> Credentials:
    """Read the secrets, or make them when this data folder is new.

    chosen: values by name that are kept in place of what was there; not those of roles that own anything.
    Raises CredentialsError when a database exists whose passwords are lost.
    """
    make_private_folder(home)
    file = credentials_file(home)
    if not file.exists():
        if (home / "postgres").exists():
            raise CredentialsError(
                f"{file} is missing, but {home / 'postgres'} holds a database that only opens with it. "
                f"Restore the file, or move {home} away and start afresh."
            )
        write_private(file, Credentials.generate().model_dump_json(indent=2) + "\n")
    file.chmod(0o600)
    known = read_credentials(home)
    later = {"signing_key": known.signing_key or _signing_key()}
    later |= {name: getattr(known, name) or _token() for name in ("forwarding_key", "service_key")}
    wanted = known.model_copy(update={**later, **(chosen or {})})
    if wanted != known:
        write_private(file, wanted.model_dump_json(indent=2) + "\n")
    return wanted
