from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from concerto.sessions.v1 import runs_pb2
from concerto.sessions.v1 import sessions_pb2 as pb
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.messages import paging
from servicekit.rpc.identity import Caller
from services.sessions.tests.conftest import Service
from tests.support.database import call, call_system
from tests.support.runs import start_args, user_message_of
from tests.support.suites import RunningStack


async def pages_of(service: Service, rpc: str, request: Any) -> list[Any]:
    pages = []
    while True:
        pages.append(await service.call(rpc, request))
        request.page_token = pages[-1].next_page_token
        if not request.page_token:
            return pages


async def refusal(service: Service, rpc: str, message: Message) -> AppError:
    with pytest.raises(AppError) as error:
        await service.call(rpc, message)
    return error.value


async def answered(stack: RunningStack, caller: Caller, session_id: str, content: str, **args: Any) -> dict[str, Any]:
    """A run that has ended with an answer, made past the service, as REST keeps none."""
    login = await asyncpg.connect(stack.db_url)
    try:
        started = await call(login, caller.user_id, "start_run", **start_args(session_id, content=content, **args))
        messages = [{"role": "assistant", "content": f"about {content}"}]
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        finish = {"lease": started["lease"], "state": "SUCCEEDED", "messages": messages, "usage": usage}
        await call_system(login, "finish_run", **finish, next_seq=2)
    finally:
        await login.close()
    return started


async def test_branches_are_selected_and_listed(service: Service, signed_in: Caller, stack: RunningStack) -> None:
    session_id = await service.new_session()
    first = user_message_of(await answered(stack, signed_in, session_id, "one"))["id"]
    await answered(stack, signed_in, session_id, "two", edit_message_id=first)

    async def contents(**args: Any) -> list[tuple[str, bool]]:
        request = pb.ListMessagesRequest(session_id=session_id, page_size=3, **args)
        pages = await pages_of(service, "ListMessages", request)
        return [(message.content, message.is_active) for page in pages for message in page.messages]

    assert await contents() == [("two", True), ("about two", True)]
    select = pb.SelectBranchRequest(session_id=session_id, message_id=first)
    session = (await service.call("SelectBranch", select)).session
    assert (session.id, session.message_count) == (session_id, 4)
    assert await contents() == [("one", True), ("about one", True)]
    everything = [("one", True), ("about one", True), ("two", False), ("about two", False)]
    assert await contents(include_inactive=True) == everything
    assert await contents(include_inactive=True, from_end=True) == [*everything[1:], everything[0]]
    select.message_id = str(uuid4())
    error = await refusal(service, "SelectBranch", select)
    assert (error.reason, error.http_status) == ("MESSAGE_NOT_FOUND", 404)


async def test_branches_stay_while_a_run_is_under_way(service: Service, signed_in: Caller, stack: RunningStack) -> None:
    session_id = await service.new_session()
    first = user_message_of(await answered(stack, signed_in, session_id, "one"))["id"]
    login = await asyncpg.connect(stack.db_url)
    running = await call(login, signed_in.user_id, "start_run", **start_args(session_id, content="x", lease_seconds=60))
    await login.close()
    error = await refusal(service, "SelectBranch", pb.SelectBranchRequest(session_id=session_id, message_id=first))
    assert (error.reason, error.http_status) == ("RUN_IN_PROGRESS", 409)
    assert error.metadata == {"session_id": session_id, "run_id": running["run"]["id"]}


async def test_the_answer_under_way_comes_with_any_page(
    service: Service, signed_in: Caller, stack: RunningStack
) -> None:
    session_id = await service.new_session()
    await answered(stack, signed_in, session_id, "one")
    login = await asyncpg.connect(stack.db_url)
    running = await call(login, signed_in.user_id, "start_run", **start_args(session_id, content="x", lease_seconds=60))
    events = [{"seq": 2, "message_delta": {"text": "so far"}}]
    await call_system(login, "append_run_events", batches=[{"lease": running["lease"], "events": events}])
    await login.close()
    request = pb.ListMessagesRequest(session_id=session_id, page_size=2, include_answer_under_way=True)
    expected = pb.AnswerUnderWay(
        run_id=running["run"]["id"],
        state=pb.ANSWER_STATE_RUNNING,
        user_message_id=user_message_of(running)["id"],
        text="so far",
        last_seq=2,
    )
    assert [page.answer_under_way for page in await pages_of(service, "ListMessages", request)] == [expected] * 2
    unasked = await service.call("ListMessages", pb.ListMessagesRequest(session_id=session_id))
    assert not unasked.HasField("answer_under_way")


async def test_hits_come_in_pages_and_name_their_matches(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session("haystack")
    await service.append(session_id, *(f"{number}: a needle, 学习 and more" for number in range(5)))
    request = pb.SearchMessagesRequest(query="Needle 学习", page_size=2, session_id=session_id)
    pages = await pages_of(service, "SearchMessages", request)
    hits = [hit for page in pages for hit in page.hits]
    assert [hit.order for hit in hits] == [5, 4, 3, 2, 1]
    assert [len(page.hits) for page in pages] == [2, 2, 1]
    hit = hits[0]
    assert (hit.session_id, hit.session_name, hit.role) == (session_id, "haystack", pb.ROLE_USER)
    assert [hit.excerpt[match.start : match.end] for match in hit.matches] == ["needle", "学习"]


async def test_what_has_no_word_finds_nothing(service: Service, signed_in: Caller) -> None:
    await service.append(await service.new_session(), "!!! ???")
    answer = await service.call("SearchMessages", pb.SearchMessagesRequest(query="!!!"))
    assert (list(answer.hits), answer.next_page_token) == ([], "")


@pytest.mark.parametrize("rank", ["nan", "inf", "1e400", "1e39", "1e-40", "", "x", "1_0", 7])
async def test_a_forged_rank_is_refused_or_harmless(service: Service, signed_in: Caller, rank: str | int) -> None:
    await service.append(await service.new_session(), *["needle"] * 3)
    request = pb.SearchMessagesRequest(query="needle", page_size=1)
    token = (await service.call("SearchMessages", request)).next_page_token
    filters, _, moment, message_id = paging.decode(token, (str, str, str, str))
    request.page_token = paging.encode(filters, rank, moment, message_id)
    if rank == "1_0":
        assert len((await service.call("SearchMessages", request)).hits) == 1
    else:
        assert (await refusal(service, "SearchMessages", request)).reason == "INVALID_PAGE_TOKEN"


async def test_a_token_belongs_to_its_query(service: Service, signed_in: Caller) -> None:
    await service.append(await service.new_session(), *["needle"] * 3)
    request = pb.SearchMessagesRequest(query="needle", page_size=1)
    request.page_token = (await service.call("SearchMessages", request)).next_page_token
    request.query = "other"
    assert (await refusal(service, "SearchMessages", request)).reason == "INVALID_PAGE_TOKEN"


async def test_usage_is_summed_up(service: Service, signed_in: Caller, stack: RunningStack) -> None:
    session_id, other_id = await service.new_session(), await service.new_session()
    for number in range(3):
        await answered(stack, signed_in, session_id, "x", model=f"m{number}", prices={"prompt": 1_000_000})
    await answered(stack, signed_in, other_id, "x", model="m1")
    [page] = await pages_of(service, "ListUsage", pb.ListUsageRequest())
    assert [entry.key for entry in page.entries] == [datetime.now(UTC).date().isoformat()]
    assert (page.total.key, page.total.runs, page.total.prompt_tokens, page.total.cost_micro_usd) == ("", 4, 20, 15)
    request = pb.ListUsageRequest(group_by=pb.USAGE_GROUP_MODEL, page_size=2)
    pages = await pages_of(service, "ListUsage", request)
    entries = [(entry.key, entry.runs) for page in pages for entry in page.entries]
    assert entries == [("m0", 1), ("m1", 2), ("m2", 1)]
    assert [page.total.runs for page in pages] == [4, 4]
    [page] = await pages_of(service, "ListUsage", pb.ListUsageRequest(group_by=pb.USAGE_GROUP_SESSION))
    assert {entry.key: entry.completion_tokens for entry in page.entries} == {session_id: 6, other_id: 2}


async def test_a_time_that_ends_before_it_begins_is_refused(service: Service, signed_in: Caller) -> None:
    request = pb.ListUsageRequest()
    getattr(request, "from").FromJsonString("2026-02-01T00:00:00Z")
    request.to.FromJsonString("2026-01-01T00:00:00Z")
    error = await refusal(service, "ListUsage", request)
    assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", "from")


async def test_the_widest_time_has_an_answer(service: Service, signed_in: Caller) -> None:
    request = pb.ListUsageRequest()
    request.to.FromJsonString("0001-01-01T00:00:00Z")
    assert (await service.call("ListUsage", request)).total.runs == 0
    getattr(request, "from").FromJsonString("0001-01-01T00:00:00Z")
    request.to.FromJsonString("9999-12-31T23:59:59Z")
    assert (await service.call("ListUsage", request)).total.runs == 0


async def test_runs_are_read_and_listed(service: Service, signed_in: Caller, stack: RunningStack) -> None:
    session_id = await service.new_session()
    ids = [(await answered(stack, signed_in, session_id, str(number)))["run"]["id"] for number in range(3)]
    other = (await answered(stack, signed_in, await service.new_session(), "x"))["run"]["id"]
    for filters, expected in (({"session_id": session_id}, ids[::-1]), ({}, [other, *ids[::-1]])):
        pages = await pages_of(service, "ListStoredRuns", runs_pb2.ListStoredRunsRequest(page_size=2, **filters))
        assert [run.id for page in pages for run in page.runs] == expected
    run = (await service.call("GetStoredRun", runs_pb2.GetStoredRunRequest(run_id=ids[0]))).run
    assert (run.state, run.usage.prompt_tokens) == (runs_pb2.RUN_STATE_SUCCEEDED, 5)
    request = runs_pb2.RequestRunCancellationRequest(run_id=ids[0])
    assert (await service.call("RequestRunCancellation", request)).run == run
