import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests import attacks
from tests.attacks.frame import MB, Attack, Target, observed
from tests.support.measured import Note
from tests.support.suites import RunningStack

ATTACKS: dict[str, Attack] = {
    f"{module.name}-{attack.name}": attack
    for module in pkgutil.iter_modules(attacks.__path__)
    if not module.name.startswith(("test_", "_"))
    for attack in getattr(importlib.import_module(f"{attacks.__name__}.{module.name}"), "ATTACKS", ())
}
"""Those of every module here that has some."""

pytestmark = [pytest.mark.long, pytest.mark.alone]


@pytest.fixture(scope="session")
def suite_with(launch: Callable[..., RunningStack], stack: RunningStack) -> Callable[[Attack], RunningStack]:
    """Return the suite that an attack is run against; one for all that ask for no settings of their own."""
    started: dict[tuple[tuple[str, str], ...], RunningStack] = {(): stack}

    def start(attack: Attack) -> RunningStack:
        settings = tuple(sorted(attack.settings.items()))
        if settings not in started:
            started[settings] = launch(**attack.settings)
        return started[settings]

    return start


@pytest.fixture
async def target(request: pytest.FixtureRequest, suite_with: Callable[[Attack], RunningStack]) -> AsyncIterator[Target]:
    """The suite of the test's attack, and a client of it."""
    running = suite_with(ATTACKS[request.node.callspec.params["name"]])
    async with httpx.AsyncClient(base_url=running.gateway_url, timeout=120) as client:
        yield Target(running, client)


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_holds_little_and_nobody_else_notices(name: str, target: Target, note: Note) -> None:
    attack = ATTACKS[name]
    outcome, seen = await observed(target, attack.run(target))
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
    note(f"{name}: {counts}; {seen.describe()}")
    assert outcome.wrong == []
    assert seen.failed == 0, seen.describe()
    assert seen.growth_bytes < attack.most_growth_bytes, f"{seen.growth_bytes / MB:.0f} MB: {seen.describe()}"
    # It serves as before, and nothing fell over on the way.
    person = await target.person()
    assert (await person.create_session())["message_count"] == 0
    assert "Traceback" not in logs_of(target.stack)


def logs_of(stack: RunningStack) -> str:
    """Return what our processes have logged."""
    files = [path for name in stack.own_processes for path in stack.home.rglob(f"{name}*.log")]
    assert files
    return "".join(path.read_text(errors="replace") for path in files)
