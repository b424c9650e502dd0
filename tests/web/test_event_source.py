"""A page that follows a run with the browser's own EventSource, by a ticket in its address."""

from tests.support.api import ok
from tests.support.model_server import Behaviour
from tests.web.world import Web, counted

TOKENS = 60
LISTEN = """(address) => new Promise((resolve) => {
    const seen = [];
    const source = new EventSource(address);
    for (const type of ["run.started", "message.delta", "message.completed", "usage", "run.finished"])
        source.addEventListener(type, (event) => seen.push([event.lastEventId, type, JSON.parse(event.data)]));
    // It comes back by itself after the end, is told that nothing follows, and gives up: readyState CLOSED.
    source.onerror = () => source.readyState === EventSource.CLOSED && resolve(seen);
})"""


async def test_the_browsers_own_event_source_follows_a_run_to_its_end_and_comes_back_for_nothing(web: Web) -> None:
    person = await web.person()
    page = await web.visit(path="/login/")
    session = await person.create_session()
    web.answer("Count.", Behaviour(tokens=TOKENS, delay_seconds=0.01))
    run = ok(await person.call("POST", f"/sessions/{session['id']}/runs", {"content": "Count."}))
    ticket = ok(await person.call("POST", f"/runs/{run['id']}/ticket"))["ticket"]
    seen = await page.evaluate(LISTEN, f"/runs/{run['id']}/events?ticket={ticket}")
    assert [int(number) for number, _, _ in seen] == list(range(1, len(seen) + 1)), "each once, and in order"
    assert (seen[0][1], seen[-1][1]) == ("run.started", "run.finished")
    assert "".join(data["text"] for _, kind, data in seen if kind == "message.delta").split() == counted(TOKENS)
