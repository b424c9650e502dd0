"""What the tests demand of runs and their events."""

from services.sessions.runs_store import SYSTEM_OPERATIONS
from tests.support.api import Person
from tests.support.database import call, call_system
from tests.support.domains import READ_ONLY, Domain, Operation, Resource, Table, World
from tests.support.runs import start_args, user_message_of


async def fill(world: World) -> None:
    """Let a run end in the owner's session and another one be under way there."""
    session_id = world.ids["session_id"]
    started = await call(
        world.login, world.owner, "start_run", **start_args(session_id, content="the owner's", model="m")
    )
    await call_system(world.login, "finish_run", lease=started["lease"], state="SUCCEEDED", messages=[], next_seq=2)
    running = await call(
        world.login, world.owner, "start_run", **start_args(session_id, content="another", lease_seconds=3600)
    )
    world.ids |= {"run_id": running["run"]["id"], "message_id": user_message_of(started)["id"]}


async def make_run(owner: Person) -> str:
    """Return the id of a new run in a session of its own."""
    session = await owner.create_session()
    run = (await owner.call("POST", f"/sessions/{session['id']}/runs", {"content": "x"})).json()
    return str(run["id"])


EXPECTED = Domain(
    tables={
        "runs": Table(
            key="user_id = $1 and session_id = $2",
            insert="(user_id, session_id, state) values ($1, $2, 'QUEUED')",
            change="state = 'SUCCEEDED'",
            outcomes=READ_ONLY,
        ),
        "run_events": Table(
            key="payload ->> 'session_id' = $2::uuid::text and $1::uuid is not null",
            insert="(run_id, seq, type, payload) select $2, 99, 'usage', '{}' where $1::uuid is not null",
            change="payload = '{}'",
            outcomes=READ_ONLY,
        ),
    },
    operations={
        "start_run": Operation(
            lambda ids: start_args(ids["session_id"], content="forged", if_running="cancel"),
            "SESSION_NOT_FOUND",
        ),
        "list_runs": Operation(lambda ids: {"session_id": ids["session_id"]}, "SESSION_NOT_FOUND", lists={}),
        "get_run": Operation(lambda ids: {"run_id": ids["run_id"]}, "RUN_NOT_FOUND"),
        "read_run_events": Operation(lambda ids: {"run_id": ids["run_id"]}, "RUN_NOT_FOUND"),
        "request_run_cancellation": Operation(lambda ids: {"run_id": ids["run_id"]}, "RUN_NOT_FOUND"),
    },
    resources={"run_id": Resource(make_run, "RUN_NOT_FOUND")},
    bodies={
        ("POST", "/sessions/{session_id}/turns"): {"content": "x"},
        ("POST", "/sessions/{session_id}/runs"): {"content": "x"},
    },
    # How it refuses is tested where OpenAI's clients are.
    bad_requests={"/v1/chat/completions": []},
    # What the supervisor of our processes runs beside the service.
    system_operations=SYSTEM_OPERATIONS | {"end_leases"},
    helpers=frozenset(
        {
            "private.answer_under_way(uuid)",
            "private.mark_cancellation(uuid)",
            "private.open_run(runs,private.turn,text,boolean)",
            "private.refuse_many_runs(integer)",
        }
    ),
    needs=("sessions",),
    fill=fill,
)
