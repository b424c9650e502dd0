"""Serves the web app: the files of its export, each page with a Content-Security-Policy that fits its own scripts."""

import base64
import hashlib
import mimetypes
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import quote, urlsplit

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from gateway.rest import negotiation
from gateway.settings import Settings
from servicekit.errors import AppError

ROUTE_PATH = "/{file:path}"
"""What the log says instead of a file's path."""

# The best one first. The build writes them beside the files.
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
# Next names these files by their content.
_UNCHANGING = "/_next/static/"
_UNCHANGING_CACHE = "public, max-age=31536000, immutable"
# Not what this machine's mime.types or this version of Python says: browsers run no script of another type (nosniff).
_TYPES = mimetypes.MimeTypes()
_OWN_TYPES = {
    ".js": "text/javascript",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
# What a 304 may not repeat, because it speaks of a body.
_OF_THE_BODY = frozenset({"accept-ranges", "content-encoding", "content-length", "content-type"})
_CONDITIONS = StaticFiles()

START_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Concerto</title></head>
<body>
<h1>Concerto</h1>
<p>The suite runs. Sign-in, chat sessions and model answers are served here as a REST API.</p>
<p>The web app has not been built here: <code>make setup</code> builds it, and <code>make up</code> does so first. If it
is built elsewhere, GATEWAY_WEB_FOLDER names its folder.</p>
<ul>
<li><a href="/docs">Documentation of the API</a></li>
<li><a href="/openapi.json">OpenAPI document</a></li>
<li><a href="/readyz">State of the services</a></li>
</ul>
</body></html>
"""
"""What `/` answers while there is no export."""


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    stat: os.stat_result
    media_type: str
    encoding: str | None
    policy: str | None
    """The Content-Security-Policy, for pages."""


class WebApp:
    """An ASGI application for whatever no route of the API has taken."""

    def __init__(self, settings: Settings) -> None:
        self._root = os.path.abspath(settings.web_folder)
        self._policies = Policies(settings.browser_supabase_url)
        self._route = Route(ROUTE_PATH, self.respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises HTTPException (404, 405) where there is nothing to serve."""
        response = await self.respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def has(self, path: str) -> bool:
        """Say whether a file of the export is at this path."""
        return await self._look_up(path) is not None

    async def respond(self, request: Request) -> Response:
        """Return the file that the path means, the way to it, or the page for what does not exist."""
        path: str = request.scope["path"]
        accepted = negotiation.qualities(request.headers.get("accept-encoding"))
        encodings = {name for name, quality in accepted.items() if quality > 0}
        is_reading = request.method in ("GET", "HEAD")
        file = await self._look_up(path, encodings)
        if file is None and is_reading and await self._look_up(f"{path}/") is not None:
            query = request.scope["query_string"].decode("latin-1")
            # Without a host, which only a proxy in front knows for sure. The path has no empty part, so it names none.
            return RedirectResponse(quote(f"{path}/") + (f"?{query}" if query else ""))
        if file is None:
            return await self._refuse(request, path)
        if not is_reading:
            raise HTTPException(405)
        request.scope["route"] = self._route
        cache = _UNCHANGING_CACHE if path.startswith(_UNCHANGING) else "no-cache"
        return _answer(file, request.headers, cache=cache)

    async def _refuse(self, request: Request, path: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405 if path == "/" else 404)
        if path == "/":
            return HTMLResponse(START_PAGE, headers={"cache-control": "no-cache"})
        if negotiation.prefers(request.headers.get("accept"), "text/html", over="application/json"):
            page = await self._look_up("/404.html")
            if page is not None:
                request.state.failure = AppError("ROUTE_NOT_FOUND", metadata={"path": path[:200]})  # for the log entry
                return FileResponse(
                    page.path, 404, _headers(page, cache="no-store"), page.media_type, stat_result=page.stat
                )
        raise HTTPException(404)

    async def _look_up(self, path: str, encodings: Collection[str] = ()) -> _File | None:
        """Return the file that a path means, in the best accepted encoding; None when there is none."""
        return await anyio.to_thread.run_sync(self._find, path, encodings)

    def _find(self, path: str, encodings: Collection[str]) -> _File | None:
        first, *parts = path.split("/")
        # No part leads upwards, to a hidden file or to another root, so what is left stays within the folder.
        if first or not parts or any(not _is_plain(part) for part in parts[:-1]) or _is_strange(parts[-1]):
            return None
        full = os.path.join(self._root, *parts[:-1], parts[-1] or "index.html")
        status = _status(full)
        if status is None:
            return None
        extension = os.path.splitext(full)[1].lower()
        media_type = _OWN_TYPES.get(extension) or _TYPES.guess_type(full)[0] or "application/octet-stream"
        policy = self._policies.of(full, status) if media_type == "text/html" else None
        for encoding, suffix in _ENCODINGS:
            if encoding in encodings:
                packed = _status(full + suffix)
                if packed is not None and packed.st_mtime_ns >= status.st_mtime_ns:  # not one of an earlier build
                    return _File(full + suffix, packed, media_type, encoding, policy)
        return _File(full, status, media_type, None, policy)


class Policies:
    """The Content-Security-Policies of pages: scripts run by address from here, or by the hash of their text.

    supabase_url: where the pages sign in and find pictures.
    """

    def __init__(self, supabase_url: str) -> None:
        parts = urlsplit(supabase_url)
        supabase = f"{parts.scheme}://{parts.netloc}"
        socket = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
        self._rest = "; ".join(
            (
                "style-src 'self' 'unsafe-inline'",
                f"img-src 'self' data: blob: {supabase}",
                "font-src 'self'",
                f"connect-src 'self' {supabase} {socket}",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
                "manifest-src 'self'",
                "media-src 'self' blob:",
            )
        )
        self._known: dict[str, tuple[int, int, str]] = {}

    def of(self, page: str, status: os.stat_result) -> str:
        """Return the policy of a page, worked out once for each version of its file."""
        known = self._known.get(page)
        if known is not None and known[:2] == (status.st_mtime_ns, status.st_size):
            return known[2]
        with open(page, encoding="utf-8") as file:
            policy = self.for_text(file.read())
        self._known[page] = (status.st_mtime_ns, status.st_size, policy)
        return policy

    def for_text(self, html: str) -> str:
        """Return the policy of a page with this text."""
        scripts = _InlineScripts()
        scripts.feed(html)
        scripts.close()
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts.texts]
        sources = " ".join(["'self'", *(f"'sha256-{one}'" for one in dict.fromkeys(hashes))])
        return f"default-src 'none'; script-src {sources}; {self._rest}"


class _InlineScripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: list[str] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and not any(name == "src" for name, _ in attrs):
            self._is_inside = True
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.texts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._is_inside = False


def _answer(file: _File, request_headers: Headers, *, cache: str) -> Response:
    headers = _headers(file, cache=cache)
    response = FileResponse(file.path, 200, headers, file.media_type, stat_result=file.stat)
    if not _CONDITIONS.is_not_modified(response.headers, request_headers):
        return response
    # With the page's policy: a browser takes the headers of a 304 over into what it has kept.
    kept = {name: value for name, value in response.headers.items() if name not in _OF_THE_BODY}
    return Response(status_code=304, headers=kept)


def _headers(file: _File, *, cache: str) -> Mapping[str, str]:
    headers = {"cache-control": cache, "vary": "accept-encoding"}
    if file.encoding is not None:
        headers["content-encoding"] = file.encoding
    if file.policy is not None:
        headers |= {
            "content-security-policy": file.policy,
            "referrer-policy": "same-origin",
            "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        }
    return headers


def _is_plain(part: str) -> bool:
    return part != "" and not _is_strange(part)


def _is_strange(part: str) -> bool:
    return part.startswith(".") or "\\" in part or "\0" in part


def _status(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # absent, or a name that no file can have
        return None
    return status if stat.S_ISREG(status.st_mode) else None
