import importlib
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from benchmarks import rows, suites
from benchmarks.__main__ import ALONE, GROUPS
from benchmarks.load import model_server, wrk
from benchmarks.load import streams as stream_load
from benchmarks.rows import MeasurementError, Row
from benchmarks.suites import Program
from servicekit.testing import mint_token
from tests.support.api import Person, ok, read_events, text_of
from tests.support.contract import ROOT
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack, stack_environment


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer.running(default=Behaviour(text="Blue and green.")) as server:
        yield server


@pytest.fixture(scope="module")
async def references(
    stack: RunningStack, model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    folder = tmp_path_factory.mktemp("references")
    programs: list[Program] = []
    clients: dict[str, httpx.AsyncClient] = {}
    try:
        for name in suites.REFERENCES:
            log = folder / f"{name}.out"
            programs.append(suites.start_reference(name, stack, model_url=model.base_url, log=log))
            clients[name] = httpx.AsyncClient(base_url=programs[-1].url, timeout=20)
        yield clients
    finally:
        for client in clients.values():
            await client.aclose()
        for program in programs:
            program.stop()


@pytest.fixture(scope="module")
async def gateway(stack: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
async def person(gateway: httpx.AsyncClient) -> Person:
    return await Person.sign_up(gateway)


async def ask(client: httpx.AsyncClient, person: Person, method: str, path: str, body: Any = None) -> httpx.Response:
    return await client.request(method, path, headers=person.headers, json=body)


async def test_the_monolith_lists_what_the_gateway_lists(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person
) -> None:
    session = await person.create_session(name="of both")
    for number in range(3):
        messages = [{"role": "user", "content": f"Zwölf „Boxkämpfer“ {number}", "metadata": {"place": number}}] * 2
        ok(await person.call("POST", f"/sessions/{session['id']}/messages", {"messages": messages}))
        await person.create_session(name=f"number {number}")
    for path in (f"/sessions/{session['id']}/messages?page_size=50", "/sessions?page_size=50", "/sessions"):
        ours, theirs = [await ask(client, person, "GET", path) for client in (gateway, references["monolith"])]
        assert (theirs.status_code, theirs.json()) == (ours.status_code, ours.json())


@pytest.mark.parametrize("kind", ["messages", "sessions"])
async def test_the_monoliths_pages_hold_what_the_gateways_hold(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person, kind: str
) -> None:
    session = await person.create_session(name="with pages")
    for _ in range(2):
        await person.create_session(name="another")
    lines = [{"role": "user", "content": str(number)} for number in range(5)]
    ok(await person.call("POST", f"/sessions/{session['id']}/messages", {"messages": lines}))
    path = f"/sessions/{session['id']}/messages" if kind == "messages" else "/sessions"
    sides = []
    for client in (gateway, references["monolith"]):
        found, token = [], ""
        while True:
            answer = ok(await ask(client, person, "GET", f"{path}?page_size=2&page_token={token}"))
            found += answer[kind]
            token = answer["next_page_token"]
            if not token:
                break
        sides.append(found)
    assert len(sides[0]) >= 3
    assert sides[1] == sides[0]


async def test_the_monolith_answers_an_append_as_the_gateway_does(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person
) -> None:
    answers = []
    for client in (gateway, references["monolith"]):
        session = await person.create_session(name="to append to")
        body = {"messages": [{"role": "assistant", "content": "Hello", "metadata": {"a": [1, None]}}]}
        answers.append(await ask(client, person, "POST", f"/sessions/{session['id']}/messages", body))
    ours, theirs = answers
    assert theirs.status_code == ours.status_code == 201
    own = [answer.json()["messages"][0] for answer in answers]
    for message in own:
        for name in ("id", "session_id", "timestamp"):
            assert message.pop(name)
    assert own[1] == own[0]


async def test_a_repeated_append_is_the_same_on_both_sides(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person
) -> None:
    session = await person.create_session(name="to repeat in")
    body = {"messages": [{"role": "user", "content": "once"}], "request_id": str(uuid4())}
    path = f"/sessions/{session['id']}/messages"
    ours, theirs = [await ask(client, person, "POST", path, body) for client in (gateway, references["monolith"])]
    assert theirs.json() == ours.json()


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic eDp5", "expired", "strange"])
@pytest.mark.parametrize("name", suites.REFERENCES)
async def test_references_refuse_who_is_not_signed_in_as_the_gateway_does(
    stack: RunningStack,
    gateway: httpx.AsyncClient,
    references: dict[str, httpx.AsyncClient],
    name: str,
    authorization: str | None,
) -> None:
    if authorization == "expired":
        authorization = f"Bearer {stack.mint_token(expires_in=-100)}"
    elif authorization == "strange":
        authorization = f"Bearer {mint_token()}"
    headers = {"Authorization": authorization} if authorization else {}
    path = f"/sessions/{uuid4()}/turns" if name == "stream" else "/sessions"
    answers = []
    for client in (gateway, references[name]):
        if name == "stream":
            answers.append(await client.post(path, headers=headers, json={"content": "Hello"}))
        else:
            answers.append(await client.get(path, headers=headers))
    ours, theirs = answers
    assert ours.status_code == 401
    assert (theirs.status_code, theirs.json()) == (ours.status_code, ours.json())
    assert theirs.headers["www-authenticate"] == ours.headers["www-authenticate"]


async def test_references_find_no_session_where_the_gateway_finds_none(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person
) -> None:
    stranger = await Person.sign_up(gateway)
    owned = await stranger.create_session(name="not yours")
    for session_id in (str(uuid4()), owned["id"]):
        calls: list[tuple[str, str, str, Any]] = [
            ("monolith", "GET", f"/sessions/{session_id}/messages", None),
            ("monolith", "POST", f"/sessions/{session_id}/messages", {"messages": [{"role": "user", "content": "x"}]}),
            ("stream", "POST", f"/sessions/{session_id}/turns", {"content": "x"}),
        ]
        for name, method, path, body in calls:
            ours, theirs = [await ask(client, person, method, path, body) for client in (gateway, references[name])]
            assert ours.status_code == 404
            assert (theirs.status_code, theirs.json()) == (ours.status_code, ours.json())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "more": 1}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": "x"}], "request_id": "no"},
    ],
)
async def test_the_monolith_refuses_bodies_that_the_gateway_refuses(
    gateway: httpx.AsyncClient, references: dict[str, httpx.AsyncClient], person: Person, body: Any
) -> None:
    session = await person.create_session(name="with bad bodies")
    path = f"/sessions/{session['id']}/messages"
    ours, theirs = [await ask(client, person, "POST", path, body) for client in (gateway, references["monolith"])]
    assert theirs.status_code == ours.status_code == 400
    assert theirs.json()["error"]["status"] == ours.json()["error"]["status"]


async def test_stream_py_stores_what_it_streams_and_asks_with_the_history(
    references: dict[str, httpx.AsyncClient], person: Person, model: ModelServer
) -> None:
    session = await person.create_session(name="to answer in")
    lines = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A colour."}]
    ok(await person.call("POST", f"/sessions/{session['id']}/messages", {"messages": lines}))
    path = f"/sessions/{session['id']}/turns"
    headers = {**person.headers, "Accept": "text/event-stream"}
    async with references["stream"].stream("POST", path, headers=headers, json={"content": "And others?"}) as response:
        events = [event async for event in read_events(response)]
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == ["run.started", "message.delta", "message.completed", "usage", "run.finished"]
    assert text_of(events) == "Blue and green."
    stored = await person.messages(session["id"])
    assert [message["content"] for message in stored[-2:]] == ["And others?", "Blue and green."]
    completed = next(event.data["message"] for event in events if event.type == "message.completed")
    assert completed["id"] == stored[-1]["id"]
    asked = model.requests[-1].body["messages"]
    assert [message["content"] for message in asked[1:]] == ["What is red?", "A colour.", "And others?"]


async def test_the_load_of_streams_finds_every_token(stack: RunningStack, person: Person, tmp_path: Path) -> None:
    server = Program.start(
        "model server",
        "benchmarks.load.model_server",
        env=stack_environment(tmp_path, stack.base_port),
        log=tmp_path / "model.out",
    )
    reference = suites.start_reference("stream", stack, model_url=server.url, log=tmp_path / "stream.out")
    try:
        sessions = [(await person.create_session(name="to load"))["id"] for _ in range(6)]
        plan = stream_load.Plan(
            url=reference.url,
            token=person.tokens["access_token"],
            paths=[f"/sessions/{session_id}/turns" for session_id in sessions],
            streams=3,
            turns=2,
            tokens=40,
            milliseconds=1,
        )
        found = await stream_load.measure(plan)
        assert (found.tokens, len(found.waits), found.faults) == (240, 6, [])
        plan.token = "wrong"
        with pytest.raises(MeasurementError, match="401"):
            await stream_load.measure(plan)
    finally:
        reference.stop()
        server.stop()


def answer_with(*texts: str, kept: str, state: str = "SUCCEEDED") -> bytes:
    deltas = [("message.delta", {"text": text}) for text in texts]
    whole = [*deltas, ("message.completed", {"message": {"content": kept}}), ("run.finished", {"state": state})]
    body = b"".join(b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(data).encode()) for kind, data in whole)
    return b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_tokens_may_come_together() -> None:
    found = stream_load.StreamLoad()
    stream_load.check(answer_with("~0 ", "~1 ~2 ", kept=model_server.answer(3)), 3, found)
    assert (found.tokens, found.events, found.faults) == (3, 2, [])


@pytest.mark.parametrize(
    "answer",
    [
        answer_with("~0 ", "~2 ", kept=model_server.answer(3)),
        answer_with("~1 ", "~0 ", "~2 ", kept=model_server.answer(3)),
        answer_with("~0 ", "~1 ", "~1 ", "~2 ", kept=model_server.answer(3)),
        answer_with("~0 ", "~1 ", "~2 ", kept=model_server.answer(2)),
        answer_with("~0 ", "~1 ", "~2 ", kept=model_server.answer(3), state="FAILED"),
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"",
    ],
)
def test_a_stream_that_is_not_whole_is_a_fault(answer: bytes) -> None:
    found = stream_load.StreamLoad()
    stream_load.check(answer, 3, found)
    assert found.tokens == 0
    assert len(found.faults) == 1


def test_a_ratio_is_judged_by_its_medians() -> None:
    row = Row.compared("work", "processes", [50, 70, 60], [100, 100, 300], unit="requests/s", beside="x", at_least=0.6)
    assert (row.value, row.reference, row.ratio, row.met) == (60, 100, 0.6, True)
    assert row.target == "≥ 0.60 ×"
    assert Row.compared("work", "processes", [59], [100], unit="requests/s", beside="x", at_least=0.6).met is False
    assert Row.compared("work", "processes", [131], [100], unit="µs", beside="x", at_most=1.3).met is False
    assert Row.compared("work", "processes", [131], [100], unit="µs", beside="x").met is None


def test_a_difference_and_a_limit_are_judged_in_their_unit() -> None:
    later = Row.difference("first token", "processes", [30.0], [23.5], unit="ms", beside="x", at_most=6)
    assert (later.ratio, later.target, later.met) == (6.5, "≤ +6 ms", False)
    small = Row.absolute("memory", "processes", [349.0], unit="MB", at_most=350, reference=50.0)
    assert (small.ratio, small.target, small.met) == (6.98, "≤ 350 MB", True)


def test_a_reference_that_measured_nothing_is_a_failure() -> None:
    with pytest.raises(MeasurementError):
        Row.compared("work", "processes", [50], [0], unit="requests/s", beside="x")


def test_the_table_has_a_line_per_row_and_columns_that_fit() -> None:
    found = [
        Row.compared("a", "processes", [0.5, 0.6], [1, 1], unit="requests/s", beside="monolith.py", at_least=1.0),
        Row.difference("b", "one-process", [30.0], [23.5], unit="ms", beside="direct", at_most=6),
    ]
    lines = rows.table(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert lines[0].index("target") + len("target") == lines[2].index("≥ 1 ×") + len("≥ 1 ×")
    assert " no " in lines[2]
    assert "+6.5 ms" in lines[3]
    marked = rows.markdown(found).splitlines()
    assert {line.count("|") for line in marked} == {len(rows.HEADINGS) + 1}


def test_latest_json_holds_the_head_and_every_row(tmp_path: Path) -> None:
    found = [
        Row.compared("a", "processes", [6, 7, 8], [7, 7, 7], unit="requests/s", beside="monolith.py", at_least=0.6)
    ]
    path = tmp_path / "results" / "latest.json"
    rows.write_json(path, {"commit": "abc", "cores": 2}, found)
    written = json.loads(path.read_text())
    assert (written["commit"], written["cores"]) == ("abc", 2)
    (row,) = written["rows"]
    assert {"name", "mode", "value", "unit", "reference", "ratio", "target", "met"} <= row.keys()
    assert (row["name"], row["value"], row["met"], row["values"]) == ("a", 7, True, [6, 7, 8])


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_module_that_measures(group: str) -> None:
    measure = importlib.import_module(f"benchmarks.groups.{group}").measure
    subject, *further = inspect.signature(measure).parameters.values()
    assert inspect.iscoroutinefunction(measure)
    assert subject.name == ("mode" if group in ALONE else "suite")
    assert [parameter.name for parameter in further if parameter.default is inspect.Parameter.empty] == (
        ["quick", "folder"] if group in ALONE else ["quick"]
    )


def test_make_bench_asks_for_wrk_before_it_sets_anything_up(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "local" / "setup").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", copy)
    shutil.copytree(ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__"))
    modules = ("__init__", "environment", "setup/__init__", "setup/bootstrap", "setup/debian")
    for file in (f"local/{name}.py" for name in modules):
        shutil.copy(ROOT / file, copy / file)
    # A machine with make and a Python that has none of our packages, and neither wrk nor apt-get.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "awk"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    python = Path(sys.base_prefix) / "bin" / "python3"
    (programs / "python3").symlink_to(python)
    before = set(copy.iterdir())
    make = [str(programs / "make"), "bench"]
    done = subprocess.run(make, cwd=copy, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert wrk.MISSING in done.stderr
    assert set(copy.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "is_needed"),
    [
        ([], True),
        (["--mode", "processes"], True),
        (["unary"], True),
        (["streams", "--mode", "processes"], False),
        (["streams", "unary"], True),
        (["fairness"], True),
    ],
)
def test_wrk_is_needed_for_single_calls_alone(arguments: list[str], is_needed: bool) -> None:
    assert wrk.is_needed(arguments) == is_needed
    assert set(GROUPS) >= wrk.USERS
