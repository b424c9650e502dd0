import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway import app
from gateway import document as gateway_document
from gateway.rest import contract
from gateway.tests.fakes import gateway_settings
from local.setup import bootstrap, error_page, lock
from local.suite.processes import node_program
from tests.support.contract import ROOT

WEB = ROOT / "web"
OUT = WEB / "out"
CODE = {".ts", ".tsx", ".mjs", ".css", ".js"}
SOURCES = [path for path in bootstrap.web_sources() if path.suffix in CODE]
# What only servers may hold. `sb_secret_` begins a secret key, `service_role` names the role that passes every policy.
SECRET = re.compile(r"service_?role|sb_secret|secret_?key", re.IGNORECASE)
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
LOADING = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
EXPORT = sorted(OUT.rglob("*.html"))
WEB_LOCK = json.loads((WEB / "package-lock.json").read_text())


class Page(HTMLParser):
    """What a page loads, and what of it would run against its policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) in LOADING:
                self.loaded.append(value or "")
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.handlers.append(f"{tag} {name}")


def test_the_export_is_there() -> None:
    assert EXPORT, "run `make setup`, which builds the web app"
    assert (OUT / "index.html").is_file()
    assert (OUT / "404.html").is_file()


def test_the_web_apps_types_are_made_from_this_contract_and_never_committed() -> None:
    document = gateway_document.document(contract.bindings(contract.SERVICES))
    assert json.loads(bootstrap.WEB_DOCUMENT.read_text()) == document, "run `make setup`"
    assert bootstrap.WEB_TYPES.is_file()
    ignored = (WEB / ".gitignore").read_text().splitlines()
    for product in (bootstrap.WEB_DOCUMENT, bootstrap.WEB_TYPES, bootstrap.WEB_LIMITS, OUT, WEB / ".next"):
        assert {f"/{product.relative_to(WEB)}", f"/{product.relative_to(WEB)}/"} & set(ignored), product


def test_a_change_of_the_contract_that_breaks_the_web_app_is_found(tmp_path: Path) -> None:
    for source in (*bootstrap.web_sources(), bootstrap.WEB_TYPES, WEB / "next-env.d.ts"):
        copy = tmp_path / source.relative_to(WEB)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    (tmp_path / "node_modules").symlink_to(WEB / "node_modules")
    compiler = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    command = [str(node_program()), str(compiler), "--noEmit", "--incremental", "false"]
    types = tmp_path / bootstrap.WEB_TYPES.relative_to(WEB)
    types.write_text(re.sub(r"\bdisplay_name\b", "called_name", types.read_text()))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "display_name" in done.stdout


def test_the_web_app_knows_no_secret() -> None:
    assert SOURCES
    assert [str(path.relative_to(ROOT)) for path in SOURCES if SECRET.search(path.read_text())] == []
    products = [path for path in OUT.rglob("*") if path.suffix in (".js", ".html", ".txt", ".json")]
    assert [path for path in products if re.search(r"sb_secret_\w{8}", path.read_text())] == []


def test_one_export_serves_every_deployment() -> None:
    # What a build reads from its environment would be fixed for all; the web app asks /config.json.
    baked = re.compile(r"NEXT_PUBLIC_|process\.env\.(?!NODE_ENV\b)")
    assert [str(path.relative_to(ROOT)) for path in SOURCES if baked.search(path.read_text())] == []


@pytest.mark.parametrize("page", EXPORT, ids=lambda page: str(page.relative_to(OUT)))
def test_a_page_loads_from_its_own_host_and_has_no_code_in_its_attributes(page: Path) -> None:
    read = Page(page.read_text())
    assert read.loaded
    assert [address for address in read.loaded if ELSEWHERE.match(address) and not address.startswith("data:")] == []
    assert read.handlers == []


def test_styles_load_from_their_own_host() -> None:
    styles = list(OUT.rglob("*.css"))
    assert styles
    for path in styles:
        text = path.read_text()
        addresses = re.findall(r"url\(\s*[\"']?([^)\"']+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)
        assert [a for a in addresses if ELSEWHERE.match(a) and not a.startswith("data:")] == [], path.name


def test_scripts_name_no_host_that_serves_code_or_fonts() -> None:
    named = re.compile(r"https?://[\w.-]*(?:jsdelivr|unpkg|cdnjs|googleapis|gstatic|esm\.sh|vercel)[\w.-]*")
    scripts = [path for path in OUT.rglob("*") if path.suffix in (".js", ".html", ".css")]
    assert {match for path in scripts for match in named.findall(path.read_text())} == set()


async def test_no_page_stands_where_the_api_answers() -> None:
    async with app.build(gateway_settings()) as application:
        first_parts = {str(getattr(route, "path", "")).split("/")[1] for route in application.routes}
    pages = {path.relative_to(OUT).parts[0] for path in EXPORT if path.parent != OUT}
    assert pages
    assert pages & first_parts == set()


def test_the_lock_of_the_web_app_names_no_addresses_and_lacks_no_platform() -> None:
    entries = {name: entry for name, entry in WEB_LOCK["packages"].items() if name}
    assert "://" not in json.dumps([entry.get("resolved", "") for entry in entries.values()])
    assert [name for name, entry in entries.items() if "resolved" in entry] == []
    assert [name for name, entry in entries.items() if "integrity" not in entry and not entry.get("inBundle")] == []
    assert lock.gaps(WEB_LOCK) == [], "run `make lock`"


def test_npm_versions_of_the_web_app_are_exact_and_locked() -> None:
    package = json.loads((WEB / "package.json").read_text())
    versions = {**package["dependencies"], **package["devDependencies"]}
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    locked = {name: WEB_LOCK["packages"][f"node_modules/{name}"]["version"] for name in versions}
    assert locked == versions


def test_files_of_the_web_app_are_named_in_kebab_case_and_short() -> None:
    folders = ("app", "components", "features", "lib", "test")
    own = [path for path in SOURCES if path.relative_to(WEB).parts[0] in folders]
    own += [path for folder in folders for path in (WEB / folder).rglob("*.test.ts*")]
    own = [path for path in own if path != bootstrap.WEB_TYPES]
    names = [str(path.relative_to(WEB)) for path in own]
    assert [name for name in names if not re.fullmatch(r"[a-z0-9./()_-]+", name)] == []
    assert [path.name for path in own if len(path.read_text().splitlines()) > 400] == []


def test_reasons_that_the_web_app_has_sentences_for_are_in_the_tables() -> None:
    catalogues = [path for path in SOURCES if path.name == "sentences.ts"]
    named = {name for path in catalogues for name in re.findall(r"^ +([A-Z][A-Z_]+):", path.read_text(), re.MULTILINE)}
    assert named
    assert named - set().union(*error_page.tables().values()) == set()


def test_the_document_can_be_printed_without_a_suite() -> None:
    command = [str(bootstrap.PYTHON), "-m", "gateway.document"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(bootstrap.WEB_DOCUMENT.read_text())
