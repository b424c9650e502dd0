import orjson
import pytest
from concerto.sessions.v1 import runs_pb2

from gateway.rest import sse
from servicekit.messages.converter import to_json


@pytest.mark.parametrize("text", ["", "t0 ", "Grüße, 世界 👋\n\r\n", '"quoted" \\ \u2028 \x01'])
def test_a_delta_is_written_as_the_converter_would(text: str) -> None:
    delta = runs_pb2.MessageDelta(text=text)
    frame = sse.encode(runs_pb2.RunEvent(seq=7, message_delta=delta))
    assert frame == b"id: 7\nevent: message.delta\ndata: %s\n\n" % orjson.dumps(to_json(delta))
    assert frame.count(b"\n") == 4


def test_every_field_of_a_delta_is_written() -> None:
    assert [field.name for field in runs_pb2.MessageDelta.DESCRIPTOR.fields] == ["text"]
