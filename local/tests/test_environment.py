import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.environment import PROXIES, UTF_8, basic, for_tools


@pytest.mark.parametrize(
    "name",
    [
        *("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONWARNINGS", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV"),
        *("PIP_USER", "PIP_TARGET", "PIP_CONSTRAINT", "PIP_NO_BINARY", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PYTHON"),
        *("npm_config_omit", "npm_config_global", "NPM_CONFIG_PREFIX", "npm_lifecycle_event", "NODE_ENV", "NODE_PATH"),
        *("NODE_OPTIONS", "NEXT_PUBLIC_X", "BROWSERSLIST", "GIT_DIR", "GIT_INDEX_FILE", "PGSSLMODE", "SSLKEYLOGFILE"),
    ],
)
def test_what_would_have_installers_and_builds_do_something_else_is_left_out(name: str) -> None:
    assert for_tools({name: "1", "PATH": "/usr/bin"}) == {"PATH": "/usr/bin", **UTF_8}


@pytest.mark.parametrize(
    "name",
    [
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE", "PIP_PROXY", "PIP_CACHE_DIR"),
        *("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_INTERNAL_PASSWORD", "UV_CACHE_DIR", "UV_HTTP_TIMEOUT"),
        *("npm_config_registry", "NPM_CONFIG_REGISTRY", "npm_config_cafile", "npm_config_https_proxy", "NPM_TOKEN"),
        *("npm_config_strict_ssl", "npm_config_userconfig", "npm_config_//npm.example/:_authToken", "NODE_AUTH_TOKEN"),
        *("https_proxy", "ALL_PROXY", "HOME", "LD_PRELOAD", "DBUS_SESSION_BUS_ADDRESS"),
    ],
)
def test_how_packages_are_reached_is_left_as_it_is(name: str) -> None:
    assert for_tools({name: "1"}) == {name: "1", **UTF_8}


def test_files_and_folders_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    for name, usable in (
        ("TMPDIR", tmp_path),
        ("SSL_CERT_DIR", tmp_path),
        ("SSL_CERT_FILE", bundle),
        ("REQUESTS_CA_BUNDLE", tmp_path),
        ("NODE_EXTRA_CA_CERTS", bundle),
    ):
        assert for_tools({name: str(usable)}) == {name: str(usable), **UTF_8}
        assert for_tools({name: str(tmp_path / "not there")}) == UTF_8
    assert basic({"TMPDIR": str(bundle), "SSL_CERT_FILE": str(tmp_path)}) == UTF_8


def test_a_program_of_the_suite_is_given_what_is_named_and_no_more() -> None:
    real = {
        "PATH": "/bin",
        "TZ": "Nowhere/Nothing",
        "PGSSLMODE": "require",
        "PYTHONPATH": "/x",
        "HTTP_PROXY": "http://p",
    }
    assert basic(real) == {"PATH": "/bin", "TZ": "Nowhere/Nothing", **UTF_8}
    assert basic(real, *PROXIES) == {
        "PATH": "/bin",
        "TZ": "Nowhere/Nothing",
        "HTTP_PROXY": "http://p",
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1"),
        **UTF_8,
    }


def test_every_environment_of_this_machine_keeps_its_path() -> None:
    assert for_tools(os.environ)["PATH"] == os.environ["PATH"]  # noqa: TID251


def test_python_starts_in_a_folder_whose_name_the_language_has_no_letters_for(tmp_path: Path) -> None:
    folder = tmp_path / "Köln neu"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "project.pth").write_text(f"{folder}\n", "utf-8")
    environment = for_tools({**os.environ, "LC_ALL": "xx_XX.ISO-8859-1"})  # noqa: TID251
    command = [str(folder / "bin" / "python"), "-c", "import sys; print(sys.path[-1])"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == f"{folder}\n"
