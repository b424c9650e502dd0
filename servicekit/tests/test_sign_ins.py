import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import identity, sign_ins
from servicekit.rpc.identity import Caller, Verifier
from servicekit.settings import TokenSettings
from servicekit.testing import JWT_SECRET, mint_token
from tests.support.waiting import forever, until

CHECK_SECONDS = 0.05


class Knowing:
    """Whoever is asked: counts the questions, and answers as a test chooses."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusal: str | None = None
        self.gate: asyncio.Event | None = None

    async def ask(self, caller: Caller) -> None:
        self.asked.append(caller.user_id)
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise AppError(self.refusal)


@pytest.fixture
def knowing() -> Knowing:
    return Knowing()


Make = Callable[..., Verifier]


@pytest.fixture
async def make(knowing: Knowing) -> AsyncIterator[Make]:
    made: list[Verifier] = []

    def one(*, check_seconds: float = CHECK_SECONDS, **options: Any) -> Verifier:
        settings = TokenSettings(
            _env_file=None, supabase_jwt_secret=SecretStr(JWT_SECRET), sign_in_check_seconds=check_seconds
        )
        made.append(Verifier(settings, ask=knowing.ask, **options))
        return made[-1]

    yield one
    for verifier in made:
        await verifier.close()


async def reason(awaitable: Any) -> str:
    with pytest.raises(AppError) as caught:
        await awaitable
    return caught.value.reason


async def test_many_calls_with_one_token_ask_once(make: Make, knowing: Knowing) -> None:
    verifier, token = make(check_seconds=20), mint_token()
    callers = await asyncio.gather(*(verifier.verify(token) for _ in range(50)))
    assert len({id(caller) for caller in callers}) == 1
    await verifier.verify(token)
    assert len(knowing.asked) == 1


async def test_an_old_answer_serves_while_the_question_is_asked_again(
    make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "OVERLAP", 1000.0)
    verifier, token = make(), mint_token()
    await verifier.verify(token)
    knowing.gate = asyncio.Event()

    async def asked_again() -> bool:
        await verifier.verify(token)  # never waits
        return len(knowing.asked) == 2

    await until(asked_again, "the second question")
    knowing.refusal = "SIGN_IN_ENDED"
    knowing.gate.set()

    async def is_refused() -> bool:
        with contextlib.suppress(AppError):
            await verifier.verify(token)
            return False
        return True

    await until(is_refused, "the refusal")
    assert await reason(verifier.verify(token)) == "SIGN_IN_ENDED"


async def test_an_answer_that_is_too_old_is_waited_for(
    make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "OVERLAP", 0.0)
    verifier, token = make(), mint_token()
    await verifier.verify(token)
    knowing.refusal = "SIGN_IN_ENDED"
    await asyncio.sleep(CHECK_SECONDS)  # the answer's age is what it is about
    assert await reason(verifier.verify(token)) == "SIGN_IN_ENDED"


async def test_what_has_ended_is_never_asked_about_again(make: Make, knowing: Knowing) -> None:
    verifier, token = make(), mint_token()
    knowing.refusal = "SIGN_IN_ENDED"
    assert await reason(verifier.verify(token)) == "SIGN_IN_ENDED"
    knowing.refusal = "DATABASE_UNAVAILABLE"
    assert [await reason(verifier.verify(token)) for _ in range(3)] == ["SIGN_IN_ENDED"] * 3
    assert len(knowing.asked) == 1


async def test_a_sign_in_that_stood_goes_on_while_nobody_answers_and_not_for_ever(
    make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "RETRY_SECONDS", 0.0)
    verifier, token = make(), mint_token()
    await verifier.verify(token)
    knowing.refusal = "DATABASE_UNAVAILABLE"

    async def asked_in_vain() -> bool:
        await verifier.verify(token)
        return len(knowing.asked) > 3

    await until(asked_in_vain, "questions without an answer")
    assert await reason(verifier.verify(mint_token())) == "DATABASE_UNAVAILABLE"
    monkeypatch.setattr(sign_ins, "OUTAGE_SECONDS", 0.0)
    assert await reason(verifier.verify(token)) == "DATABASE_UNAVAILABLE"
    knowing.refusal = None
    await verifier.verify(token)


async def test_after_a_failure_there_is_a_pause_but_not_for_who_waits(
    make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "RETRY_SECONDS", 3600.0)
    verifier, stood, new = make(), mint_token(n=1), mint_token(n=2)
    await verifier.verify(stood)
    knowing.refusal = "DATABASE_UNAVAILABLE"

    async def asked_in_vain() -> bool:
        await verifier.verify(stood)
        return len(knowing.asked) == 2

    await until(asked_in_vain, "a question without an answer")
    for _ in range(20):
        await verifier.verify(stood)
    assert len(knowing.asked) == 2
    assert await reason(verifier.verify(new)) == "DATABASE_UNAVAILABLE"
    knowing.refusal = None
    await verifier.verify(new)


async def test_whoever_goes_leaves_the_question_to_the_others(make: Make, knowing: Knowing) -> None:
    verifier, token = make(check_seconds=20), mint_token()
    knowing.gate = asyncio.Event()
    first, second = (asyncio.create_task(verifier.verify(token)) for _ in range(2))
    await until(lambda: knowing.asked, "the question")
    first.cancel()
    knowing.gate.set()
    assert (await second).token == token
    assert len(knowing.asked) == 1


async def test_an_older_version_that_does_not_know_the_question_lets_everybody_go_on(
    make: Make, knowing: Knowing
) -> None:
    knowing.refusal = "UNIMPLEMENTED"
    token = mint_token()
    assert (await make().verify(token)).token == token


async def test_where_others_ask_too_nobody_waits_and_a_known_end_refuses(make: Make, knowing: Knowing) -> None:
    verifier, token = make(is_advisory=True), mint_token()
    knowing.refusal = "DATABASE_UNAVAILABLE"
    assert (await verifier.verify(token)).token == token
    other = mint_token()
    knowing.refusal = "SIGN_IN_ENDED"
    await verifier.verify(other)

    async def is_refused() -> bool:
        try:
            await verifier.verify(other)
        except AppError as error:
            return error.reason == "SIGN_IN_ENDED"
        return False

    await until(is_refused, "the refusal")


async def test_a_token_that_has_expired_may_be_asked_about_but_not_used(make: Make, knowing: Knowing) -> None:
    verifier = make()
    token = mint_token(expires_in=-60)
    assert await reason(verifier.verify(token)) == "TOKEN_EXPIRED"
    await verifier.confirm(token)
    assert len(knowing.asked) == 1
    assert await reason(verifier.verify(token)) == "TOKEN_EXPIRED"
    assert await reason(verifier.confirm("no token")) == "TOKEN_INVALID"


async def test_a_flood_of_tokens_is_forgotten(make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "VERIFIED_TOKENS", 10)
    verifier, kept = make(), mint_token()
    await verifier.verify(kept)
    for number in range(30):
        await verifier.verify(mint_token(n=number))
        assert await reason(verifier.verify(f"{number}")) == "TOKEN_INVALID"
    assert len(knowing.asked) == 31
    await verifier.verify(kept)
    assert len(knowing.asked) == 32, "it was forgotten, and so asked about again"


async def test_a_stream_that_waits_ends_with_its_sign_in(make: Make, knowing: Knowing) -> None:
    verifier = make()
    caller = await verifier.verify(mint_token())
    watches: list[sign_ins.Watch] = []

    async def stream() -> None:
        with verifier.watching(caller) as watch:
            watches.append(watch)
            await forever()

    task = asyncio.create_task(stream())
    await until(lambda: len(knowing.asked) > 2, "questions while nothing is called")
    assert not task.done()
    knowing.refusal = "SIGN_IN_ENDED"
    with pytest.raises(asyncio.CancelledError):
        await task
    (watch,) = watches
    assert watch.failure is not None
    assert watch.failure.reason == "SIGN_IN_ENDED"


async def test_a_stream_that_hands_over_a_message_ends_behind_it(make: Make, knowing: Knowing) -> None:
    verifier = make()
    caller = await verifier.verify(mint_token())
    with verifier.watching(caller) as watch:
        watch.pause()
        knowing.refusal = "SIGN_IN_ENDED"
        await until(lambda: watch.failure, "the end")
        with pytest.raises(AppError, match="SIGN_IN_ENDED"):
            watch.resume()


async def test_a_stream_outlasts_an_outage_and_an_expired_token(
    make: Make, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "RETRY_SECONDS", 0.0)
    verifier = make()
    caller = await verifier.verify(mint_token(expires_in=0.5 - identity.LEEWAY_SECONDS))
    with verifier.watching(caller) as watch:
        knowing.refusal = "DATABASE_UNAVAILABLE"
        ends_at = float(caller.claims["exp"]) + identity.LEEWAY_SECONDS
        await until(lambda: time.time() > ends_at and len(knowing.asked) > 5, "questions about an expired token")
        assert watch.failure is None
        monkeypatch.setattr(sign_ins, "OUTAGE_SECONDS", 0.0)
        with contextlib.suppress(asyncio.CancelledError):
            await until(lambda: watch.failure, "the end of patience")
        assert watch.failure is not None
        assert watch.failure.reason == "DATABASE_UNAVAILABLE"
