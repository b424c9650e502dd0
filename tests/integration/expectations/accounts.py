"""What the tests demand of accounts."""

from tests.support.domains import KEPT_BY_TRIGGERS, Domain, Operation, Table

EXPECTED = Domain(
    tables={
        "users": Table(
            key="id = $1 and $2::uuid is not null",
            insert="(id, display_name) values ($1, coalesce($2::text, ''))",
            change="display_name = 'changed'",
            outcomes=KEPT_BY_TRIGGERS,
            updatable=frozenset({"display_name"}),
        ),
        "profiles": Table(
            key="id = $1 and $2::uuid is not null",
            insert="(id, full_name) values ($1, $2::text)",
            change="full_name = 'changed'",
            outcomes=KEPT_BY_TRIGGERS,
            updatable=frozenset(
                {"username", "full_name", "avatar_url", "status_text", "status_emoji", "status_expires_at"}
            ),
        ),
        "user_settings": Table(
            key="user_id = $1 and $2::uuid is not null",
            insert="(user_id, theme) values ($1, left($2::text, 0) || 'dark')",
            change="theme = 'dark'",
            outcomes=KEPT_BY_TRIGGERS,
            updatable=frozenset({"theme", "notification_preferences"}),
        ),
    },
    operations={
        "get_me": Operation(lambda _: {}),
        "check_sign_in": Operation(lambda _: {}),
        "update_me": Operation(lambda _: {"display_name": "forged"}),
    },
    helpers=frozenset({"private.sign_in_stands()"}),
    bad_requests={
        "/auth/social": [
            ("/auth/social", 400, "MISSING_FIELD"),
            ("/auth/social?provider=gitlab", 400, "INVALID_FIELD"),
            ("/auth/social?provider=github&surprise=1", 400, "UNKNOWN_FIELD"),
            ("/auth/social?provider=github&redirect_to=https://evil.example", 400, "REDIRECT_NOT_ALLOWED"),
            ("/auth/social?provider=github&redirect_to=//evil.example", 400, "REDIRECT_NOT_ALLOWED"),
        ],
        "/auth/callback": [
            ("/auth/callback", 401, "SOCIAL_LOGIN_FAILED"),
            ("/auth/callback?code=x&st=y", 401, "SOCIAL_LOGIN_FAILED"),
            ("/auth/callback?error=access_denied", 401, "SOCIAL_LOGIN_FAILED"),
            ("/auth/callback?code=%ff", 400, "INVALID_FIELD"),
        ],
    },
)
