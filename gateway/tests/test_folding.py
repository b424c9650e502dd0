import pytest
from concerto.options.v1 import options_pb2
from concerto.sessions.v1 import runs_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

from gateway.rest.folding import Answer, folding_of

TEXT, BOOL, NUMBER = (
    descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
)
DONE = {"done": options_pb2.Folding(spread=True, last=True)}


def event_with(**rules: options_pb2.Folding) -> Descriptor:
    """Return an event of a domain that does not exist, whose payloads are folded by these rules."""
    file = descriptor_pb2.FileDescriptorProto(name="things.proto", package="concerto.things.v1", syntax="proto3")
    for name, fields in {
        "Asked": {"key": TEXT, "question": TEXT},
        "Answered": {"key": TEXT, "answer": TEXT, "count": NUMBER, "is_sure": BOOL},
        "Done": {"word": TEXT},
    }.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            message.field.add(name=field, number=number, type=kind, label=1)
    event = file.message_type.add(name="ThingEvent")
    event.oneof_decl.add(name="payload")
    for number, name in enumerate(("asked", "answered", "done"), 1):
        payload = event.field.add(
            name=name,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            type_name=f".concerto.things.v1.{name.capitalize()}",
            label=1,
            oneof_index=0,
        )
        if name in rules:
            payload.options.Extensions[options_pb2.folding].CopyFrom(rules[name])
    pool = descriptor_pool.DescriptorPool()
    for known in ("google/protobuf/descriptor.proto", "concerto/options/v1/options.proto"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(known).serialized_pb)
    pool.Add(file)
    return pool.FindMessageTypeByName("concerto.things.v1.ThingEvent")


def entry(key: str = "key") -> options_pb2.Folding:
    return options_pb2.Folding(entry=options_pb2.FoldedEntry(list="things", key=key, description="Things."))


def test_a_domain_of_which_the_gateway_knows_nothing_is_folded_as_its_contract_says() -> None:
    event = event_with(asked=entry(), answered=entry(), **DONE)
    make = message_factory.GetMessageClass(event)
    answer = Answer(folding_of(event))
    for payload in (
        {"asked": {"key": "one", "question": "Why?"}},
        {"asked": {"key": "two", "question": "How?"}},
        {"answered": {"key": "one", "answer": "So.", "count": 2, "is_sure": True}},
        {"done": {"word": "bye"}},
    ):
        assert not answer.is_finished
        answer.add(make(**payload))
    assert answer.is_finished
    assert answer.to_json() == {
        "word": "bye",
        "things": [
            {"key": "one", "question": "Why?", "answer": "So.", "count": 2, "is_sure": True},
            {"key": "two", "question": "How?", "answer": None, "count": 0, "is_sure": False},
        ],
    }
    assert folding_of(event).lists["things"].nullable == {"question", "answer"}


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({}, "no payload is the last one"),
        ({"asked": entry("id"), **DONE}, "has no field 'id' to tell entries apart"),
        ({"asked": options_pb2.Folding(failure=True), **DONE}, "is a failure without a concerto.errors.v1.Error"),
        (
            {"asked": options_pb2.Folding(spread=True), "answered": options_pb2.Folding(spread=True), **DONE},
            "two payloads give the answer a field of the same name",
        ),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules: dict[str, options_pb2.Folding], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        folding_of(event_with(**rules))


def test_a_run_folds_into_these_fields() -> None:
    folding = folding_of(runs_pb2.RunEvent.DESCRIPTOR)
    assert folding.names == ["run_id", "session_id", "user_message", "model", "agent", "message", "usage", "state"]
    assert folding.lists["tools"].blank == {
        "call_id": None,
        "name": None,
        "arguments": None,
        "output": None,
        "is_error": False,
    }
    assert folding.lists["tools"].nullable == {"arguments", "output"}
    assert (folding.failures, folding.last) == ({"error"}, {"run_finished"})
