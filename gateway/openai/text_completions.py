"""POST /v1/completions for older tools: a text in place of messages, carried as a chat completion of one message."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from servicekit.errors import AppError

ONLY_VALUES: Mapping[str, tuple[object, ...]] = {"best_of": (1,), "suffix": ("",), "logprobs": (False,)}
"""What a chat completion has no word for, with the values beside null that ask for nothing."""


class TextCompletion:
    """One request, and how its answers are put into the older shape.

    data: the request's JSON. Raises AppError MISSING_FIELD, INVALID_FIELD, with the parameter's name.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        prompt = _prompt(data)
        if "messages" in data:
            raise _invalid("messages", "belongs to /v1/chat/completions; write prompt here")
        for name, values in ONLY_VALUES.items():
            # By identity of the type too: 1 is no True.
            given = data.get(name)
            if given is not None and not any(type(given) is type(value) and given == value for value in values):
                raise _invalid(name, "is not offered here; leave it out")
        if not isinstance(data.get("echo") or False, bool):
            raise _invalid("echo", "must be true or false")
        own = {"prompt", "echo", *ONLY_VALUES}
        rest = {name: value for name, value in data.items() if name not in own}
        try:
            self.request_json = orjson.dumps({**rest, "messages": [{"role": "user", "content": prompt}]}).decode()
        except TypeError:  # it reads what is nested more deeply than it writes
            raise AppError("INVALID_JSON", cause="nested too deeply") from None
        """The chat completion that is asked for."""
        self._unsent_echo = prompt if data.get("echo") else ""

    def whole(self, completion_json: str) -> bytes:
        """Return a whole answer of the chat completion as a text completion."""
        return _written(self._converted(_read(completion_json), "message"))

    def piece(self, completion_json: str) -> bytes:
        """Return a piece of a stream as an event; empty for one that says nothing in the older shape."""
        chunk = _read(completion_json)
        if chunk.get("choices") and not any(_says_something(choice) for choice in chunk["choices"]):
            return b""
        return b"data: %s\n\n" % _written(self._converted(chunk, "delta"))

    def _converted(self, completion: Mapping[str, Any], part: str) -> dict[str, Any]:
        choices = []
        for choice in completion.get("choices") or ():
            text = self._unsent_echo + ((choice.get(part) or {}).get("content") or "")
            self._unsent_echo = ""
            reason = choice.get("finish_reason")
            choices.append({"text": text, "index": choice.get("index", 0), "logprobs": None, "finish_reason": reason})
        return {**completion, "object": "text_completion", "choices": choices}


def _read(completion_json: str) -> Any:
    """Return an answer of the orchestrator's. It may hold half characters, which are no valid JSON to orjson."""
    try:
        return orjson.loads(completion_json)
    except orjson.JSONDecodeError:
        return json.loads(completion_json)


def _written(completion: Mapping[str, Any]) -> bytes:
    """Return it as JSON, whatever the model's server has put beside the text."""
    try:
        return orjson.dumps(completion)
    except TypeError:  # half characters, or nested more deeply than orjson writes
        return json.dumps(completion, separators=(",", ":")).encode()


def _prompt(data: Mapping[str, Any]) -> str:
    prompt = data.get("prompt")
    if prompt is None:
        raise AppError("MISSING_FIELD", metadata={"field": "prompt"})
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _invalid("prompt", "must be one text; tokens and several texts are not taken")
    return prompt


def _says_something(choice: Mapping[str, Any]) -> bool:
    return bool((choice.get("delta") or {}).get("content") or choice.get("finish_reason"))


def _invalid(field: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": field, "problem": problem})
