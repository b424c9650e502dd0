import base64
import gzip
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
import structlog

from gateway import middleware
from gateway.app import build
from gateway.tests.fakes import client_of, error_of, gateway_settings
from gateway.web.export import Policies

BROWSER = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SUPABASE = "https://abc.supabase.example"
INLINE = 'self.__next_f.push([1,"a < b & c\\u003c/script>"])'
PAGE = f"""<!doctype html><html><head><script src="/theme.js"></script></head>
<body><h1>Chat</h1><script>{INLINE}</script><script id="two" async>two()</script><SCRIPT>{INLINE}</SCRIPT></body></html>
"""
CHUNK = "export const answer = 42;\n" * 200


def source_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A small export, as a build makes it; beside it a file that is nobody's business."""
    folder = tmp_path / "out"
    write(tmp_path, {"secret.txt": "swordfish", "out-of-reach/index.html": "swordfish"})
    write(
        folder,
        {
            "index.html": "<!doctype html><title>home</title>",
            "404.html": "<!doctype html><title>Not here</title><script>lost()</script>",
            "chat/index.html": PAGE,
            "chat/index.txt": "payload",
            "icon.svg": "<svg/>",
            "_next/static/chunks/a1.js": CHUNK,
            "_next/static/chunks/a1.js.gz": gzip.compress(CHUNK.encode()),
            "_next/static/chunks/a1.js.br": b"brotli",
            "_next/static/media/face.woff2": b"\0\1",
            ".stamp": "hidden",
            "with space/index.html": "<title>space</title>",
        },
    )
    return folder


@pytest.fixture
async def web(export: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with build(gateway_settings(web_folder=export, supabase_url=SUPABASE)) as app, client_of(app) as client:
        client.headers["accept-encoding"] = "identity"
        yield client


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/chat/", "text/html; charset=utf-8"),
        ("/chat/?id=7", "text/html; charset=utf-8"),
        ("/chat/index.txt", "text/plain; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/_next/static/chunks/a1.js", "text/javascript; charset=utf-8"),
        ("/_next/static/media/face.woff2", "font/woff2"),
        ("/with%20space/", "text/html; charset=utf-8"),
    ],
)
async def test_a_file_is_served_with_its_type(web: httpx.AsyncClient, path: str, content_type: str) -> None:
    response = await web.get(path)
    head = await web.head(path)
    assert response.status_code == head.status_code == 200
    assert response.headers["content-type"] == head.headers["content-type"] == content_type
    assert head.headers["content-length"] == str(len(response.content))
    assert head.content == b""
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/chat", "/chat/"),
        ("/chat?id=7&message=a%2Fb", "/chat/?id=7&message=a%2Fb"),
        ("/with%20space", "/with%20space/"),
    ],
)
async def test_a_page_without_its_slash_is_led_to_it(web: httpx.AsyncClient, asked: str, location: str) -> None:
    response = await web.get(asked)
    assert (response.status_code, response.headers["location"]) == (307, location)


async def test_the_api_comes_before_the_files(web: httpx.AsyncClient, export: Path) -> None:
    write(export, {"sessions/index.html": "page", "healthz": "page", "docs/index.html": "page"})
    assert error_of(await web.get("/sessions", headers=BROWSER))[0] == 401
    assert (await web.get("/healthz")).json() == {"status": "serving"}
    assert "swagger" in (await web.get("/docs")).text
    # A page's own path has a slash at its end, by which a route is found only where there is no page.
    assert (await web.get("/sessions/", headers=BROWSER)).text == "page"
    assert error_of(await web.post("/sessions/", headers=BROWSER))[0] == 401
    assert error_of(await web.put("/sessions"))[0] == 405
    assert (await web.put("/sessions")).headers["allow"] == "GET, HEAD, POST"


async def test_only_files_that_change_their_name_with_their_content_are_kept(web: httpx.AsyncClient) -> None:
    chunk = await web.get("/_next/static/chunks/a1.js")
    assert chunk.headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/", "/chat/", "/chat/index.txt", "/icon.svg"):
        assert (await web.get(path)).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/chat/", "/icon.svg", "/_next/static/chunks/a1.js"])
async def test_a_file_that_the_browser_has_is_not_sent_again(web: httpx.AsyncClient, path: str) -> None:
    first = await web.get(path)
    for condition, validator in (("if-none-match", "etag"), ("if-modified-since", "last-modified")):
        again = await web.get(path, headers={condition: first.headers[validator]})
        assert (again.status_code, again.content) == (304, b"")
        # A browser replaces what it has kept by the headers of the 304.
        for kept in ("etag", "cache-control", "content-security-policy", "referrer-policy", "vary"):
            assert again.headers[kept] == first.headers[kept], kept
        assert "content-type" not in again.headers
    assert (await web.get(path, headers={"if-none-match": '"other"'})).status_code == 200


async def test_a_new_build_is_served_without_a_restart(web: httpx.AsyncClient, export: Path) -> None:
    before = await web.get("/chat/")
    (export / "chat" / "index.html").write_text("<script>other()</script>")
    after = await web.get("/chat/", headers={"if-none-match": before.headers["etag"]})
    assert after.text == "<script>other()</script>"
    assert source_of("other()") in after.headers["content-security-policy"]


async def test_a_page_runs_the_scripts_that_it_holds_and_no_others(web: httpx.AsyncClient) -> None:
    policy = (await web.get("/chat/")).headers["content-security-policy"]
    assert policy == "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {source_of(INLINE)} {source_of('two()')}",
            "style-src 'self' 'unsafe-inline'",
            f"img-src 'self' data: blob: {SUPABASE}",
            "font-src 'self'",
            f"connect-src 'self' {SUPABASE} wss://abc.supabase.example",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "manifest-src 'self'",
            "media-src 'self' blob:",
        )
    )
    assert "unsafe" not in policy.partition("style-src")[0]


async def test_pages_have_headers_of_their_own_and_other_files_those_of_the_api(web: httpx.AsyncClient) -> None:
    page, chunk = await web.get("/chat/"), await web.get("/_next/static/chunks/a1.js")
    assert page.headers["referrer-policy"] == "same-origin"
    assert "microphone=()" in page.headers["permissions-policy"]
    assert chunk.headers["content-security-policy"] == middleware.SECURITY_HEADERS["content-security-policy"]


def test_the_hash_of_a_script_is_that_of_its_text_as_a_browser_reads_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(
        b"<script>\r\none()\r\n</script><script type=module src=/x.js></script><p>two</p><script>'</p>'</script>"
    )
    policy = Policies("http://127.0.0.1:8001/").of(str(page), page.stat())
    first, second = source_of("\none()\n"), source_of("'</p>'")
    assert f"script-src 'self' {first} {second};" in policy
    assert "connect-src 'self' http://127.0.0.1:8001 ws://127.0.0.1:8001;" in policy


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0, GZIP;q=0.5", "gzip"),
        ("br;q=0,gzip;q=0.0", None),
        ("", None),
        ("identity", None),
    ],
)
async def test_the_packed_form_is_sent_to_who_can_unpack_it(
    web: httpx.AsyncClient, export: Path, accepted: str, encoding: str | None
) -> None:
    chunks = export / "_next/static/chunks"
    request = web.stream("GET", "/_next/static/chunks/a1.js", headers={"accept-encoding": accepted})
    async with request as response:
        sent = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers.get("content-encoding") == encoding
    suffix = {"br": ".br", "gzip": ".gz", None: ""}[encoding]
    assert sent == (chunks / f"a1.js{suffix}").read_bytes()
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["vary"] == "accept-encoding"


async def test_a_packed_form_of_an_earlier_build_is_not_sent(web: httpx.AsyncClient, export: Path) -> None:
    chunk = export / "_next/static/chunks/a1.js"
    future = time.time() + 10
    os.utime(chunk, (future, future))
    response = await web.get("/_next/static/chunks/a1.js", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
    assert response.text == CHUNK


async def test_each_form_has_its_own_validator(web: httpx.AsyncClient) -> None:
    plain = await web.get("/_next/static/chunks/a1.js")
    packed = await web.head("/_next/static/chunks/a1.js", headers={"accept-encoding": "gzip"})
    assert plain.headers["etag"] != packed.headers["etag"]


async def test_a_part_of_a_file_is_sent(web: httpx.AsyncClient) -> None:
    response = await web.get("/_next/static/chunks/a1.js", headers={"range": "bytes=0-5"})
    assert (response.status_code, response.text) == (206, "export")


async def test_what_does_not_exist_is_a_page_for_people_and_json_for_programs(web: httpx.AsyncClient) -> None:
    page = await web.get("/nothing/here", headers=BROWSER)
    assert page.status_code == 404
    assert "Not here" in page.text
    assert source_of("lost()") in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert (await web.head("/nothing/here", headers=BROWSER)).content == b""
    for accept in ("application/json", "*/*", "application/json, text/html"):
        assert error_of(await web.get("/nothing/here", headers={"accept": accept}))[:2] == (404, "ROUTE_NOT_FOUND")
    assert error_of(await web.post("/nothing/here", headers=BROWSER))[:2] == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("path", ["/", "/chat/", "/icon.svg"])
async def test_a_file_is_only_read(web: httpx.AsyncClient, path: str) -> None:
    response = await web.post(path)
    assert error_of(response)[:2] == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/chat/..%2f..%2fsecret.txt",
        "/chat/../../secret.txt",
        "/..%5csecret.txt",
        "/%2e%2e%5csecret.txt",
        "//secret.txt",
        "///etc/passwd",
        "/%2fetc%2fpasswd",
        "/../out-of-reach",
        "/../out-of-reach/",
        "/.stamp",
        "/chat/./index.html",
        "/chat//index.html",
        "//chat",
        "//chat/",
        "/chat%00",
        "/chat/%00/index.html",
        "/%ff",
        "/%ed%a0%80",
        "/" + "a" * 5000,
        "/" + "a/" * 2000,
        "/chat/index.html/",
        "/_next",
        "/_next/static/",
    ],
)
async def test_no_path_leads_out_of_the_folder_or_to_what_is_hidden(export: Path, path: str) -> None:
    async with build(gateway_settings(web_folder=export)) as app:
        # The bytes as they are: clients resolve dots before they send them.
        sent: list[dict[str, object]] = []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "query_string": b"", "headers": [], "server": ("x", 80),
        }  # fmt: skip

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 404
    assert b"swordfish" not in repr(sent).encode()


async def test_files_are_logged_quietly_and_by_no_name(web: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as entries:
        await web.get("/chat/?id=secret-plans")
        await web.get("/icon.svg")
        await web.get("/secret-plans", headers=BROWSER)
    found = [(e["log_level"], e["route"], e["status"]) for e in entries if e["event"] == "request.finished"]
    assert found == [("debug", "/{file:path}", 200), ("debug", "/{file:path}", 200), ("info", "-", 404)]
    assert "secret-plans" not in repr(entries)


async def test_without_an_export_the_start_page_says_how_to_build_it(tmp_path: Path) -> None:
    async with build(gateway_settings(web_folder=tmp_path / "absent")) as app, client_of(app) as client:
        page = await client.get("/", headers=BROWSER)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "make setup" in page.text
        for path in ("/docs", "/openapi.json", "/readyz"):
            assert f'href="{path}"' in page.text
        assert error_of(await client.post("/"))[:2] == (405, "METHOD_NOT_ALLOWED")
        assert error_of(await client.get("/chat/", headers=BROWSER))[:2] == (404, "ROUTE_NOT_FOUND")
