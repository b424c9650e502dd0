"""Cookies that only the gateway can read: their keys, and reading them from a request."""

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.requests import Request

PATH = "/auth"
"""They are sent to the account's routes only."""


def fernet_of(secret: bytes, purpose: str) -> Fernet:
    """Return what encrypts one kind of cookie, so that none can be taken for another."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"concerto gateway {purpose} cookie".encode())
    return Fernet(base64.urlsafe_b64encode(key.derive(secret)))


def read(request: Request, name: str) -> str:
    """Return a cookie as it was sent, without its quotes; empty when there is none.

    Starlette's reader unescapes every cookie, which takes Python seconds for some of 64 KiB.
    """
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            given, _, value = part.strip().partition("=")
            if given == name:
                return value.strip('"')
    return ""
