"""How a stream of events becomes one JSON answer, as the contract's option `folding` says of each payload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from concerto.errors.v1 import errors_pb2
from concerto.options.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.messages.converter import to_json

PAYLOAD = "payload"
"""The oneof of an event that says what has happened."""
ERROR = "error"
"""The field of a failure's payload that holds the error, and of a body that does."""

_WITHOUT_NULL = frozenset(
    {
        *(FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT),
        *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
        *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
    }
)


@dataclass(slots=True)
class EntryList:
    """A list of the answer, whose entries are put together from payloads."""

    key: str
    """The field that tells entries apart."""
    description: str = ""
    payloads: list[FieldDescriptor] = field(default_factory=list)
    """Those that an entry may have parts of."""
    blank: dict[str, Any] = field(default_factory=dict)
    """An entry before its first part: null, but false and 0 for flags and numbers."""

    @property
    def nullable(self) -> frozenset[str]:
        """Fields that are null as long as their part is missing."""
        parts = [{each.name for each in _fields(payload)} for payload in self.payloads]
        return frozenset(
            name for name, value in self.blank.items() if value is None and not all(name in part for part in parts)
        )


@dataclass(slots=True)
class Folding:
    """What becomes of each payload of one kind of event, by the payload's name."""

    spread: dict[str, Descriptor] = field(default_factory=dict)
    """Payloads whose fields are fields of the answer."""
    nested: dict[str, Descriptor] = field(default_factory=dict)
    """Payloads that are fields of the answer."""
    names: list[str] = field(default_factory=list)
    """The answer's fields, in the order of the payloads, its lists left out."""
    lists: dict[str, EntryList] = field(default_factory=dict)
    """The answer's lists by their names."""
    list_of: dict[str, str] = field(default_factory=dict)
    """The list that a payload is gathered in."""
    failures: set[str] = field(default_factory=set)
    """Payloads that say why the stream failed."""
    last: set[str] = field(default_factory=set)
    """Payloads that end a stream."""


@cache
def folding_of(event: Descriptor) -> Folding:
    """Return how events of a kind are folded. Raises ValueError for rules that cannot be followed."""
    folding = Folding()
    for payload in event.oneofs_by_name[PAYLOAD].fields:
        rule = payload.GetOptions().Extensions[options_pb2.folding]
        if rule.last:
            folding.last.add(payload.name)
        match rule.WhichOneof("result"):
            case "spread":
                folding.spread[payload.name] = _message(payload)
                folding.names += [each.name for each in _fields(payload)]
            case "nested":
                folding.nested[payload.name] = _message(payload)
                folding.names.append(payload.name)
            case "entry":
                _gather(folding, payload, rule.entry)
            case "failure":
                error = _message(payload).fields_by_name.get(ERROR)
                if error is None or error.message_type != errors_pb2.Error.DESCRIPTOR:
                    raise ValueError(f"{payload.full_name} is a failure without a concerto.errors.v1.Error")
                folding.failures.add(payload.name)
            case _:
                continue
    if not folding.last:
        raise ValueError(f"{event.full_name}: no payload is the last one of a stream")
    if len({*folding.names, *folding.lists}) < len(folding.names) + len(folding.lists):
        raise ValueError(f"{event.full_name}: two payloads give the answer a field of the same name")
    return folding


class Answer:
    """The answer in the making."""

    def __init__(self, folding: Folding) -> None:
        self._folding = folding
        self._fields: dict[str, Any] = dict.fromkeys(folding.names)
        self._lists: dict[str, dict[Any, dict[str, Any]]] = {name: {} for name in folding.lists}
        self.failure: Mapping[str, Any] | None = None
        """The body of an error, where one was told of."""
        self.is_empty = True
        """True before the first event."""
        self.is_finished = False
        """True after a stream's last event."""

    def add(self, event: Message) -> None:
        """Take in the next event; one of a kind that this process does not know changes nothing."""
        self.is_empty = False
        name = event.WhichOneof(PAYLOAD)
        if name is None:
            return
        folding = self._folding
        self.is_finished = self.is_finished or name in folding.last
        if name in folding.spread:
            self._fields.update(to_json(getattr(event, name)))
        elif name in folding.nested:
            self._fields[name] = to_json(getattr(event, name))
        elif name in folding.list_of:
            part, entries = to_json(getattr(event, name)), folding.lists[folding.list_of[name]]
            gathered = self._lists[folding.list_of[name]]
            gathered.setdefault(part[entries.key], dict(entries.blank)).update(part)
        elif name in folding.failures:
            self.failure = {ERROR: to_json(getattr(event, name))[ERROR]}

    def to_json(self) -> dict[str, Any]:
        """Return it: null for what did not happen, and the lists."""
        return {**self._fields, **{name: list(entries.values()) for name, entries in self._lists.items()}}


def _gather(folding: Folding, payload: FieldDescriptor, rule: options_pb2.FoldedEntry) -> None:
    if rule.key not in _message(payload).fields_by_name:
        raise ValueError(f"{payload.full_name} has no field {rule.key!r} to tell entries apart")
    entries = folding.lists.setdefault(rule.list, EntryList(rule.key))
    entries.description = entries.description or rule.description
    entries.payloads.append(payload)
    for each in _fields(payload):
        plain = each.cpp_type in _WITHOUT_NULL and not each.is_repeated
        entries.blank.setdefault(each.name, each.default_value if plain else None)
    folding.list_of[payload.name] = rule.list


def _message(payload: FieldDescriptor) -> Descriptor:
    if payload.message_type is None:
        raise ValueError(f"{payload.full_name} is no message")
    return payload.message_type


def _fields(payload: FieldDescriptor) -> list[FieldDescriptor]:
    return list(_message(payload).fields)
