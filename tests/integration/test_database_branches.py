from typing import Any

from tests.support.database import call
from tests.support.runs import RunsWorld, refused, start_args, user_message_of

PAGE_SIZE = 20


async def every_message(world: RunsWorld, session_id: str) -> list[dict[str, Any]]:
    answer = await world.call("list_messages", session_id=session_id, page_size=100, include_inactive=True)
    return list(answer["messages"])


async def shape(world: RunsWorld, session_id: str) -> list[tuple[str, str, bool]]:
    """Each message's content, its parent's content, and whether it is active."""
    messages = await every_message(world, session_id)
    contents = {message["id"]: message["content"] for message in messages}
    return [(one["content"], contents.get(one["parent_id"], ""), one["is_active"]) for one in messages]


async def message_id(world: RunsWorld, session_id: str, content: str) -> str:
    """The newest message with that content."""
    messages = await every_message(world, session_id)
    return str([one["id"] for one in messages if one["content"] == content][-1])


async def select(world: RunsWorld, session_id: str, content: str) -> list[str]:
    wanted = await message_id(world, session_id, content)
    await world.call("select_branch", session_id=session_id, message_id=wanted)
    return await world.contents(session_id)


async def two_turns(world: RunsWorld) -> str:
    session_id = await world.new_session()
    await world.answered(session_id, "q1", "a1")
    await world.answered(session_id, "q2", "a2")
    return session_id


async def test_messages_follow_one_another(world: RunsWorld) -> None:
    session_id = await world.new_session()
    messages = [{"role": "user", "content": content} for content in "abc"]
    appended = (await world.call("append_messages", session_id=session_id, messages=messages, include_contents=True))[
        "messages"
    ]
    assert [message["parent_id"] for message in appended] == [None, appended[0]["id"], appended[1]["id"]]
    assert all(message["is_active"] for message in appended)
    assert (await world.call("list_messages", session_id=session_id))["messages"] == appended


async def test_answering_again_keeps_the_old_answer_readable(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    question = await message_id(world, session_id, "q1")
    started = await world.start(session_id, regenerate_message_id=question)
    assert user_message_of(started)["id"] == question
    assert await world.contents(session_id) == ["q1"]
    await world.finish(started["lease"], answer="b1")
    assert await world.contents(session_id) == ["q1", "b1"]
    assert await shape(world, session_id) == [
        ("q1", "", True),
        ("a1", "q1", False),
        ("q2", "a1", False),
        ("a2", "q2", False),
        ("b1", "q1", True),
    ]


async def test_an_edited_message_stands_beside_the_old_one(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    edited = await message_id(world, session_id, "q2")
    await world.answered(session_id, "e2", "b2", edit_message_id=edited)
    assert await world.contents(session_id) == ["q1", "a1", "e2", "b2"]
    first = await message_id(world, session_id, "q1")
    await world.answered(session_id, "e1", "b1", edit_message_id=first)
    assert await world.contents(session_id) == ["e1", "b1"]
    assert await shape(world, session_id) == [
        ("q1", "", False),
        ("a1", "q1", False),
        ("q2", "a1", False),
        ("a2", "q2", False),
        ("e2", "a1", False),
        ("b2", "e2", False),
        ("e1", "", True),
        ("b1", "e1", True),
    ]


async def test_a_message_of_any_branch_can_be_answered_again(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    await world.answered(session_id, "e1", "b1", edit_message_id=await message_id(world, session_id, "q1"))
    started = await world.start(session_id, regenerate_message_id=await message_id(world, session_id, "q2"))
    assert await world.contents(session_id) == ["q1", "a1", "q2"]
    await world.finish(started["lease"], answer="c2")
    assert await world.contents(session_id) == ["q1", "a1", "q2", "c2"]


async def test_selecting_a_message_shows_its_branch_and_the_newest_behind_it(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    await world.answered(session_id, "e2", "b2", edit_message_id=await message_id(world, session_id, "q2"))
    await world.answered(session_id, "e1", "b1", edit_message_id=await message_id(world, session_id, "q1"))
    assert await select(world, session_id, "a2") == ["q1", "a1", "q2", "a2"]
    assert await select(world, session_id, "q1") == ["q1", "a1", "e2", "b2"]
    assert await select(world, session_id, "e1") == ["e1", "b1"]
    assert await select(world, session_id, "b1") == ["e1", "b1"], "a repetition changes nothing"
    assert await select(world, session_id, "a1") == ["q1", "a1", "e2", "b2"]
    await world.answered(session_id, "q3", "a3")
    assert await world.contents(session_id) == ["q1", "a1", "e2", "b2", "q3", "a3"]


async def test_only_a_users_message_can_be_edited_or_answered_again(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    answer = await message_id(world, session_id, "a1")
    for args in ({"regenerate_message_id": answer}, {"content": "x", "edit_message_id": answer}):
        attempt = world.call("start_run", **start_args(session_id, **args))
        assert (await refused("PT400", "NOT_A_USER_MESSAGE", attempt))["message_id"] == answer
    elsewhere = await message_id(world, await two_turns(world), "q1")
    attempt = world.call("select_branch", session_id=session_id, message_id=elsewhere)
    await refused("PT404", "MESSAGE_NOT_FOUND", attempt)


async def test_branches_stay_while_a_run_is_under_way(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    run = (await world.start(session_id, "q3"))["run"]
    attempt = select(world, session_id, "a1")
    assert (await refused("PT409", "RUN_IN_PROGRESS", attempt))["run_id"] == run["id"]


async def test_a_waiting_edit_changes_the_branch_only_when_it_begins(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    running = await world.start(session_id, "q3")
    edited = await message_id(world, session_id, "q1")
    waiting = await world.start(session_id, "e1", edit_message_id=edited, if_running="queue")
    await world.finish(running["lease"], answer="a3")
    assert await world.contents(session_id) == ["q1", "a1", "q2", "a2", "q3", "a3"]
    await world.system("promote_run", lease=waiting["lease"])
    assert await world.contents(session_id) == ["e1"]


async def test_a_change_of_branches_touches_only_what_changes(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    rows = 'select "order", ctid::text, xmin::text from public.messages where session_id = $1 order by 1'
    before = await world.admin.fetch(rows, session_id)
    await world.answered(session_id, "e2", "b2", edit_message_id=await message_id(world, session_id, "q2"))
    after = await world.admin.fetch(rows, session_id)
    assert after[:2] == before[:2]
    assert after[2:4] != before[2:4]


async def test_pages_of_the_active_branch_are_complete_in_both_directions(world: RunsWorld) -> None:
    session_id = await two_turns(world)
    for number in range(12):
        edited = await message_id(world, session_id, "q2")
        await world.answered(session_id, f"e{number}", f"b{number}", edit_message_id=edited)
        await world.answered(session_id, "more", "said")
    expected = await world.contents(session_id)
    assert expected == ["q1", "a1", "e11", "b11", "more", "said"]
    for from_end in (False, True):
        seen: list[str] = []
        bounds: dict[str, Any] = {}
        while True:
            page = await world.call("list_messages", session_id=session_id, page_size=2, from_end=from_end, **bounds)
            contents = [message["content"] for message in page["messages"]]
            seen = contents + seen if from_end else seen + contents
            if not page["has_more"]:
                break
            orders = [message["order"] for message in page["messages"]]
            bounds = {"before_order": orders[0]} if from_end else {"after_order": orders[-1]}
        assert seen == expected


async def test_a_page_of_a_long_session_reads_only_its_own_rows(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.admin.execute(
        "insert into public.messages (session_id, role, content) select $1, 'tool', 'x' from generate_series(1, 3000)",
        session_id,
    )
    # Long stretches of inactive messages stand between the active ones.
    await world.admin.execute(
        'update public.messages set is_active = false where session_id = $1 and "order" between 20 and 2980', session_id
    )
    await world.admin.execute("analyze public.messages")
    read = (
        "select coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::integer from pg_stat_xact_user_tables"
        " where relid = 'public.messages'::regclass"
    )
    async with world.pool.acquire() as connection:
        # Often enough that the plan is the one for any arguments.
        for _ in range(8):
            for from_end in (False, True):
                for include_inactive in (False, True):
                    async with connection.transaction():
                        before = await connection.fetchval(read)
                        answer = await call(
                            connection,
                            world.user,
                            "list_messages",
                            session_id=session_id,
                            page_size=PAGE_SIZE,
                            from_end=from_end,
                            include_inactive=include_inactive,
                        )
                        assert len(answer["messages"]) == PAGE_SIZE
                        assert await connection.fetchval(read) - before == PAGE_SIZE + 1
