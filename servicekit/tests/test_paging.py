from datetime import datetime
from uuid import UUID

import pytest

from servicekit.errors import AppError
from servicekit.messages import paging

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"


def test_a_token_gives_back_what_it_was_made_of() -> None:
    token = paging.encode("2026-01-01T00:00:00.123456+00:00", ID, 7, "ü")
    assert paging.decode(token, [datetime, UUID, int, str]) == ("2026-01-01T00:00:00.123456+00:00", ID, 7, "ü")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "%%%",
        "é",
        "A" * 1000,
        paging.encode(),
        paging.encode(1),
        paging.encode("x", ID),
        paging.encode("2026-01-01T00:00:00", ID),
        paging.encode("2026-01-01T00:00:00Z", "x"),
        paging.encode(1, ID),
        paging.encode("2026-01-01T00:00:00Z", ID, 1),
    ],
)
def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(AppError, match="INVALID_PAGE_TOKEN"):
        paging.decode(token, [datetime, UUID])


@pytest.mark.parametrize("value", [True, "1", 2**31, 1.0])
def test_an_integer_of_a_token_is_one_that_a_database_takes(value: int) -> None:
    with pytest.raises(AppError, match="INVALID_PAGE_TOKEN"):
        paging.decode(paging.encode(value), [int])
