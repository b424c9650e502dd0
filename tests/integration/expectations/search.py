"""What the tests demand of the search."""

from tests.support.domains import Domain, Operation

EXPECTED = Domain(
    operations={
        "search_messages": Operation(
            lambda ids: {"session_id": ids["session_id"], "query": "private"},
            "SESSION_NOT_FOUND",
            lists={"query": "private"},
        ),
    },
    helpers=frozenset({"private.find_messages(text,uuid,integer,real,timestamp with time zone,uuid)"}),
    needs=("sessions",),
)
