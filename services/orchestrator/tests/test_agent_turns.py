import grpc
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import sessions_pb2

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.testing import acting_as
from services.orchestrator.tests.conftest import MakeSuite, Suite, error_of, kinds, state_of, text_of
from tests.support.model_server import Behaviour, ToolUse
from tests.support.waiting import until

SEARCHING = Behaviour(text="Let me look.", tool_calls=(ToolUse("search_messages", {"query": "lisbon"}),))
ROLES = {
    sessions_pb2.ROLE_USER: "user",
    sessions_pb2.ROLE_ASSISTANT: "assistant",
    sessions_pb2.ROLE_TOOL: "tool",
}


async def test_turn_shows_its_tools_and_keeps_calls_and_results_as_messages(suite: Suite) -> None:
    session_id = suite.add_session(name="Now")
    earlier = suite.add_session(name="Holidays")
    suite.fake.fill(earlier, ["Lisbon in May"])
    suite.model.script(SEARCHING, Behaviour(text="You said May."), Behaviour(text="Yes."))
    events = await suite.turn(session_id, "When was it?", agent="search")
    assert state_of(events) == "SUCCEEDED"
    assert kinds(events) == [
        "run_started",
        "message_delta",
        "tool_started",
        "tool_finished",
        "message_delta",
        "message_completed",
        "usage",
        "run_finished",
    ]
    assert events[0].run_started.agent == "search"
    assert text_of(events) == "Let me look.You said May."
    started = next(event.tool_started for event in events if event.HasField("tool_started"))
    finished = next(event.tool_finished for event in events if event.HasField("tool_finished"))
    assert (started.name, dict(started.arguments)) == ("search_messages", {"query": "lisbon"})
    assert finished.call_id == started.call_id
    assert "Lisbon in May" in finished.output
    assert [(ROLES[one.role], one.content) for one in suite.stored(session_id)] == [
        ("user", "When was it?"),
        ("assistant", "Let me look."),
        ("tool", finished.output),
        ("assistant", "You said May."),
    ]
    # The next turn's model is given the calls with their results, as providers insist on.
    await suite.turn(session_id, "Sure?")
    sent = suite.model.chats[-1]["messages"]
    assert [entry["role"] for entry in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert sent[2]["tool_calls"][0]["id"] == sent[3]["tool_call_id"] == started.call_id


async def test_tools_act_as_the_caller_of_the_turn(suite: Suite) -> None:
    session_id = suite.add_session()
    other = suite.fake.add_session("6f1c1f0e-3c55-4b0b-8d0c-6f3f0f8f5a11", name="Theirs")
    suite.fake.fill(other, ["Lisbon is a secret"])
    suite.model.script(SEARCHING, Behaviour(text="Nothing."))
    events = await suite.turn(session_id, "When was it?", agent="search")
    finished = next(event.tool_finished for event in events if event.HasField("tool_finished"))
    assert finished.output == '{"hits":[],"next_page_token":""}'


async def test_runaway_run_fails_with_the_limit_and_keeps_what_happened(make_suite: MakeSuite) -> None:
    async with make_suite(run_max_steps=6) as suite:
        session_id = suite.add_session(name="Now")
        events = await suite.turn(session_id, "Loop", agent="search", model="fault:loop")
        assert state_of(events) == "FAILED"
        detail = error_of(events).details[0]
        assert (detail.reason, dict(detail.metadata)) == ("RUN_LIMIT_REACHED", {"limit": "6 steps"})
        roles = [ROLES[one.role] for one in suite.stored(session_id)]
        assert roles[:5] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_unknown_agent_is_refused_before_anything_is_stored(suite: Suite) -> None:
    session_id = suite.add_session()
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Hello", agent="nobody")
    assert caught.value.reason == "AGENT_NOT_FOUND"
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert suite.stored(session_id) == []
    assert suite.model.chats == []


async def test_agents_and_models_are_listed(suite: Suite) -> None:
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(suite.connection)
    with acting_as(suite.caller):
        agents = await channel.call(stub.ListAgents, orchestrator_pb2.ListAgentsRequest(page_size=1))
        models = await channel.call(stub.ListModels, orchestrator_pb2.ListModelsRequest())
    assert [agent.name for agent in agents.agents] == ["assistant"]
    assert agents.next_page_token
    assert [model.name for model in models.models][:2] == ["test-model", "fault:unauthorized"]


async def test_title_of_the_model_follows_the_turn(make_suite: MakeSuite) -> None:
    async with make_suite(title_model="small-model") as suite:
        session_id = suite.add_session()
        suite.model.choose = lambda body: Behaviour(text="A Greeting") if body["model"] == "small-model" else None
        events = await suite.turn(session_id, "Hello there")
        assert state_of(events) == "SUCCEEDED"
        assert suite.fake.sessions[session_id].name == "Hello there"
        assert len(suite.model.chats) == 1
        await until(lambda: suite.fake.sessions[session_id].name == "A Greeting")
