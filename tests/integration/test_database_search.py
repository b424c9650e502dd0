from typing import Any

import pytest

from tests.support.database import add_user, call
from tests.support.runs import RunsWorld, refused, user_message_of

TEXTS = {
    "fox": "The quick brown fox jumps over the lazy dog.",
    "chinese": "我喜欢学习机器学习和数学",
    "japanese": "日本語のテキストを検索する",
    "thai": "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "korean": "한국어를 공부합니다",
    "mixed": "GPT模型 — is “quoted”… great\U0001f98a",
    "code": "snake_case, foo-bar and https://example.com/path?q=1",
    "umlaut": "Ärger über Öl, don't (panic) [now] 3.14",
}


async def session_with(world: RunsWorld, *contents: str, role: str = "user") -> str:
    session_id = await world.new_session()
    messages = [{"role": role, "content": content} for content in contents]
    await world.call("append_messages", session_id=session_id, messages=messages)
    return session_id


async def found(world: RunsWorld, query: str, **args: Any) -> list[str]:
    """The contents that a query finds; excerpts are whole here."""
    hits = (await world.call("search_messages", query=query, **args))["hits"]
    return [hit["excerpt"] for hit in hits]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("fox", ["fox"]),
        ("FOX  quick", ["fox"]),
        ("ox", []),
        ("fox cat", []),
        ("机器学习", ["chinese"]),
        ("学习机器", ["chinese"]),
        ("器机", []),
        ("学 机", ["chinese"]),
        ("テキスト", ["japanese"]),
        ("ไม่มี", ["thai"]),
        ("한국", ["korean"]),
        ("模型 great", ["mixed"]),
        ("gpt模型", ["mixed"]),
        ("case", ["code"]),
        ("foo-bar", ["code"]),
        ("bar-foo", []),
        ("example.com", ["code"]),
        ("path", ["code"]),
        ("ärger ÖL", ["umlaut"]),
        ("don't", ["umlaut"]),
        ("3.14", ["umlaut"]),
        ("[now]", ["umlaut"]),
        ("'; drop table x --", []),
        ("| & ! ( <-> :*", []),
        ("owner", []),
        ("—", []),
        ("\U0001f98a", []),
        ("fox — \U0001f98a", ["fox"]),
        ("“fox”", ["fox"]),
        ("quoted", ["mixed"]),
        ("学习。", []),
        ("\\", []),
        ("   ", []),
    ],
)
async def test_a_query_finds_what_holds_every_word(world: RunsWorld, query: str, names: list[str]) -> None:
    await session_with(world, *TEXTS.values())
    assert await found(world, query) == [TEXTS[name] for name in names]


async def test_nobody_finds_anothers_messages(world: RunsWorld) -> None:
    stranger = RunsWorld(world.admin, world.pool, await add_user(world.admin))
    session_id = await session_with(world, "a secret word")
    await session_with(stranger, "another secret")
    assert await found(world, "secret") == ["a secret word"]
    assert await found(stranger, "secret") == ["another secret"]
    for query in (f"owner:{world.user}", world.user, "owner"):
        assert await found(stranger, query) == []
    await refused("PT404", "SESSION_NOT_FOUND", found(stranger, "secret", session_id=session_id))


async def test_only_users_and_assistants_messages_are_found(world: RunsWorld) -> None:
    for role in ("system", "tool", "assistant", "user"):
        await session_with(world, f"needle of {role}", role=role)
    assert set(await found(world, "needle")) == {"needle of assistant", "needle of user"}


async def test_a_hit_tells_where_it_is(world: RunsWorld) -> None:
    session_id = await session_with(world, "one", "two needles, one needle")
    await world.call("update_session", session_id=session_id, name="haystack")
    [hit] = (await world.call("search_messages", query="needle"))["hits"]
    assert (hit["session_id"], hit["session_name"], hit["role"], hit["order"]) == (session_id, "haystack", "user", 2)
    assert hit["matches"] == [{"start": 17, "end": 23}]


async def test_an_excerpt_shows_the_match_in_code_points(world: RunsWorld) -> None:
    await session_with(world, "\U0001f3bc" * 500 + " x Nädel, y " + "z " * 500 + "nädel")
    [hit] = (await world.call("search_messages", query="NÄDEL"))["hits"]
    assert len(hit["excerpt"]) == 200
    [match] = hit["matches"]
    assert hit["excerpt"][match["start"] : match["end"]] == "Nädel"


async def test_a_phrase_is_found_behind_any_number_of_its_characters(world: RunsWorld) -> None:
    await session_with(world, "的 " * 20000 + "学的习", "学习的")
    hits = (await world.call("search_messages", query="学的习"))["hits"]
    assert [hit["order"] for hit in hits] == [1]


@pytest.mark.parametrize(
    "unit", ["word{} ", "\U00010400{} ", "学", "x", "ab\u0301{} ", "\U0001f3bc", "\U00020000\U00020001 "]
)
async def test_the_largest_message_of_any_kind_is_kept(world: RunsWorld, unit: str) -> None:
    content = "".join(unit.format(number) for number in range(80_000))
    content = content.encode()[:1_048_576].decode(errors="ignore")
    session_id = await session_with(world, content)
    assert await world.contents(session_id) == [content]


async def test_what_stands_far_behind_is_not_searched(world: RunsWorld) -> None:
    await session_with(world, "x " * 24_990 + "early " + "x " * 100 + "late")
    assert len(await found(world, "early")) == 1
    assert await found(world, "late") == []


async def test_a_word_that_is_repeated_asks_for_nothing_more(world: RunsWorld) -> None:
    await session_with(world, *TEXTS.values())
    once = await world.call("search_messages", query="fox lazy-dog 3.14")
    assert await world.call("search_messages", query="fox lazy-dog 3.14 FOX " * 8) == once
    repeated = (await world.call("search_messages", query="fox " * 50))["hits"]
    assert repeated == (await world.call("search_messages", query="fox"))["hits"]


async def test_a_query_may_have_as_many_words_as_fit(world: RunsWorld) -> None:
    words = [chr(letter) + other for letter in range(ord("a"), ord("z")) for other in "xyz"][:66]
    await session_with(world, " ".join(words), " ".join(words[1:]))
    assert await found(world, " ".join(words)) == [" ".join(words)[:200]]


async def test_every_match_in_an_excerpt_is_told(world: RunsWorld) -> None:
    text = "\x02a\x03 a " * 28 + "b"
    await session_with(world, text)
    [hit] = (await world.call("search_messages", query="A"))["hits"]
    marked = [hit["excerpt"][match["start"] : match["end"]] for match in hit["matches"]]
    assert marked == ["a"] * hit["excerpt"].count("a")
    assert len(marked) > 50


async def test_a_search_looks_at_the_newest_of_very_many_messages_and_says_so(world: RunsWorld) -> None:
    session_id, other = await session_with(world, "needle needle needle"), await session_with(world, "needle")
    assert (await world.call("search_messages", query="needle"))["is_partial"] is False
    await world.admin.execute(
        "insert into public.messages (session_id, role, content)"
        " select $1::text::uuid, 'user', 'needle ' || n from generate_series(1, 1000) as n",
        other,
    )
    answer = await world.call("search_messages", query="needle", page_size=50)
    assert answer["is_partial"] is True
    # The best match is older than all that was looked at; what is more particular, or one session, leads to it.
    assert {hit["session_id"] for hit in answer["hits"]} == {other}
    within = await world.call("search_messages", query="needle", session_id=session_id)
    assert (within["is_partial"], len(within["hits"])) == (False, 1)
    rare = await world.call("search_messages", query="needle 17")
    assert (rare["is_partial"], [hit["excerpt"] for hit in rare["hits"]]) == (False, ["needle 17"])
    nothing = await world.call("search_messages", query="needle-needle-nothing")
    assert (nothing["is_partial"], nothing["hits"], nothing["has_more"]) == (False, [], False)


async def test_a_search_looks_at_fewer_messages_where_they_are_long(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.admin.execute(
        "insert into public.messages (session_id, role, content)"
        " select $1::text::uuid, 'user', 'needle ' || repeat('hay ', 60000) from generate_series(1, 50)",
        session_id,
    )
    answer = await world.call("search_messages", query="needle hay", page_size=50)
    assert answer["is_partial"] is True
    assert 15 < len(answer["hits"]) < 30
    newest = [hit["order"] for hit in answer["hits"]]
    assert newest == list(range(50, 50 - len(newest), -1))


async def test_a_phrase_that_nothing_holds_is_not_found_among_partial_results(world: RunsWorld) -> None:
    session_id = await session_with(world, "one-two")
    await world.admin.execute(
        "insert into public.messages (session_id, role, content)"
        " select $1::text::uuid, 'user', 'two one ' || n from generate_series(1, 1000) as n",
        session_id,
    )
    answer = await world.call("search_messages", query="one-two")
    assert (answer["hits"], answer["has_more"], answer["is_partial"]) == ([], False, True)


async def test_a_query_past_the_contracts_limit_is_refused_whichever_way_it_comes(world: RunsWorld) -> None:
    await refused("PT400", "FIELD_TOO_LARGE", found(world, "x" * 201))
    await refused("PT400", "FIELD_TOO_LARGE", found(world, "a b " * 1_000_000))


async def test_a_search_that_takes_too_long_is_ended_and_says_what_to_do(world: RunsWorld) -> None:
    await session_with(world, "needle")
    async with world.admin.transaction(), world.pool.acquire() as login:
        # What a search reads cannot be read meanwhile.
        await world.admin.execute("lock table public.messages in access exclusive mode")
        transaction = login.transaction()
        await transaction.start()
        await login.execute("set local statement_timeout = '300ms'")
        await refused("PT400", "SEARCH_TOO_BROAD", call(login, world.user, "search_messages", query="needle"))
        await transaction.rollback()


async def test_hits_are_paged_best_first_then_newest(world: RunsWorld) -> None:
    for number in range(7):
        await session_with(world, f"needle {number}")
    await session_with(world, "needle needle needle best")
    expected = ["needle needle needle best", *(f"needle {number}" for number in range(6, -1, -1))]
    seen: list[str] = []
    bounds: dict[str, str] = {}
    while True:
        page = await world.call("search_messages", query="needle", page_size=3, **bounds)
        seen += [hit["excerpt"] for hit in page["hits"]]
        if not page["has_more"]:
            break
        last = page["hits"][-1]
        bounds = {
            "before_rank": last["rank"], "before_timestamp": last["timestamp"], "before_id": last["message_id"]
        }  # fmt: skip
        await session_with(world, "needle new")
    assert seen == expected


async def test_inactive_branches_are_searched_and_sessions_can_be_named(world: RunsWorld) -> None:
    session_id = await world.new_session()
    question = user_message_of(await world.answered(session_id, "where is the needle", "no idea"))["id"]
    await world.answered(session_id, "edited", "fine", edit_message_id=question)
    other = await session_with(world, "needle elsewhere")
    assert set(await found(world, "needle")) == {"where is the needle", "needle elsewhere"}
    assert await found(world, "needle", session_id=other) == ["needle elsewhere"]


async def test_what_is_deleted_is_not_found(world: RunsWorld) -> None:
    session_id = await session_with(world, "needle")
    await world.call("delete_session", session_id=session_id)
    assert await found(world, "needle") == []
