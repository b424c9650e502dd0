"""Checks the address by which browsers find Concerto: the root of a host, as the web app's own addresses are."""

from urllib.parse import urlsplit


def public_origin(value: str) -> str:
    """Return an address without the slash at its end. Raises ValueError, with what to do, for one that is no origin."""
    try:
        parts = urlsplit(value)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            "must be the root of a host, as https://concerto.example.com: the web app, the API and /docs do not work "
            "below a path. Give Concerto a name of its own in the proxy in front of it"
        )
    return f"{parts.scheme}://{parts.netloc}"
