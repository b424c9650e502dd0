"""What the tests demand of sessions and their messages."""

from uuid import uuid4

from tests.support.api import Person
from tests.support.database import call
from tests.support.domains import EMPTY, FOUND, REFUSED, Domain, Operation, Resource, Table, World


async def fill(world: World) -> None:
    """Give the owner a session with two messages."""
    request_id = str(uuid4())
    created = await call(world.login, world.owner, "create_session", name="the owner's", request_id=request_id)
    session_id = created["session"]["id"]
    messages = [{"role": "user", "content": "private"}, {"role": "assistant", "content": "words"}]
    await call(
        world.login, world.owner, "append_messages", session_id=session_id, request_id=request_id, messages=messages
    )
    world.ids |= {"session_id": session_id, "request_id": request_id}


async def make_session(owner: Person) -> str:
    """Return the id of a new session."""
    return str((await owner.create_session(name="private"))["id"])


EXPECTED = Domain(
    tables={
        "sessions": Table(
            key="user_id = $1 and id = $2",
            # The owner's row cannot be named: user_id may not be written, it is the caller by itself.
            insert="(name) select 'new' where $1::uuid is not null and $2::uuid is not null",
            change="name = 'changed'",
            outcomes={
                "owner": {"select": FOUND, "insert": FOUND, "update": FOUND, "delete": FOUND},
                "stranger": {"select": EMPTY, "insert": FOUND, "update": EMPTY, "delete": EMPTY},
            },
            insertable=frozenset({"name", "is_archived", "request_id"}),
            updatable=frozenset({"name", "is_archived"}),
        ),
        "messages": Table(
            key="session_id = $2 and $1::uuid is not null",
            insert="(session_id, role, content) select $2, 'user', 'new' where $1::uuid is not null",
            change="content = 'changed'",
            outcomes={
                "owner": {"select": FOUND, "insert": FOUND, "update": REFUSED, "delete": REFUSED},
                "stranger": {"select": EMPTY, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
            },
            insertable=frozenset(
                {
                    *("session_id", "role", "content", "metadata", "request_id", "request_size"),
                    *("reasoning", "reasoning_milliseconds"),
                }
            ),
        ),
    },
    operations={
        "create_session": Operation(lambda ids: {"name": "forged", "request_id": ids["request_id"]}),
        "list_sessions": Operation(lambda _: {"page_size": 100}),
        "get_session": Operation(lambda ids: {"session_id": ids["session_id"]}, "SESSION_NOT_FOUND"),
        "update_session": Operation(
            lambda ids: {"session_id": ids["session_id"], "name": "forged"}, "SESSION_NOT_FOUND"
        ),
        "delete_session": Operation(lambda ids: {"session_id": ids["session_id"]}, "SESSION_NOT_FOUND"),
        "append_messages": Operation(
            lambda ids: {
                "session_id": ids["session_id"],
                "messages": [{"role": "user", "content": "forged"}],
                "request_id": ids["request_id"],
            },
            "SESSION_NOT_FOUND",
        ),
        "list_messages": Operation(
            lambda ids: {"session_id": ids["session_id"], "include_answer_under_way": True}, "SESSION_NOT_FOUND"
        ),
        "select_branch": Operation(
            lambda ids: {"session_id": ids["session_id"], "message_id": ids["message_id"]}, "SESSION_NOT_FOUND"
        ),
    },
    resources={"session_id": Resource(make_session, "SESSION_NOT_FOUND", path="/sessions/{session_id}")},
    bodies={
        ("PATCH", "/sessions/{session_id}"): {"name": "mine now"},
        ("POST", "/sessions/{session_id}/messages"): {"messages": [{"role": "user", "content": "x"}]},
        ("POST", "/sessions/{session_id}/branch"): {"message_id": str(uuid4())},
    },
    helpers=frozenset({"private.show_newest(uuid,uuid)", "private.shorten_session(uuid,integer,integer)"}),
    fill=fill,
)
