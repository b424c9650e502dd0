"""A client in Python that openapi-python-client generates from the document: it makes every call that there is."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import uuid4

from features import SETTINGS, SUPPORT, call, feature, run

DOCUMENT = call("GET", "/openapi.json")
WALK: list[dict[str, Any]] = json.loads((SUPPORT / "walk.json").read_text())
GENERATED = Path("generated")
known: dict[str, str] = {"email": f"walk-{uuid4()}@example.com", "password": SETTINGS["CONCERTO_PASSWORD"]}


def filled(value: Any) -> Any:
    """Return a value of the walk with what is known by now."""
    if isinstance(value, dict):
        return {name: filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    return known[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def looked_up(content: Any, path: str) -> Any:
    """Return what a path such as `messages.0.id` leads to."""
    for step in path.split("."):
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


def operations() -> dict[str, Any]:
    """Return the generated module of each operation, by its name in lower case."""
    paths = [path for path in (GENERATED / "api").glob("*/*.py") if path.stem != "__init__"]
    return {path.stem.replace("_", ""): f"generated.api.{path.parent.name}.{path.stem}" for path in paths}


def make(step: dict[str, Any]) -> None:
    """Make one call of the walk and check its answer."""
    client_module = importlib.import_module("generated.client")
    module = importlib.import_module(operations()[step["operation"].lower()])
    accept = "application/json" if "events" not in step else "text/event-stream"
    options = {"base_url": SETTINGS["CONCERTO_URL"], "headers": {"Accept": accept}}
    client: Any = client_module.Client(**options)
    if "token" in known:
        client = client_module.AuthenticatedClient(**options, token=known["token"])
    arguments = {**filled(step.get("path", {})), **filled(step.get("query", {}))}
    if "provider" in arguments:
        arguments["provider"] = importlib.import_module("generated.models").SocialProvider(arguments["provider"])
    if "body" in step:
        hint = get_type_hints(module.sync_detailed)["body"]
        kind = next(each for each in (hint, *get_args(hint)) if hasattr(each, "from_dict"))
        arguments["body"] = kind.from_dict(filled(step["body"]))
    response = module.sync_detailed(client=client, **arguments)
    text = response.content.decode()
    assert response.status_code == step.get("status", 200), f"{step['operation']}: {response.status_code} {text[:500]}"
    if "events" in step:
        lines = text.splitlines()
        seen = list(dict.fromkeys(line.removeprefix("event: ") for line in lines if line.startswith("event: ")))
        assert seen == step["events"], f"{step['operation']}: {seen}"
        assert seen or lines[-2:][0] == "data: [DONE]", text[-200:]
    elif text and not step.get("json"):
        assert response.parsed is not None, f"{step['operation']}: nothing was read"
    for name, path in step.get("save", {}).items():
        known[name] = looked_up(json.loads(text), path)


@feature("generation")
def _() -> None:
    Path("openapi.json").write_text(json.dumps(DOCUMENT))
    arguments = ("generate", "--path", "openapi.json", "--output-path", str(GENERATED), "--meta", "none", "--overwrite")
    done = subprocess.run(
        ["openapi-python-client", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unable to" not in done.stdout + done.stderr, done.stdout + done.stderr
    sys.path.insert(0, str(Path.cwd()))


@feature("every operation has a function, and is called")
def _() -> None:
    names = {one["operationId"].lower() for path in DOCUMENT["paths"].values() for one in path.values()}
    assert set(operations()) == names
    assert {step["operation"].lower() for step in WALK} == names


for number, step in enumerate(WALK, 1):
    kind = ", as events" if "events" in step else ""
    feature(f"{number}. {step['operation']}{kind}")(lambda step=step: make(step))

run()
