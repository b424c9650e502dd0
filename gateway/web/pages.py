"""What stands beside the API and the web app: the documentation, and the web app's configuration."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import structlog
from concerto.auth.v1 import auth_pb2
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from gateway.rest.routes import route
from gateway.settings import Settings
from servicekit.errors import AppError
from servicekit.messages.json_fields import enum_spellings

_LOG = structlog.stdlib.get_logger(__name__)

DOCS_ASSETS = Path(__file__).resolve().parent.parent.parent / "node_modules" / "swagger-ui-dist"
"""Folder of the npm package swagger-ui-dist; the documentation page needs nothing from elsewhere."""
PROVIDERS_TTL_SECONDS = 60.0
_ASSETS = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Concerto: API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body></html>
"""
# A file of its own, as the page's policy allows no scripts inside it. No validator: it is a service on the Internet.
_DOCS_SCRIPT = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_DOCS_ABSENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Concerto: API</title></head>
<body><p>The documentation page is not part of this installation; the API is described in
<a href="/openapi.json">/openapi.json</a>.</p></body></html>
"""


class Providers:
    """Which sign-in providers the Supabase project has switched on; asked at most once a minute."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self._url = f"{settings.supabase_url}/auth/v1/settings"
        key = settings.supabase_publishable_key
        self._headers = {"apikey": key.get_secret_value()} if key else {}
        self._client = client
        self._known: list[str] = []
        self._asked_at = -PROVIDERS_TTL_SECONDS
        self._lock = asyncio.Lock()

    async def enabled(self) -> list[str]:
        """Return the providers' names as the contract spells them; the last known ones while nobody answers."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= PROVIDERS_TTL_SECONDS:
                self._asked_at = time.monotonic()
                self._known = await self._ask()
        return self._known

    async def _ask(self) -> list[str]:
        try:
            response = await self._client.get(self._url, headers=self._headers, timeout=2.0)
            response.raise_for_status()
            external = response.json()["external"]
            return [name for name in enum_spellings(auth_pb2.SocialProvider.DESCRIPTOR) if external.get(name) is True]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            _LOG.warning("providers.unknown", error=type(error).__name__)
            return self._known


def routes(settings: Settings, providers: Providers, openapi: Mapping[str, Any], *, version: str) -> list[Route]:
    """Return the routes of `/docs`, `/openapi.json` and `/config.json`."""
    openapi_json = orjson.dumps(openapi)
    key = settings.supabase_publishable_key

    async def openapi_document(_: Request) -> Response:
        return Response(openapi_json, media_type="application/json")

    async def config(_: Request) -> Response:
        content = {
            "supabase_url": settings.browser_supabase_url,
            "supabase_publishable_key": key.get_secret_value() if key else None,
            "providers": await providers.enabled(),
            "version": version,
        }
        return Response(orjson.dumps(content), media_type="application/json", headers={"cache-control": "no-cache"})

    async def docs(_: Request) -> Response:
        has_assets = all((DOCS_ASSETS / name).is_file() for name in _ASSETS)
        headers = {"content-security-policy": _DOCS_POLICY} if has_assets else {}
        return HTMLResponse(_DOCS_PAGE if has_assets else _DOCS_ABSENT, headers=headers)

    async def docs_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "start.js":
            return Response(_DOCS_SCRIPT, media_type="text/javascript")
        if name not in _ASSETS or not (DOCS_ASSETS / name).is_file():
            raise AppError("ROUTE_NOT_FOUND", metadata={"path": f"/docs/{name[:64]}"})
        return FileResponse(DOCS_ASSETS / name, headers={"cache-control": "public, max-age=3600"})

    return [
        route("/openapi.json", openapi_document, "GET", "HEAD"),
        route("/config.json", config, "GET", "HEAD"),
        route("/docs", docs, "GET", "HEAD"),
        route("/docs/{name}", docs_file, "GET", "HEAD"),
    ]
