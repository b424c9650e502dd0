"""Starts a suite with a model behind it, runs the clients against it, and says a line for each client and feature."""

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.clients.environments import Client, InstallError, install
from tests.support.api import PASSWORD, Person
from tests.support.contract import ROOT
from tests.support.model_server import FAULT_MODELS, Behaviour, ModelServer, ToolUse
from tests.support.suites import RunningStack, start_stack, stop_stack

AT_ONCE = 2
"""How many clients are installed and run side by side."""
CLIENT_SECONDS = 240.0
"""After which a client that has not ended hangs."""
SHOWN_CHARACTERS = 2000
PAGE = "http://pages.example"
"""The origin whose pages may call the gateway."""


@dataclass(frozen=True)
class Feature:
    """What a client says of one feature; `failure` is why it does not work, None where it does."""

    name: str
    failure: str | None


def calls_a_tool_once(body: dict[str, Any]) -> Behaviour | None:
    """A model that calls a tool that it is offered, and answers in words when it is given the result."""
    is_asked = bool(body.get("tools")) and body["model"] == "test-model" and body["messages"][-1]["role"] == "user"
    return Behaviour(tool_calls=(ToolUse(),)) if is_asked else None


@contextlib.asynccontextmanager
async def suite() -> AsyncIterator[RunningStack]:
    """A running suite that asks a model server of the tests; both end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="concerto-clients-"))
    async with ModelServer.running() as model:
        model.choose = calls_a_tool_once
        try:
            stack = await asyncio.to_thread(
                start_stack,
                folder,
                OPENAI_BASE_URL=model.base_url,
                OPENAI_API_KEY="providers-key",
                CONCERTO_MODEL="test-model",
                CONCERTO_MODELS=FAULT_MODELS,
                CONCERTO_TITLE_MODEL="off",
                CONCERTO_BCRYPT_COST="4",
                CONCERTO_MAX_RUNS_PER_USER="20",
                GATEWAY_CORS_ORIGINS=PAGE,
            )
            try:
                yield stack
            finally:
                await asyncio.to_thread(stop_stack, stack)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def settings_of(stack: RunningStack) -> dict[str, str]:
    """Return what a client's program is told, with a person of its own."""
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as http:
        person = await Person.sign_up(http)
    return {
        "CONCERTO_URL": stack.gateway_url,
        "CONCERTO_PAGE": PAGE,
        "CONCERTO_TOKEN": person.tokens["access_token"],
        "CONCERTO_EMAIL": person.user["email"],
        "CONCERTO_PASSWORD": PASSWORD,
        "CONCERTO_AUTH_TARGET": stack.env["AUTH_TARGET"],
        "CONCERTO_SESSIONS_TARGET": stack.env["SESSIONS_TARGET"],
        "CONCERTO_ORCHESTRATOR_TARGET": stack.env["ORCHESTRATOR_TARGET"],
        "CONCERTO_REPOSITORY": str(ROOT),
        "CONCERTO_HOME": str(stack.home),
        "SUPABASE_URL": stack.supabase_url,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SUPABASE_SECRET_KEY": stack.secret_key,
    }


async def run(client: Client, settings: dict[str, str], *, seconds: float = CLIENT_SECONDS) -> list[Feature]:
    """Run a client's program and return what it says of its features.

    One that cannot be installed, crashes, hangs or says nothing has a failed feature that tells so.
    """
    try:
        await install(client)
    except InstallError as error:
        return [Feature("installation", str(error))]
    process = await asyncio.create_subprocess_exec(
        *client.program.command,
        cwd=client.installed,
        env=client.environment | settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        return [Feature("ends", f"it still ran after {seconds:.0f} s")]
    tail = errors.decode(errors="replace").strip()[-SHOWN_CHARACTERS:]
    features = list(_features(output.decode(errors="replace")))
    if process.returncode and all(feature.failure is None for feature in features):
        features.append(Feature("ends well", f"exit code {process.returncode}: {tail}"))
    return features or [Feature("says anything", tail or "it printed no feature")]


def _features(output: str) -> list[Feature]:
    """Return the features among the lines of a program: JSON objects with `feature` and `failure`."""
    found = []
    for line in output.splitlines():
        try:
            entry = json.loads(line)
            found.append(Feature(entry["feature"], entry["failure"]))
        except (ValueError, TypeError, KeyError):
            continue  # what a library prints
    return found


async def run_all(chosen: Sequence[Client], write: Callable[[str], object]) -> bool:
    """Run the clients and write a line for each feature; return whether all work."""
    room = asyncio.Semaphore(AT_ONCE)
    failed: list[str] = []
    count = 0

    async with suite() as stack:

        async def one(client: Client) -> None:
            nonlocal count
            async with room:
                begun = time.monotonic()
                features = await run(client, await settings_of(stack))
            write(f"{client.name} ({client.versions()}), {time.monotonic() - begun:.1f} s\n")
            for feature in features:
                count += 1
                write(f"  {client.name}: {feature.name} {'.' * max(3, 60 - len(client.name + feature.name))} ")
                write("ok\n" if feature.failure is None else f"FAILED\n{_indented(feature.failure)}\n")
                if feature.failure is not None:
                    failed.append(f"{client.name}: {feature.name}")

        async with asyncio.TaskGroup() as group:
            for client in chosen:
                group.create_task(one(client))
    write(f"{len(chosen)} clients, {count} features, {len(failed)} failed\n")
    for line in failed:
        write(f"  {line}\n")
    return not failed


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())
