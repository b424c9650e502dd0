"""Reads which proxy leads where and which authorities are trusted, as every program on a machine is told it.

By these variables curl, pip and browsers go too, so their forms are those of many programs: either case, addresses
without a scheme, lists with spaces, IPv6 in brackets, networks. It needs the standard library alone.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""What names authorities that are trusted in place of the usual ones."""

# What our libraries would read behind our back: an address says all that we want of a connection to Postgres.
_OF_OTHER_PROGRAMS = re.compile(r"PG[A-Z]+|SSLKEYLOGFILE")
_USABLE = ("http", "https")
_ADVICE = "Name an HTTP proxy as http://host:port, or unset it for Concerto."


class ProxyError(Exception):
    """The proxy that leads to an address cannot be used. The message names the variable, never its value."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as a variable names it."""

    variable: str
    url: str = field(repr=False)
    """It may hold a password. Empty where the variable names none that can be used."""
    problem: str = ""
    """What is wrong with it, in a sentence; empty where it can be used."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """How requests leave this machine."""

    proxies: Mapping[str, Proxy]
    """By the scheme of the address that is asked."""
    exempt: tuple[str, ...]
    """The entries of NO_PROXY, in lower case."""
    certificates: Mapping[str, str]
    """SSL_CERT_FILE and SSL_CERT_DIR, those that can be used."""
    problems: tuple[str, ...]
    """A sentence for each variable that cannot be used."""

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> "Outgoing":
        """Return it as the environment says; without one, that of this process."""
        real: Mapping[str, str] = os.environ if environment is None else environment  # noqa: TID251
        common = _proxy("ALL_PROXY", real)
        found = {scheme: _proxy(f"{scheme.upper()}_PROXY", real) or common for scheme in _USABLE}
        proxies = {scheme: proxy for scheme, proxy in found.items() if proxy is not None}
        exempt = real.get("no_proxy") or real.get("NO_PROXY") or ""
        problems = [proxy.problem for proxy in proxies.values() if proxy.problem]
        certificates: dict[str, str] = {}
        for name in TRUST_VARIABLES:
            value = real.get(name, "")
            if not value:
                continue
            if _can_verify_with(name, value):
                certificates[name] = value
            else:
                noun = "file with certificates" if name.endswith("FILE") else "folder"
                problems.append(
                    f"{name} names no {noun} that can be read, so the usual authorities are trusted. "
                    "Correct it, or unset it for Concerto."
                )
        entries = tuple(filter(None, re.split(r"[,\s]+", exempt.lower())))
        return cls(proxies, entries, certificates, tuple(dict.fromkeys(problems)))

    def proxy_for(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """Return the address of the proxy for a request, or None where it goes straight there.

        host: without brackets. What is on this machine is never asked by way of a proxy. Raises ProxyError where there
        is one that cannot be used: going past it might show what it was to hide.
        """
        proxy = self.proxies.get(scheme)
        if proxy is None or is_loopback(host) or any(_matches(entry, host.lower(), port) for entry in self.exempt):
            return None
        if proxy.problem:
            raise ProxyError(proxy.problem)
        return proxy.url

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context that trusts what SSL_CERT_FILE or SSL_CERT_DIR names; None where neither does."""
        if not self.certificates:
            return None
        return ssl.create_default_context(
            cafile=self.certificates.get("SSL_CERT_FILE"), capath=self.certificates.get("SSL_CERT_DIR")
        )


def forget_other_programs() -> None:
    """Take out of this process's environment by what other programs' settings would become those of our connections."""
    for name in filter(_OF_OTHER_PROGRAMS.fullmatch, tuple(os.environ)):  # noqa: TID251
        del os.environ[name]  # noqa: TID251


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address without brackets, is this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _proxy(name: str, environment: Mapping[str, str]) -> Proxy | None:
    # As everywhere, the name in lower case comes first, and an empty value says that there is none.
    variable = name.lower() if name.lower() in environment else name
    value = environment.get(variable, "").strip()
    if not value:
        return None
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_whole = SplitResult("", "", "", "", ""), False
    if not is_whole or not re.fullmatch(r"[!-~]+", url):
        return Proxy(variable, "", f"{variable} holds no address of a proxy. {_ADVICE}")
    if parts.scheme in _USABLE:
        return Proxy(variable, url)
    kind = "a SOCKS proxy, which Concerto cannot use" if parts.scheme.startswith("socks") else "no HTTP proxy"
    return Proxy(variable, "", f"{variable} names {kind}. {_ADVICE}")


def _matches(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY, in lower case, is about a host."""
    if entry == "*":
        return True
    if bracketed := re.fullmatch(r"\[([0-9a-f:.]+)\](?::(\d+))?", entry):
        entry, wanted = bracketed[1], bracketed[2]
    elif entry.count(":") == 1:
        entry, _, wanted = entry.partition(":")
    else:
        wanted = None
    if wanted and port is not None and wanted != str(port):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _can_verify_with(name: str, value: str) -> bool:
    if name == "SSL_CERT_DIR":
        return any(Path(folder).is_dir() for folder in value.split(os.pathsep))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except OSError:  # an SSLError is one
        return False
    return True
