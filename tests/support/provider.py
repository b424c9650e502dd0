"""A stand-in for GitHub's sign-in: its page that asks for consent, its token, and the owner's addresses."""

import contextlib
import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign-in provider</title><link rel="icon" href="data:,"></head>
<body><main><h1>Allow Concerto to see your address?</h1>
<p><a href="{granted}">Authorize</a></p><p><a href="{denied}">Cancel</a></p></main></body></html>
"""


class SignInProvider:
    """Answers as GitHub does for whoever has the address `email`."""

    def __init__(self) -> None:
        self.email = f"{uuid4()}@example.com"
        self.name = "Ada Lovelace"
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, body = provider.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = handle_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, target: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a request's path."""
        address = urlsplit(target)
        match address.path:
            case "/login/oauth/authorize":
                asked = {name: values[0] for name, values in parse_qs(address.query).items()}
                page = _PAGE.format(
                    granted=_back(asked, code="1234"),
                    denied=_back(asked, error="access_denied", error_description="The user has denied access"),
                )
                return 200, "text/html; charset=utf-8", page.encode()
            case "/login/oauth/access_token":
                return _json({"access_token": "of-github", "token_type": "bearer", "scope": "user:email"})
            case "/api/v3/user":
                number = int.from_bytes(self.email.encode()[:6], "big")
                return _json({"id": number, "login": "ada", "name": self.name, "avatar_url": ""})
            case "/api/v3/user/emails":
                return _json([{"email": self.email, "verified": True, "primary": True}])
        return 404, "application/json", b"{}"

    @contextlib.contextmanager
    def running(self) -> Iterator["SignInProvider"]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _back(asked: dict[str, str], **parameters: str) -> str:
    query = urlencode({**parameters, "state": asked.get("state", "")})
    return html.escape(f"{asked.get('redirect_uri', '')}?{query}", quote=True)


def _json(content: Any) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(content).encode()
