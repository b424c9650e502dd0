"""What the tests demand of the ledger of usage."""

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
    operations={"list_usage": Operation(lambda _: {"group_by": "session"})},
)
