import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import grpc
import pytest

from servicekit.errors import AppError, from_rpc_error
from servicekit.rpc.inprocess.calls import NO_CLIENT_STREAMS, STREAM_LIMIT
from tests.support.calls import Code, Text, World, count, failed, names, opened, text
from tests.support.waiting import forever

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_a_call_answers_and_tells_how_it_went(world: World) -> None:
    async def handler(request: Any, context: Any) -> Any:
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x00\xff")))
        seen.update(dict(context.invocation_metadata()))
        return text(request.name * 2)

    seen: dict[str, Any] = {}
    world.play(handler)
    call = world.unary(text("ab"), metadata=(("x-one", "1"), ("x-two-bin", b"\x01\xfe")))
    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert dict(await call.initial_metadata())["first"] == "1"
    assert (await call).name == "abab"
    assert (await call).name == "abab"
    assert (await call.code(), call.done(), call.cancelled(), call.cancel()) == (Code.OK, True, False, False)
    assert await call.details() == ""
    trailing = await call.trailing_metadata()
    assert (trailing["last"], trailing["last-bin"]) == ("2", b"\x00\xff")
    assert (seen["x-one"], seen["x-two-bin"]) == ("1", b"\x01\xfe")
    await call.wait_for_connection()


async def test_a_stream_is_iterated_or_read(world: World) -> None:
    world.play(count)
    assert await names(world.stream(text("40"))) == [str(index) for index in range(40)]
    call = world.stream(text("2"))
    assert isinstance(call, grpc.aio.UnaryStreamCall)
    first: Any = await call.read()
    second: Any = await call.read()
    assert [first.name, second.name] == ["0", "1"]
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is Code.OK
    assert await call.read() is grpc.aio.EOF


async def test_a_handler_may_write_its_stream_by_itself(world: World) -> None:
    async def handler(request: Any, context: Any) -> None:
        for index in range(3):
            await context.write(text(str(index)))

    script: Any = world.script
    script.stream = handler
    codec: dict[str, Any] = {"request_deserializer": Text.FromString, "response_serializer": Text.SerializeToString}
    add = {"Write": grpc.unary_stream_rpc_method_handler(handler, **codec)}
    world.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Writer", add),))
    write: Any = world.connection.unary_stream(
        "/test.Writer/Write", request_serializer=Text.SerializeToString, response_deserializer=Text.FromString
    )
    assert await names(write(text(""))) == ["0", "1", "2"]


@pytest.mark.parametrize("kind_of_rpc", ["stream_unary", "stream_stream"])
async def test_a_client_that_would_stream_within_the_process_is_told_what_it_needs(kind_of_rpc: str) -> None:
    async with opened("within") as world:
        with pytest.raises(NotImplementedError, match=r"/test.Script/Collect: .* needs the service's address"):
            getattr(world.connection, kind_of_rpc)("/test.Script/Collect")


async def test_an_rpc_that_takes_a_stream_is_refused_within_the_process() -> None:
    async with opened("within") as world:
        collect: Any = world.connection.unary_unary("/test.Script/Collect")
        error = await failed(collect(text("one")))
        assert (error.code(), error.details()) == (Code.UNIMPLEMENTED, NO_CLIENT_STREAMS)


async def test_an_abort_arrives_with_code_details_and_metadata(world: World) -> None:
    async def handler(request: Any, context: Any) -> Any:
        await context.abort(Code.FAILED_PRECONDITION, "not now", (("why-bin", b"\x01"),))

    world.play(handler)
    error = await failed(world.unary(text("")))
    assert (error.code(), error.details()) == (Code.FAILED_PRECONDITION, "not now")
    assert dict(error.trailing_metadata())["why-bin"] == b"\x01"
    assert error.debug_error_string()
    call = world.unary(text(""))
    assert (await call.code(), await call.details(), call.cancelled()) == (Code.FAILED_PRECONDITION, "not now", False)


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_an_app_error_arrives_unchanged(world: World, method: str) -> None:
    sent = AppError("THING_NOT_FOUND", metadata={"thing_id": ID}, retry_after_seconds=3)

    async def unary(request: Any, context: Any) -> Any:
        await context.abort_with_status(sent.to_status())

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield text("before")
        await context.abort_with_status(sent.to_status())

    world.play(unary if method == "unary" else stream)
    call = getattr(world, method)(text(""))
    if method == "stream":
        assert (await call.read()).name == "before"
    got = from_rpc_error(await failed(call if method == "unary" else call.read()), service="sessions")
    assert (got.reason, got.metadata, got.retry_after_seconds) == (sent.reason, sent.metadata, 3)
    assert str(got) == str(sent)


async def test_what_a_handler_raises_or_sets_becomes_a_status(world: World) -> None:
    async def crash(request: Any, context: Any) -> Any:
        if request.name:
            context.set_code(Code.RESOURCE_EXHAUSTED)
        raise ValueError("private")

    async def settle(request: Any, context: Any) -> Any:
        context.set_code(Code.OUT_OF_RANGE)
        context.set_details("too far")
        return text("")

    async def forget(request: Any, context: Any) -> Any:
        return None

    world.play(forget)
    assert (await failed(world.unary(text("")))).code() in (Code.UNKNOWN, Code.INTERNAL)
    world.play(crash)
    assert (await failed(world.unary(text("")))).code() is Code.UNKNOWN
    assert (await failed(world.unary(text("set")))).code() is Code.RESOURCE_EXHAUSTED
    world.play(settle)
    error = await failed(world.unary(text("")))
    assert (error.code(), error.details()) == (Code.OUT_OF_RANGE, "too far")


async def test_an_rpc_that_nobody_serves_is_unimplemented(world: World) -> None:
    assert (await failed(world.missing(text("")))).code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_the_deadline_ends_call_and_handler(world: World, method: str) -> None:
    remaining: list[float | None] = []

    async def unary(request: Any, context: Any) -> Any:
        remaining.append(context.time_remaining())
        await forever()

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        remaining.append(context.time_remaining())
        yield text("")
        await forever()

    world.play(unary if method == "unary" else stream)
    call = getattr(world, method)(text(""), timeout=0.2)
    assert 0 < call.time_remaining() <= 0.2
    error = await failed(call if method == "unary" else names(call))
    assert error.code() is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(world.script.ended.wait(), 60)
    # On the wire a deadline is what is left, rounded up, and the server counts it from when it arrives.
    assert remaining[0] is not None
    assert 0 < remaining[0] < 1


async def test_without_time_left_no_call_is_made_and_without_a_deadline_none_is_seen(world: World) -> None:
    remaining: list[float | None] = []

    async def handler(request: Any, context: Any) -> Any:
        remaining.append(context.time_remaining())
        return request

    world.play(handler)
    assert (await failed(world.unary(text(""), timeout=-1))).code() is Code.DEADLINE_EXCEEDED
    await world.unary(text(""))
    assert remaining == [None]


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_a_cancelled_caller_ends_the_handler(world: World, method: str) -> None:
    began = asyncio.Event()

    async def unary(request: Any, context: Any) -> Any:
        began.set()
        await forever()

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        began.set()
        await forever()
        yield text("")

    world.play(unary if method == "unary" else stream)
    call = getattr(world, method)(text(""))

    async def wait() -> Any:
        return await (call if method == "unary" else names(call))

    waiting = asyncio.create_task(wait())
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (call.cancelled(), call.done(), await call.code()) == (True, True, Code.CANCELLED)
    await asyncio.wait_for(world.script.ended.wait(), 60)


async def test_cancel_ends_a_call_at_once(world: World) -> None:
    began = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        began.set()
        await forever()

    world.play(handler)
    call = world.unary(text(""))
    done: list[Any] = []
    call.add_done_callback(done.append)
    await asyncio.wait_for(began.wait(), 60)
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert done == [call]
    await asyncio.wait_for(world.script.ended.wait(), 60)


async def test_done_callbacks_come_on_both_sides_also_when_they_are_late(world: World) -> None:
    ended = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: ended.set())
        return request

    world.play(handler)
    call = world.unary(text(""))
    early: list[Any] = []
    late: list[Any] = []
    call.add_done_callback(early.append)
    await call
    call.add_done_callback(late.append)
    await asyncio.wait_for(ended.wait(), 60)
    assert early == late == [call]


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    index = 0
    while True:
        yield text(str(index))
        index += 1


async def test_a_stream_that_is_closed_ends_its_generator(world: World) -> None:
    world.play(endless)
    call = world.stream(text(""))
    async for response in call:
        if response.name == "3":
            break
    call.cancel()
    await asyncio.wait_for(world.script.ended.wait(), 60)
    assert call.cancelled()


async def test_a_stream_that_is_forgotten_ends_its_generator() -> None:
    async with opened("within") as world:
        world.play(endless)
        call = world.stream(text(""))
        await call.read()
        del call
        gc.collect()
        await asyncio.wait_for(world.script.ended.wait(), 60)


async def test_a_crash_in_a_stream_comes_after_what_was_sent(world: World) -> None:
    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        yield text("a")
        yield text("b")
        raise ValueError("private")

    world.play(handler)
    call = world.stream(text(""))
    assert [(await call.read()).name, (await call.read()).name] == ["a", "b"]
    assert (await failed(call.read())).code() is Code.UNKNOWN


async def test_a_handler_waits_for_a_slow_reader(world: World) -> None:
    sent = 0

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal sent
        for _ in range(2000):
            sent += 1
            yield text("x" * 64_000)

    world.play(handler)
    call = world.stream(text(""))
    await call.read()
    await asyncio.sleep(0.3)  # that the handler sends no more has no event
    assert sent < 2000
    if world.kind == "within":
        assert sent <= STREAM_LIMIT + 1
    rest = 0
    while await call.read() is not grpc.aio.EOF:
        rest += 1
    assert (sent, rest) == (2000, 1999)


async def test_nothing_leaks_between_the_contexts_of_caller_and_handler(world: World) -> None:
    seen: list[str] = []

    async def unary(request: Any, context: Any) -> Any:
        seen.append(WHO.get())
        WHO.set(request.name)
        await asyncio.sleep(0.01)  # the other side gets its turn, also behind a socket
        seen.append(WHO.get())
        return request

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        seen.append(WHO.get())
        WHO.set(request.name)
        yield request
        seen.append(WHO.get())

    token = WHO.set("caller")
    try:
        world.play(unary)
        await asyncio.gather(*(world.unary(text(name)) for name in "abcdefgh"))
        world.play(stream)
        await asyncio.gather(*(names(world.stream(text(name))) for name in "abcdefgh"))
        assert WHO.get() == "caller"
    finally:
        WHO.reset(token)
    assert seen.count("nobody") == 16
    assert sorted(name for name in seen if name != "nobody") == sorted("abcdefgh" * 2)


async def test_neither_side_can_change_the_others_messages(world: World) -> None:
    kept: list[Any] = []
    began = asyncio.Event()

    async def unary(request: Any, context: Any) -> Any:
        kept.append(request)
        began.set()
        request.name += "!"
        await asyncio.sleep(0.01)  # the other side gets its turn, also behind a socket
        return request

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        response = text("0")
        for index in range(5):
            response.name = str(index)
            yield response

    world.play(unary)
    mine = text("mine")
    call = world.unary(mine)
    await began.wait()
    mine.name = "changed later"
    answer = await call
    assert (kept[0].name, answer.name) == ("mine!", "mine!")
    answer.name = "theirs"
    assert (kept[0].name, mine.name) == ("mine!", "changed later")
    world.play(stream)
    assert await names(world.stream(text(""))) == ["0", "1", "2", "3", "4"]
