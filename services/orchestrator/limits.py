"""The bounds of texts that are cut or refused before they are sent, as the contract states them."""

from concerto.sessions.v1 import sessions_pb2, turns_pb2

from servicekit.messages.validation import limits_of

MAX_CONTENT_BYTES = limits_of(sessions_pb2.NewMessage.DESCRIPTOR.fields_by_name["content"]).max_bytes
"""Most bytes of one message that a run stores."""

MAX_QUESTION_BYTES = limits_of(turns_pb2.Turn.DESCRIPTOR.fields_by_name["content"]).max_bytes
"""Most bytes of what a user says in one turn."""
