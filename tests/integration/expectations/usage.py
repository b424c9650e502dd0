"""What the tests demand of the ledger of usage."""

from uuid import uuid4

from tests.support.domains import READ_ONLY, Domain, Operation, Table

EXPECTED = Domain(
    tables={
        "api_usage": Table(
            key="user_id = $1 and session_id = $2",
            insert="(user_id, session_id, model, source) values ($1, $2, 'm', 'turn')",
            change="cost_micro_usd = 0",
            outcomes=READ_ONLY,
        ),
    },
    operations={
        "list_usage": Operation(lambda _: {"group_by": "session"}),
        "start_model_call": Operation(
            lambda ids: {
                "request_id": str(uuid4()),
                "session_id": ids["session_id"],
                "model": "m",
                "source": "title",
                "lease_token": "t" * 32,
            }
        ),
    },
    helpers=frozenset({"private.open_model_call(jsonb)"}),
    needs=("sessions",),
)
