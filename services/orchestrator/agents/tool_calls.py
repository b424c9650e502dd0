"""Tool calls as a model sends them: put together from parts, checked, and bounded."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from langchain_core.messages import ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk

from servicekit.errors import AppError
from services.orchestrator.steps import ToolCall

MAX_ARGUMENT_BYTES = 24 * 1024
"""Most bytes of arguments of all calls in one message together; they are stored in the message's metadata."""

MAX_CALLS = 32
"""Most calls in one message."""

MOST_CALLS = 128
"""Most calls that are put together; those beyond MAX_CALLS are told apart only so that their number is known."""
MOST_BYTES = 2 * 1024 * 1024
"""Most that all calls of one message may take while they come: names, ids and arguments."""

_PIECE_BYTES = 64
"""What a piece's id or index costs beside its own letters."""
_MAX_NAME_CHARS = 64
_MOST_NAME_CHARS = 1_000
"""Most characters of a name while it comes; what is stored of it is shorter."""
_MAX_ID_CHARS = 100
_MAX_DEPTH = 20


_IN_TEXT = re.compile(r'["\\]')
_WHITE = " \t\n\r"
"""What JSON takes for white space."""
_BESIDE_TEXT = re.compile(r'["{}]')


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a call as a server sends it; each field may be missing, or of another type than it should be."""

    index: Any
    id: Any
    name: Any
    arguments: Any
    """Text to add to what came before, or a whole object."""
    is_free: bool = False
    """True where the tool takes any text, not an object."""


def pieces_of(chunks: Iterable[ToolCallChunk]) -> list[CallPiece]:
    """Return pieces in the form of LangChain's as pieces of a server's."""
    return [CallPiece(chunk["index"], chunk["id"], chunk["name"], chunk["args"]) for chunk in chunks]


class CallParts:
    """The tool calls of one message while it is streamed, told apart whatever the server calls them by.

    A piece belongs to the call of its index, else of its id, else to the last one. A piece with a name begins another
    call where the one it would belong to is whole already, or has another name.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._size = 0

    def __bool__(self) -> bool:
        """Say whether any call has begun."""
        return bool(self._calls)

    def add(self, pieces: Iterable[CallPiece]) -> list[ToolCallChunk]:
        """Take in pieces; return each as it should be: counted from 0, id and name in a call's first piece, text.

        Raises AppError MODEL_ANSWER_MALFORMED for calls without an end.
        """
        made: list[ToolCallChunk] = []
        for piece in pieces:
            call_id = "" if piece.id is None else storable(str(piece.id))
            name = piece.name if isinstance(piece.name, str) else ""
            index = piece.index if isinstance(piece.index, int | str) and piece.index != "" else None
            call = self._call_for(str(index) if index is not None else "", call_id, name, piece.arguments)
            is_first = not call.has_begun
            named, text = call.take(piece, name)
            self._size += len(text) + len(named)
            if self._size > MOST_BYTES or len(call.name) > _MOST_NAME_CHARS:
                raise AppError("MODEL_ANSWER_MALFORMED", cause="tool calls without an end")
            made.append(
                tool_call_chunk(name=named or None, args=text, id=call.id if is_first else None, index=call.position)
            )
        return made

    @property
    def failure(self) -> AppError | None:
        """Why the calls cannot be put together; None when they can."""
        for call in self._calls:
            if problem := "without a name" if not call.name else call.problem():
                return AppError("MODEL_ANSWER_MALFORMED", cause=f"a tool call {problem}")
        return None

    def whole(self) -> list[ToolCall]:
        """Return the calls; one whose arguments are no JSON object, or too large, has a problem in place of them.

        Raises AppError MODEL_ANSWER_MALFORMED for a call without a name, which nobody could answer; RUN_LIMIT_REACHED
        for too many calls. None is left out.
        """
        if not all(call.name for call in self._calls):
            raise AppError("MODEL_ANSWER_MALFORMED", cause="a tool call without a name")
        if len(self._calls) > MAX_CALLS:
            raise AppError("RUN_LIMIT_REACHED", metadata={"limit": f"{MAX_CALLS} tool calls at once"})
        left_bytes = MAX_ARGUMENT_BYTES
        made: list[ToolCall] = []
        for call in self._calls:
            size = len(storable(call.text).encode())
            problem = call.problem() or ("with too much text for its arguments" if size > left_bytes else "")
            left_bytes -= 0 if problem else size
            made.append(
                ToolCall(
                    call_id=call.id[:_MAX_ID_CHARS],
                    # Providers refuse other characters when they are given the call again.
                    name=re.sub(r"[^A-Za-z0-9_-]", "_", call.name[:_MAX_NAME_CHARS]),
                    arguments={} if problem else call.arguments(),
                    problem=problem,
                )
            )
        return made

    def as_sent(self) -> list[dict[str, Any]]:
        """Return the calls as a whole message of OpenAI's has them."""
        return [call.as_sent() for call in self._calls]

    def _call_for(self, index: str, call_id: str, name: str, arguments: Any) -> "_Call":
        found = self._known(index, call_id)
        if found is None:
            found = self._going_on(index, call_id, name, arguments)
        elif name and found.is_other(name, arguments) and self._is_anew(found, index, call_id, arguments):
            found = None
        if found is None:
            if len(self._calls) == MOST_CALLS:
                raise AppError("MODEL_ANSWER_MALFORMED", cause=f"more than {MOST_CALLS} tool calls")
            taken = {call.id for call in self._calls}
            found = _Call(len(self._calls), call_id if call_id and call_id not in taken else new_call_id())
            self._calls.append(found)
        for known, new in ((found.indexes, index), (found.ids, call_id)):
            if new and new not in known:
                known.add(new)
                self._size += len(new) + _PIECE_BYTES
        return found

    def _going_on(self, index: str, call_id: str, name: str, arguments: Any) -> "_Call | None":
        """Return the last call where a piece goes on with it though neither its index nor its id is known."""
        last = self._calls[-1] if self._calls else None
        if last is None or index:
            return None
        if not name:
            return last  # it has a new id, or none at all
        if call_id:
            return last if last.text and arguments and not last.is_other(name, arguments) else None
        return None if last.is_other(name, arguments) else last

    def _is_anew(self, call: "_Call", index: str, call_id: str, arguments: Any) -> bool:
        """Say whether a known index or id stands for another call now, as the name that comes with it says."""
        if call_id and call_id in call.ids:
            return call.is_whole() and bool(arguments) and (not index or index not in call.indexes)
        return bool(call_id) or (call.is_whole() and bool(arguments))

    def _known(self, index: str, call_id: str) -> "_Call | None":
        """Return the newest call of that index and id, else of one of them."""
        by_index = [call for call in self._calls if index and index in call.indexes]
        by_id = [call for call in self._calls if call_id and call_id in call.ids]
        both = [call for call in by_index if call in by_id]
        return next((calls[-1] for calls in (both, by_index, by_id) if calls), None)


class _Call:
    def __init__(self, position: int, call_id: str) -> None:
        self.position = position
        self.id = call_id
        self.ids: set[str] = set()
        self.indexes: set[str] = set()
        self.name = ""
        self.has_begun = False
        self._pieces: list[str] = []
        self._is_free = False
        self._ending = _Ending()
        self._is_whole: bool | None = None
        """None until it is known; white space changes it no more."""

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def take(self, piece: CallPiece, name: str) -> tuple[str, str]:
        """Add a piece; return what it adds to the name and to the arguments."""
        self._is_free = self._is_free or piece.is_free
        # Some servers send the name with each part.
        named = "" if name == self.name or (self.has_begun and self.name.endswith(name)) else name
        self.name += named
        self.has_begun = True
        text = self._text_of(piece.arguments)
        if text:
            self._pieces.append(text)
            self._ending.feed(text)
        return named, text

    def _text_of(self, arguments: Any) -> str:
        if arguments is None:
            return ""
        if not isinstance(arguments, str):
            # A second object makes no object of JSON, whatever it is; the same one again is no second.
            text = orjson.dumps(arguments, default=str).decode()
            return "" if len(text) == self._ending.size and text == self.text else text
        if not self._pieces and not self._is_free and arguments.startswith('"'):
            inner = _loaded(arguments)  # written as JSON twice, as some servers do
            return inner if isinstance(inner, str) else arguments
        return arguments

    def is_other(self, name: str, arguments: Any) -> bool:
        """Say whether a piece with this name, which may be of this call, is another call's."""
        if self.is_whole():
            return True
        if self._pieces:
            return name != self.name or isinstance(arguments, dict) or str(arguments or "").lstrip().startswith("{")
        return bool(self.name) and name != self.name

    def is_whole(self) -> bool:
        # It is asked with each piece, and all of the text is read only where it may be so.
        if not self._ending.may_be_whole:
            return False
        if self._is_whole is None:
            self._is_whole = isinstance(_loaded(self.text), dict)
        return self._is_whole

    def problem(self) -> str:
        """Return why it cannot be made, without a word of the model's; empty when it can."""
        try:
            self.arguments()
        except ValueError:
            return "" if self._is_free else "whose arguments are no JSON object"
        return ""

    def arguments(self) -> Mapping[str, Any]:
        """Return the arguments. Raises ValueError where they are no object of JSON, or nested too deeply."""
        text = storable(self.text)
        data = orjson.loads(text) if text.strip() else {}
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ValueError("arguments that are no object")
        return {storable(key): _checked(value, _MAX_DEPTH) for key, value in data.items()}

    def as_sent(self) -> dict[str, Any]:
        if self._is_free:
            return {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": self.text}}
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.text}}


class _Ending:
    """Knows of a text that comes in pieces whether it may be one object of JSON, with each character looked at once."""

    def __init__(self) -> None:
        self.size = 0
        self._depth = 0
        self._is_in_text = False
        self._is_escaped = False
        self._has_ended = False
        self._is_broken = False

    @property
    def may_be_whole(self) -> bool:
        return self._has_ended and not self._is_broken

    def feed(self, text: str) -> None:
        self.size += len(text)
        if self._is_broken:
            return
        if self._has_ended:
            self._is_broken = bool(text.strip(_WHITE))
            return
        at = 0
        if self._is_escaped:
            at, self._is_escaped = 1, False
        while found := (_IN_TEXT if self._is_in_text else _BESIDE_TEXT).search(text, at):
            at = found.end()
            match found.group():
                case '"':
                    self._is_in_text = not self._is_in_text
                case "{":
                    self._depth += 1
                case "}":
                    self._depth -= 1
                    if self._depth <= 0:
                        self._has_ended = True
                        self._is_broken = self._depth < 0 or bool(text[at:].strip(_WHITE))
                        return
                case "\\":  # the next character is no end, be it in the next piece
                    self._is_escaped = at == len(text)
                    at += 1


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(storable(text))
    except ValueError:
        return None


def new_call_id() -> str:
    """Return an id for a call to which the model gave none of its own."""
    return f"call_{uuid4().hex}"


def storable(text: str) -> str:
    """Return the text without what no stored text may hold: NUL and halves of characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def _checked(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _checked(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [_checked(entry, depth - 1) for entry in value]
    return value
