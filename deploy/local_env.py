"""Writes the file .env with which `docker compose --profile local up` runs everything on this machine.

    python3 deploy/local_env.py [file]

Makes the keys that the services and the embedded Supabase share, at random. Needs Python alone. An existing file is
left as it is.
"""

import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = """# Made by deploy/local_env.py for `docker compose --profile local up`. It holds keys: keep it to yourself.
# Remove it to go back to `make up`, which reads the same file and makes keys of its own.
COMPOSE_PROFILES=local
CONCERTO_ENVIRONMENT=development
SUPABASE_URL=http://supabase:8001
SUPABASE_PUBLIC_URL={public_url}
SUPABASE_PUBLISHABLE_KEY=sb_publishable_{publishable_key}
SUPABASE_JWT_SECRET={jwt_secret}
SUPABASE_DB_URL=postgresql://concerto_login:{login_password}@supabase:8002/postgres
CONCERTO_EMBEDDED_LOGIN_PASSWORD={login_password}
AUTH_FORWARDING_KEY={forwarding_key}
GATEWAY_COOKIE_SECRET={cookie_secret}
CONCERTO_SERVICE_KEY={service_key}
"""


def text(*, public_url: str = "http://127.0.0.1:8001") -> str:
    """Return the file's content, with new keys.

    public_url: where browsers find the embedded Supabase.
    """
    names = ("publishable_key", "jwt_secret", "login_password", "forwarding_key", "cookie_secret", "service_key")
    return TEXT.format(public_url=public_url, **{name: secrets.token_urlsafe(32) for name in names})


def write(file: Path, content: str) -> None:
    """Write the file for its owner only. Raises FileExistsError when it is there already."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(content)


def main(arguments: list[str]) -> None:
    """Write the file that the argument names, by default .env of this working copy."""
    file = Path(arguments[0]) if arguments else ROOT / ".env"
    try:
        write(file, text())
    except FileExistsError:
        sys.exit(f"{file} is there already and is left as it is. Move it away, or name another file.")
    except OSError as error:
        sys.exit(f"{file} cannot be written: {error.strerror}.")
    sys.stdout.write(f"{file} is written. Next: docker compose --profile local up -d\n")


if __name__ == "__main__":
    main(sys.argv[1:])
