"""What each client's program in Python says of its features; needs the standard library alone.
A program declares each feature with `@feature("chat")` on a function, and ends with `run()`.
"""

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

SETTINGS = dict(os.environ)  # noqa: TID251 (the program runs outside of our own environment)
"""What the program is told: CONCERTO_URL, CONCERTO_TOKEN and the others that `settings_of` names."""

SUPPORT = Path(__file__).resolve().parent
"""Where this module is, and what clients in several languages share."""

_features: dict[str, Callable[[], Any]] = {}


def feature(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Declare a function, synchronous or not, that raises when the feature does not work."""

    def declare(function: Callable[[], Any]) -> Callable[[], Any]:
        _features[name] = function
        return function

    return declare


def call(method: str, path: str, body: Any = None) -> Any:
    """Send a request to the gateway as the program's person, and return the JSON of its answer."""
    headers = {"Authorization": f"Bearer {SETTINGS['CONCERTO_TOKEN']}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = Request(SETTINGS["CONCERTO_URL"] + path, content, headers, method=method)  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310 (an address of this machine)
        return json.load(answer)


def run() -> None:
    """Try every feature in order, print a line for each, and exit with 1 when one fails."""
    sys.exit(asyncio.run(_run()))


async def _run() -> int:
    failed = False
    for name, function in _features.items():
        failure = None
        try:
            result = function()
            if inspect.isawaitable(result):
                await result
        except BaseException as error:  # noqa: BLE001 (whatever a library raises is the failure)
            failed, failure = True, "".join(traceback.format_exception(error)[-3:])
        sys.stdout.write(json.dumps({"feature": name, "failure": failure}) + "\n")
        sys.stdout.flush()
    return int(failed)
