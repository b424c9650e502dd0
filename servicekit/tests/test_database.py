import pytest

from servicekit.database.client import from_sql


def test_an_error_of_sql_that_says_when_to_come_back_tells_it_to_the_client() -> None:
    detail = '{"scope": "per user", "retry_after_seconds": "2"}'
    error = from_sql(sqlstate="PT503", message="SHUTTING_DOWN", detail=detail, cause="test")
    assert (error.reason, error.retry_after_seconds, error.metadata["scope"]) == ("SHUTTING_DOWN", 2.0, "per user")


def test_an_error_of_sql_without_a_time_has_none() -> None:
    error = from_sql(sqlstate="PT404", message="THING_NOT_FOUND", detail='{"thing_id": "x"}', cause="test")
    assert (error.reason, error.retry_after_seconds, error.metadata) == ("THING_NOT_FOUND", None, {"thing_id": "x"})


def test_a_reason_of_sql_that_the_process_does_not_know_is_internal() -> None:
    assert from_sql(sqlstate="PT404", message="NO_SUCH_REASON", detail="{}", cause="test").reason == "INTERNAL"


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [("57014", "DATABASE_BUSY"), ("40P01", "DATABASE_BUSY"), ("42501", "PERMISSION_DENIED"), ("42P01", "INTERNAL")],
)
def test_errors_of_the_database_itself_have_reasons_of_ours(sqlstate: str, reason: str) -> None:
    assert from_sql(sqlstate=sqlstate, message="anything", detail=None, cause="test").reason == reason
