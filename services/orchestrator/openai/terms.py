"""What a chat completion may ask for: parameters whose cost is counted in tokens, and of these only so many."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from servicekit.errors import AppError
from servicekit.messages import json_size
from services.orchestrator.models.provider_requests import LIMITS

PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
"""Top-level parameters that cost nothing beside the tokens of the prompt and of one answer."""
FREE_VALUES: Mapping[str, Any] = {"modalities": ["text"], "store": False}
"""Further parameters that cost nothing with this one value: an answer in text, which the provider does not keep."""
TOOL_KINDS = frozenset({"custom", "function"})
"""Kinds of tools that the client carries out itself; any other is the provider's own, and charged by it."""
TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict", *TOOL_KINDS})
"""What such a tool consists of. Some providers know a tool of their own by a key and no type, as `google_search`."""

_NAME = re.compile(r"[A-Za-z0-9_:.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator lets chat completions ask for.

    most_tokens: most tokens of one answer. further: parameters that are let through beside PARAMETERS, and kinds of the
    provider's own tools, as `tool:web_search`. limit: which of LIMITS is said where a request has none.
    """

    most_tokens: int
    further: frozenset[str] = field(default=frozenset())
    limit: str = LIMITS[0]

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise AppError for a request that could cost more than its tokens, or more tokens than are allowed.

        PARAMETER_NOT_ALLOWED with the parameter's name; INVALID_FIELD for a number of answers or tokens out of bounds.
        """
        for name, value in body.items():
            # One that is null is the same as none.
            if name not in PARAMETERS and name not in self.further and value is not None and not _is_free(name, value):
                raise _not_allowed(name)
        for name in ("tools", "functions"):
            given = body.get(name)
            for index, tool in enumerate([] if given is None else given if isinstance(given, list) else [given]):
                self._check_tool(f"{name}[{index}]", tool)
        if body.get("n") is not None and not _is_count(body["n"], most=1):
            raise _invalid("n", "must be 1: a request gets one answer")
        for name in LIMITS:
            if body.get(name) is not None and not _is_count(body[name], most=self.most_tokens):
                raise _invalid(name, f"must be a number from 1 to {self.most_tokens}")

    def _check_tool(self, path: str, tool: object) -> None:
        if not isinstance(tool, dict):
            raise _not_allowed(path)
        kind = tool.get("type")
        if isinstance(kind, str) and f"tool:{kind}" in self.further:
            return
        if kind is not None and not (isinstance(kind, str) and kind in TOOL_KINDS):
            raise _not_allowed(f"{path}.type")
        if any(name not in TOOL_FIELDS and f"tool:{name}" not in self.further for name in tool):
            raise _not_allowed(path)

    def bounded(self, body: dict[str, Any], text: str) -> tuple[dict[str, Any], str]:
        """Return a request and its text with a bound on the answer's tokens; nothing else of them changes."""
        if any(body.get(name) is not None for name in LIMITS):
            return body, text
        bound = {self.limit: self.most_tokens}
        if self.limit in body:  # as null, and a key stands once
            return {**body, **bound}, json.dumps({**body, **bound})
        return {**bound, **body}, f"{json.dumps(bound)[:-1]},{text.lstrip()[1:]}"


def parse(text: str) -> Any:
    """Return the value of a JSON text. Raises AppError FIELD_TOO_LARGE; INVALID_JSON, also where a key stands twice.

    Of two values one reader takes the first and another the last: a provider could do what was not checked here.
    """
    json_size.refuse_many_values(text.encode())
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise AppError("INVALID_JSON") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _is_free(name: str, value: object) -> bool:
    # Zero is no false: a provider may read it otherwise.
    return name in FREE_VALUES and type(value) is type(FREE_VALUES[name]) and value == FREE_VALUES[name]


def _is_count(value: object, *, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _not_allowed(name: str) -> AppError:
    # A client may put anything there, even what nobody shall read in a log.
    known = name if _NAME.fullmatch(name) or name.startswith(("tools[", "functions[")) else "…"
    return AppError("PARAMETER_NOT_ALLOWED", metadata={"param": known})


def _invalid(name: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": name, "problem": problem})
