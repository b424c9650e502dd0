"""Runs the clients: `python -m tests.clients [name …]`, all of them without a name."""

import asyncio
import sys

from tests.clients.environments import clients
from tests.clients.running import run_all


def main() -> int:
    """Run the clients whose names hold one of the words, and return the exit code."""
    words = sys.argv[1:]
    chosen = [client for client in clients() if not words or any(word in client.name for word in words)]
    if not chosen:
        sys.stderr.write(f"No client is called so. There are {', '.join(client.name for client in clients())}.\n")
        return 2

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return 0 if asyncio.run(run_all(chosen, write)) else 1


if __name__ == "__main__":
    sys.exit(main())
