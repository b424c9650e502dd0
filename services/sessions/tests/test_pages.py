import base64
from typing import Any
from uuid import uuid4

import orjson
import pytest
from concerto.sessions.v1 import sessions_pb2 as pb

from servicekit.errors import AppError
from servicekit.rpc.identity import Caller
from services.sessions.tests.conftest import Service

TIME, ID = "2026-01-01T00:00:00+00:00", "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"


async def all_sessions(service: Service, **filters: Any) -> list[list[str]]:
    pages, token = [], ""
    while True:
        page = await service.call("ListSessions", pb.ListSessionsRequest(page_token=token, **filters))
        pages.append([session.name for session in page.sessions])
        token = page.next_page_token
        if not token:
            return pages


async def all_messages(service: Service, session_id: str, **filters: Any) -> list[list[int]]:
    pages, token = [], ""
    while True:
        request = pb.ListMessagesRequest(session_id=session_id, page_token=token, **filters)
        page = await service.call("ListMessages", request)
        pages.append([message.order for message in page.messages])
        token = page.next_page_token
        if not token:
            return pages


async def invalid_token(service: Service, rpc: str, message: Any) -> None:
    with pytest.raises(AppError) as error:
        await service.call(rpc, message)
    assert (error.value.reason, error.value.http_status) == ("INVALID_PAGE_TOKEN", 400)


def forged(*values: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()


async def test_sessions_are_paged_newest_activity_first(service: Service, signed_in: Caller) -> None:
    first = await service.new_session("0")
    for number in range(1, 5):
        await service.new_session(str(number))
    await service.append(first, "hello")
    assert await all_sessions(service, page_size=2) == [["0", "4"], ["3", "2"], ["1"]]
    assert await all_sessions(service, page_size=5) == [["0", "4", "3", "2", "1"]]


async def test_a_page_size_is_50_by_default_and_100_at_most(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    for _ in range(3):
        await service.append(session_id, *["x"] * 34)
    sizes = [
        [len(page) for page in await all_messages(service, session_id, page_size=size)] for size in (0, 1000, 100, 102)
    ]
    assert sizes == [[50, 50, 2], [100, 2], [100, 2], [100, 2]]


async def test_archived_sessions_are_a_list_of_their_own(service: Service, signed_in: Caller) -> None:
    await service.new_session("active")
    archived = await service.new_session("archived")
    await service.call("UpdateSession", pb.UpdateSessionRequest(session_id=archived, is_archived=True))
    assert await all_sessions(service) == [["active"]]
    assert await all_sessions(service, is_archived=True) == [["archived"]]


@pytest.mark.parametrize(("query", "found"), [("PLAN", ["plans", "My Plan"]), ("%", ["100%"]), ("", 4), ("none", [])])
async def test_a_search_finds_parts_of_names(
    service: Service, signed_in: Caller, query: str, found: list[str] | int
) -> None:
    for name in ("My Plan", "100%", "1000", "plans"):
        await service.new_session(name)
    names = [name for page in await all_sessions(service, query=query, page_size=1) for name in page]
    assert names == found or len(names) == found


async def test_messages_are_paged_from_both_ends(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    await service.append(session_id, *"abcdefg")
    assert await all_messages(service, session_id, page_size=3) == [[1, 2, 3], [4, 5, 6], [7]]
    assert await all_messages(service, session_id, page_size=3, from_end=True) == [[5, 6, 7], [2, 3, 4], [1]]
    bounds = {"after_order": 1, "before_order": 7}
    assert await all_messages(service, session_id, page_size=3, **bounds) == [[2, 3, 4], [5, 6]]
    assert await all_messages(service, session_id, page_size=3, from_end=True, **bounds) == [[4, 5, 6], [2, 3]]
    assert await all_messages(service, session_id, after_order=7) == [[]]
    assert await all_messages(service, session_id, after_order=2147483647) == [[]]


async def test_a_page_of_large_messages_ends_early(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    for _ in range(3):
        await service.append(session_id, "x" * (1024 * 1024 - 64))  # the notes count too
    assert await all_messages(service, session_id) == [[1, 2], [3]]


async def test_a_token_of_one_list_of_sessions_opens_no_other(service: Service, signed_in: Caller) -> None:
    for name in ("aa", "ab", "ac"):
        await service.new_session(name)
    token = (await service.call("ListSessions", pb.ListSessionsRequest(page_size=1, query="a"))).next_page_token
    assert token
    for other in ({}, {"query": "aa"}, {"query": "a", "is_archived": True}):
        await invalid_token(service, "ListSessions", pb.ListSessionsRequest(page_size=1, page_token=token, **other))
    session_id = await service.new_session()
    await invalid_token(service, "ListMessages", pb.ListMessagesRequest(session_id=session_id, page_token=token))


async def test_a_token_of_one_list_of_messages_opens_no_other(service: Service, signed_in: Caller) -> None:
    session_id, other_id = await service.new_session(), await service.new_session()
    await service.append(session_id, *"abc")
    await service.append(other_id, *"abc")
    request = pb.ListMessagesRequest(session_id=session_id, page_size=1)
    token = (await service.call("ListMessages", request)).next_page_token
    assert token
    for other in (
        {"session_id": other_id},
        {"session_id": session_id, "from_end": True},
        {"session_id": session_id, "after_order": 1},
        {"session_id": session_id, "before_order": 3},
    ):
        await invalid_token(service, "ListMessages", pb.ListMessagesRequest(page_size=1, page_token=token, **other))
    await invalid_token(service, "ListSessions", pb.ListSessionsRequest(page_token=token))


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "====",
        "ümlaut",
        "nul\u200b",
        forged(),
        forged("x"),
        forged("x", TIME, ID),
        forged("x", 1),
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[" * 500).decode(),
    ],
)
async def test_a_garbled_token_is_invalid(service: Service, signed_in: Caller, token: str) -> None:
    session_id = await service.new_session()
    await invalid_token(service, "ListSessions", pb.ListSessionsRequest(page_token=token))
    await invalid_token(service, "ListMessages", pb.ListMessagesRequest(session_id=session_id, page_token=token))


@pytest.mark.parametrize(
    ("time", "session_id"),
    [
        ("infinity", ID),
        ("2026-13-01T00:00:00+00:00", ID),
        ("2026-01-01T00:00:00", ID),
        ("2026-W01-4", ID),
        ("0001-01-01T00:00:00+23:59", ID),
        ("9999-12-31T23:59:59-23:59", ID),
        (TIME, "x"),
        (TIME, 7),
        (7, ID),
        (None, None),
    ],
)
async def test_a_forged_place_among_sessions_is_invalid(
    service: Service, signed_in: Caller, time: Any, session_id: Any
) -> None:
    await invalid_token(
        service, "ListSessions", pb.ListSessionsRequest(page_token=forged(await fingerprint(service), time, session_id))
    )


@pytest.mark.parametrize("time", ["2026-W01-4T00:00:00+00:00", "20260101T000000Z", "2026-01-01T12:00+23:59"])
async def test_an_odd_spelling_of_a_place_is_understood(service: Service, signed_in: Caller, time: str) -> None:
    token = forged(await fingerprint(service), time, f"{{{ID.upper()}}}")
    page = await service.call("ListSessions", pb.ListSessionsRequest(page_token=token))
    assert list(page.sessions) == []


@pytest.mark.parametrize("order", [0, -1, 2**31, 1.5, "1", True, None])
async def test_a_forged_place_among_messages_is_invalid(service: Service, signed_in: Caller, order: Any) -> None:
    session_id = await service.new_session()
    await service.append(session_id, "a", "b")
    request = pb.ListMessagesRequest(session_id=session_id, page_size=1)
    mark, _ = contents((await service.call("ListMessages", request)).next_page_token)
    request.page_token = forged(mark, order)
    await invalid_token(service, "ListMessages", request)


async def test_a_token_shows_nothing_to_a_stranger(service: Service, signed_in: Caller) -> None:
    token = forged(await fingerprint(service), "2999-01-01T00:00:00+00:00", str(uuid4()))
    page = await service.call("ListSessions", pb.ListSessionsRequest(page_token=token))
    assert {session.user_id for session in page.sessions} == {signed_in.user_id}


def contents(token: str) -> list[Any]:
    return list(orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))


async def fingerprint(service: Service) -> str:
    """The mark that tokens of the caller's list of active sessions carry; leaves two sessions behind."""
    for name in ("a", "b"):
        await service.new_session(name)
    token = (await service.call("ListSessions", pb.ListSessionsRequest(page_size=1))).next_page_token
    return str(contents(token)[0])
