"""What a hosted project shows over HTTP: its address, keys, signing keys, exposed schemas and redirect addresses."""

from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import jwt

from local.environment import LOOPBACK
from local.findings import Finding
from local.settings import Settings as LocalSettings

ASYMMETRIC = ("ES256", "RS256")
PROVIDERS = ("github", "google")
TIMEOUT_SECONDS = 10.0
PAUSED = 540
KeyKind = Literal["publishable", "secret", "anon", "service_role", "unknown"]
WHERE_KEYS_ARE = "Copy it from the project's settings, API keys."


async def check_api(settings: LocalSettings, client: httpx.AsyncClient) -> list[Finding]:
    """Every finding about the project at SUPABASE_URL; what cannot be asked after an earlier fault is left out."""
    url = settings.supabase_url.rstrip("/")
    key = settings.variables.get("SUPABASE_PUBLISHABLE_KEY", "")
    secret_key = settings.variables.get("SUPABASE_SECRET_KEY")
    findings = [*check_address(url), *check_key(key, url), *check_secret_key(secret_key)]
    if any(finding.advice for finding in findings):
        return findings
    api = Api(url, key, client)
    found, auth = await _fetch_settings(api)
    findings.append(found)
    if auth is None:
        return findings
    findings += await _signing_keys(api, has_secret="SUPABASE_JWT_SECRET" in settings.variables)
    findings += await _schemas(api)
    findings += await _redirects(api, settings, auth)
    return findings


class Api:
    """A project's interfaces, asked with its publishable key and as nobody."""

    def __init__(self, url: str, key: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._key = key
        self._client = client

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send one request; None when there is no answer."""
        headers = {"apikey": self._key, **options.pop("headers", {})}
        try:
            return await self._client.request(
                method, f"{self._url}{path}", headers=headers, timeout=TIMEOUT_SECONDS, **options
            )
        except (httpx.HTTPError, httpx.InvalidURL):
            return None


def check_address(url: str) -> Iterator[Finding]:
    """Whether SUPABASE_URL is a project's own address."""
    if not url:
        advice = "Set it to the project's address, https://<ref>.supabase.co."
        yield Finding("SUPABASE_URL", "is not set", advice)
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Finding("SUPABASE_URL", "is not a web address", "Write it whole: https://<ref>.supabase.co.")
    elif parts.path.strip("/") or parts.query:
        yield Finding("SUPABASE_URL", "has something behind the host", f"Set {parts.scheme}://{parts.netloc} alone.")
    elif parts.scheme == "http" and parts.hostname not in LOOPBACK:
        yield Finding("SUPABASE_URL", "sends tokens in the clear", f"Set https://{parts.netloc}.")
    else:
        yield Finding("SUPABASE_URL", url)


def kind_of(key: str) -> KeyKind:
    """What an API key of a project is, by its form; legacy keys are JWTs that name a role."""
    if key.startswith("sb_publishable_"):
        return "publishable"
    if key.startswith("sb_secret_"):
        return "secret"
    role = _claims(key).get("role")
    return role if role in ("anon", "service_role") else "unknown"


def check_key(key: str, url: str) -> Iterator[Finding]:
    """Whether the key that browsers get is one for everybody, and one of this project."""
    name, kind = "SUPABASE_PUBLISHABLE_KEY", kind_of(key)
    if not key:
        yield Finding(name, "is not set", WHERE_KEYS_ARE)
    elif kind in ("secret", "service_role"):
        yield Finding(
            name,
            f"holds a {kind.replace('_', '-')} key, which passes row level security and is given to every browser",
            "Delete that key in the project's settings at once (a legacy one: rotate the JWT secret), and set the "
            "publishable key, sb_publishable_…",
        )
    elif kind == "unknown":
        yield Finding(name, "is no key of Supabase's", WHERE_KEYS_ARE)
    elif kind == "anon":
        named, host = str(_claims(key).get("ref", "")), urlsplit(url).hostname or ""
        if named and host.endswith(".supabase.co") and host.split(".")[0] != named:
            yield Finding(name, f"belongs to the project {named}, not to {host}", WHERE_KEYS_ARE)
        else:
            hint = "Legacy keys cannot be replaced one by one: make a publishable key (sb_publishable_…) and set that."
            yield Finding(name, "a legacy anon key", hint=hint)
    else:
        yield Finding(name, "a publishable key")


def check_secret_key(key: str | None) -> Iterator[Finding]:
    """Concerto needs no secret key; one that is there all the same should at least be one."""
    if key is None:
        return
    hint = "Concerto uses none; remove it where its services run."
    if kind_of(key) in ("secret", "service_role"):
        yield Finding("SUPABASE_SECRET_KEY", "a key that passes row level security", hint=hint)
    else:
        yield Finding("SUPABASE_SECRET_KEY", "is no secret key", "Remove it: Concerto uses none.")


def _claims(key: str) -> dict[str, Any]:
    try:
        return dict(jwt.decode(key, options={"verify_signature": False}))
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}


async def _fetch_settings(api: Api) -> tuple[Finding, dict[str, Any] | None]:
    response = await api.ask("GET", "/auth/v1/settings")
    if response is None:
        return Finding("Supabase Auth", "does not answer", "Check SUPABASE_URL and this machine's network."), None
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return Finding("SUPABASE_PUBLISHABLE_KEY", "is refused by the project", WHERE_KEYS_ARE), None
    if response.status_code == PAUSED:
        return Finding("Supabase Auth", "the project is paused", "Restore it in the dashboard."), None
    found = _json(response) if response.is_success else None
    if not isinstance(found, dict) or "external" not in found:
        detail = f"answers {response.status_code} in place of its settings"
        return Finding("Supabase Auth", detail, "Is SUPABASE_URL the address of a Supabase project?"), None
    hint = "New accounts need not confirm their e-mail address." if found.get("mailer_autoconfirm") else ""
    return Finding("Supabase Auth", "answers, and accepts the key", hint=hint), found


async def _signing_keys(api: Api, *, has_secret: bool) -> list[Finding]:
    response = await api.ask("GET", "/auth/v1/.well-known/jwks.json")
    keys = _json(response) if response is not None and response.is_success else None
    if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list):
        return [Finding("signing keys", "the key set cannot be read", "Is SUPABASE_URL right? See Supabase's status.")]
    algorithms = sorted({str(key.get("alg")) for key in keys["keys"] if isinstance(key, dict)} & {*ASYMMETRIC})
    if algorithms:
        hint = ""
        if has_secret:
            hint = "Remove SUPABASE_JWT_SECRET once no token of the legacy secret is valid any more."
        return [Finding("signing keys", f"{', '.join(algorithms)}, by the project's key set", hint=hint)]
    migrate = "Settings, JWT keys, Migrate; then create an ES256 key and rotate to it."
    if has_secret:
        hint = f"Whoever holds it can sign tokens. Better: {migrate}"
        return [Finding("signing keys", "a shared secret (HS256), given by SUPABASE_JWT_SECRET", hint=hint)]
    advice = f"{migrate} Or set SUPABASE_JWT_SECRET."
    return [Finding("signing keys", "the key set holds no ES256 or RS256 key", advice)]


async def _schemas(api: Api) -> list[Finding]:
    findings = []
    profile = {"Content-Profile": "api", "Accept-Profile": "api"}
    response = await api.ask("POST", "/rest/v1/rpc/get_me", headers=profile, json={"args": {}})
    code = _code(response)
    if code == "PGRST106":
        advice = "Add api under Settings, Data API, Exposed schemas; or `supabase config push`."
        findings.append(Finding("schema api", "is not exposed over REST", advice))
    elif code == "PGRST202":
        advice = "Apply the migrations: concerto migrate --target hosted."
        findings.append(Finding("schema api", "is exposed, and holds no operation get_me", advice))
    elif response is not None and response.is_success:
        advice = "Apply the migrations anew; no operation may be granted to anon."
        findings.append(Finding("schema api", "answers people who are not signed in", advice))
    elif code == "42501":
        findings.append(Finding("schema api", "exposed over REST, and closed to strangers"))
    else:
        detail = f"answers {response.status_code if response is not None else 'nothing'} {code}".rstrip()
        findings.append(Finding("schema api", detail, "See the project's API logs."))
    response = await api.ask("GET", "/rest/v1/users?limit=1", headers={"Accept-Profile": "private"})
    if _code(response) != "PGRST106":
        advice = "Take private out of Exposed schemas: it is the services' own way in."
        findings.append(Finding("schema private", "may be exposed over REST", advice))
    response = await api.ask("GET", "/rest/v1/users?limit=1", headers={"Accept-Profile": "public"})
    if response is not None and response.is_success:
        advice = "Revoke what anon was granted: revoke all on all tables in schema public from anon;"
        findings.append(Finding("schema public", "strangers may read tables", advice))
    return findings


async def _redirects(api: Api, settings: LocalSettings, auth: dict[str, Any]) -> list[Finding]:
    """Auth sends a damaged link on to where it was to lead, if that is allowed, and otherwise to the site's address."""
    external = auth.get("external")
    social = isinstance(external, dict) and any(external.get(provider) for provider in PROVIDERS)
    paths = ("/reset-password/", "/callback/", *(("/auth/callback",) if social else ()))
    wanted = [f"{settings.gateway_url}{path}" for path in paths]
    refused: list[str] = []
    for address in wanted:
        query = {"token": "concerto-doctor", "type": "signup", "redirect_to": address}
        response = await api.ask("GET", "/auth/v1/verify", params=query, follow_redirects=False)
        location = response.headers.get("location", "") if response is not None and response.is_redirect else ""
        if not location:
            detail = f"cannot be seen from outside ({', '.join(wanted)})"
            return [Finding("redirect addresses", detail, hint="Compare them in the dashboard, URL Configuration.")]
        if location.split("#")[0].split("?")[0] != address:
            refused.append(address)
    if not refused:
        return [Finding("redirect addresses", f"allowed for {settings.gateway_url}")]
    advice = f"Add {', '.join(refused)} under Authentication, URL Configuration."
    if settings.gateway_public_url:
        return [Finding("redirect addresses", "links in mails would not lead back here", advice)]
    hint = f"{advice} Where people use it, set GATEWAY_PUBLIC_URL first."
    return [Finding("redirect addresses", "GATEWAY_PUBLIC_URL is not set; links would not lead back here", hint=hint)]


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _code(response: httpx.Response | None) -> str:
    body = _json(response) if response is not None else None
    return str(body.get("code", "")) if isinstance(body, dict) else ""
