"""What a model server sends, bytes to events: Server-Sent Events, JSON by lines, or one whole JSON document.

The standard: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import orjson

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""Most bytes of an answer that is one document: it is read to its end before anything of it is understood."""
MAX_EVENT_BYTES = MAX_DOCUMENT_BYTES
"""Most bytes of an event, and of a line: they too are kept to their end."""
_LINE_BYTES = 64
"""What a line of an event costs beside its own bytes."""


class ErrorData(bytes):
    """The data of an event that is named `error`, or of a line that begins with `error:`."""


class Events:
    """Finds the data of events in bytes that may be cut anywhere.

    Lines end with LF, CR or CRLF; a byte order mark, comments, and events without data are passed over. An answer that
    begins as JSON does is no stream of events: it is one event, known at the end, or one for each of its lines.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = b""
        self._skips_lf = False
        self._start = b""
        self._has_begun = False
        self._is_document = False
        self._document = bytearray()

    @property
    def is_document(self) -> bool:
        """True once the answer is known to be one document: each of its bytes is a sign of life."""
        return self._is_document

    def feed(self, content: bytes) -> list[bytes]:
        """Return the data of the events that are complete by now.

        Raises ValueError for a document, an event or a line without an end.
        """
        if self._has_begun:
            if self._is_document:
                self._keep(content)
                return []
        else:
            content = self._begin(content)
            if not self._has_begun:
                return []
        if not self._rest and not self._data and not self._skips_lf and not self._name and b"\r" not in content:
            quick = _whole_events(content)
            if quick is not None:
                return quick
        return self._by_lines(content)

    def finish(self) -> list[bytes]:
        """Return what is an event only because nothing follows it: a document, or a last event without its empty line.

        A last line without an end counts where it is whole, for not all servers end it; else it was cut and is none.
        """
        if self._is_document:
            document = bytes(self._document).strip()
            return [document] if document else []
        if self._rest:
            line = bytes(self._rest)
            if not _is_whole(line):
                return []
            self._take(line)
        return self._ended() if self._data else []

    def _begin(self, content: bytes) -> bytes:
        """Decide what the answer is by its first bytes that are no white space; return what there is to read."""
        content = self._start + content
        if len(content) < len(_BOM) and _BOM.startswith(content):
            self._start = content
            return b""
        bare = content.removeprefix(_BOM)
        first = bare.lstrip()[:1]
        if not first:
            # A stream may begin with any number of empty lines; none of them needs to be kept.
            self._start = bare[-1:]
            return b""
        self._start, self._has_begun = b"", True
        if first in b"{[":
            self._is_document = True
            self._keep(bare)
            return b""
        return bare.lstrip(b"\r\n")

    def _keep(self, content: bytes) -> None:
        self._document += content
        if len(self._document) > MAX_DOCUMENT_BYTES:
            self._document.clear()  # whoever keeps the error keeps this
            raise ValueError("an answer in one document is too large")

    def _by_lines(self, content: bytes) -> list[bytes]:
        if self._skips_lf and content:
            self._skips_lf = False
            content = content.removeprefix(b"\n")
        if content.endswith(b"\r"):
            self._skips_lf = True
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = content.split(b"\n")
        if not lines:
            self._rest += rest
            self._refuse_endless()
            return []
        if self._rest:
            lines[0] = bytes(self._rest + lines[0])
        self._rest = bytearray(rest)
        found: list[bytes] = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found += self._ended()
            else:
                self._name = b""
        self._refuse_endless()
        return found

    def _refuse_endless(self) -> None:
        if self._data_size + len(self._rest) > MAX_EVENT_BYTES:
            self._rest.clear()  # whoever keeps the error keeps these
            self._data.clear()
            raise ValueError("an event without an end")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._keep_line(value)
        elif name == b"event":
            self._name = value
        elif name == b"error":  # as older servers tell of a failure
            self._name = b"error"
            self._keep_line(value)

    def _keep_line(self, value: bytes) -> None:
        self._data.append(value)
        self._data_size += len(value) + _LINE_BYTES

    def _ended(self) -> list[bytes]:
        data, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._data_size = 0
        self._name = b""
        if not data:
            return []
        return [ErrorData(data) if name == b"error" else data]


def _whole_events(content: bytes) -> list[bytes] | None:
    """Return the data of events that each have one line, the common case; None where it is not so simple."""
    if not content.startswith(b"data: ") or not content.endswith(b"\n\n"):
        return None
    blocks = content[6:-2].split(b"\n\ndata: ")
    return None if any(b"\n" in block for block in blocks) else blocks


def _is_whole(line: bytes) -> bool:
    name, _, value = line.partition(b":")
    if name not in (b"data", b"error"):
        return False
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.strip() == _DONE
    return True
