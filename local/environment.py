"""What the programs that we start are told of this machine's environment: what they need, and nothing that breaks them.

People set variables for other programs: libpq's, Python's, Node's, those of installers. One list for each kind says
what of them a program of ours is given. It needs the standard library alone: set-up runs before anything is installed.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Which proxy leads to the world outside."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Which authorities are trusted there."""
BASE = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", *CERTIFICATES)
"""What a program needs to run at all."""

UTF_8 = {"LC_CTYPE": "UTF-8" if sys.platform == "darwin" else "C.UTF-8"}
"""How a program is told that letters are in UTF-8, as the system calls it."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Each has to name something that is there: programs take it at its word, and do not start or fail at their first call.
_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "PIP_CERT")
_FOLDERS = ("SSL_CERT_DIR", "TMPDIR")

# Families of variables that change what an installer or a build does, and which of each only say how to reach packages.
_OF_TOOLS = re.compile(
    r"PYTHON.*|__PYVENV_LAUNCHER__|PIP_.*|UV_.*|VIRTUAL_ENV.*|CONDA_.*|NPM_.*|NODE_.*|NEXT_.*|__NEXT.*|BROWSERSLIST.*"
    r"|GIT_.*|PG[A-Z]+|SSLKEYLOGFILE",
    re.IGNORECASE,
)
_OF_PACKAGES = re.compile(
    r"PIP_((EXTRA_)?INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|CONFIG_FILE|CACHE_DIR|NO_CACHE_DIR"
    r"|(DEFAULT_)?TIMEOUT|RETRIES|KEYRING_PROVIDER)"
    r"|UV_((DEFAULT_|EXTRA_)?INDEX.*|FIND_LINKS|NO_INDEX|CACHE_DIR|NO_CACHE|OFFLINE|NATIVE_TLS|SYSTEM_CERTS|HTTP_.*"
    r"|REQUEST_TIMEOUT|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|CONCURRENT_.*|CONFIG_FILE)"
    r"|NPM_TOKEN|NPM_CONFIG_(REGISTRY|CACHE|(HTTPS?_?|HTTPS-)?PROXY|NO_?PROXY|CAFILE|CA|CERT|KEY|STRICT[_-]SSL"
    r"|(USER|GLOBAL)CONFIG|FETCH[_-].*|MAXSOCKETS|OFFLINE|PREFER[_-]OFFLINE|_AUTH.*|//.*|@.*)"
    r"|NODE_(EXTRA_CA_CERTS|AUTH_TOKEN|USE_ENV_PROXY|USE_SYSTEM_CA)",
    re.IGNORECASE,
)


def basic(variables: Mapping[str, str], *further: str) -> dict[str, str]:
    """Return what a program of the suite is given of the environment, usable values alone.

    further: names beside `BASE` that it also needs, such as `PROXIES`; with these, the way to this machine is kept out
    of any proxy.
    """
    chosen = {name: variables[name] for name in (*BASE, *further) if name in variables}
    return in_utf_8(_past_proxies(without_unusable(chosen)))


def for_tools(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for installers and builds: all of it but what would have them do something else.

    Where packages come from, through which proxy and with which certificates stays.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not _OF_TOOLS.fullmatch(name) or _OF_PACKAGES.fullmatch(name)
    }
    return in_utf_8(without_unusable(kept))


def in_utf_8(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with letters in UTF-8; the language of messages stays as `LANG` says it.

    In another encoding Python does not start where the path of its packages has letters that are not in that.
    """
    return {name: value for name, value in variables.items() if name != "LC_ALL"} | UTF_8


def without_unusable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that name a file or a folder that cannot be used."""
    return {name: value for name, value in variables.items() if not is_unusable(name, value)}


def is_unusable(name: str, value: str) -> bool:
    """Whether a variable names a file that cannot be read or a folder that is none."""
    if name in _FILES:
        # Requests takes a folder too.
        return not (os.access(value, os.R_OK) and (Path(value).is_file() or name == "REQUESTS_CA_BUNDLE"))
    if name in _FOLDERS:
        is_folder = any(Path(folder).is_dir() for folder in value.split(os.pathsep))
        return not is_folder or (name == "TMPDIR" and not os.access(value, os.W_OK | os.X_OK))
    return False


def _past_proxies(variables: dict[str, str]) -> dict[str, str]:
    """Keep the way to the neighbours, which are on this machine, out of a proxy for the world outside."""
    if not any(name in variables for name in PROXIES):
        return variables
    chosen = variables.get("no_proxy") or variables.get("NO_PROXY")
    exempt = ",".join((*([chosen] if chosen else []), *LOOPBACK))
    return {**variables, "NO_PROXY": exempt, "no_proxy": exempt}
