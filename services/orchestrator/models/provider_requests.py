"""Requests that fit the server: what it refuses by name is left out or said otherwise, and remembered for the model."""

import contextlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import openai
import structlog

from services.orchestrator.models.provider_errors import report_of
from services.orchestrator.models.provider_stream import parts_of
from services.orchestrator.models.server_chunks import AnswerReader, Part
from services.orchestrator.models.server_failures import Report

_LOG = structlog.stdlib.get_logger(__name__)

Json = dict[str, Any]

PATH = "/chat/completions"
LIMITS = ("max_completion_tokens", "max_tokens")
"""Names of the bound on an answer's tokens."""
MAX_FURTHER_TRIES = 5
"""Most further tries of one request; each follows a refusal that names something new."""

_KEPT = frozenset(
    {
        *("model", "messages", "stream", "n", "stop", "modalities", "audio", "response_format"),
        *("tools", "tool_choice", "functions", "function_call", "logprobs", "top_logprobs", *LIMITS),
    }
)
"""What is never left out: without it the answer would be another one than was asked for."""

# The template of a model fails with 500 at some servers; within an answer there is no status.
_REFUSALS = frozenset({0, 400, 422, 500, 501})
_REFUSED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|un-?implemented|extra (?:inputs?|fields?|forbidden)|"
    r"extra_forbidden|not (?:be )?(?:supported|permitted|allowed|recogni[sz]ed|known|valid)|"
    r"not (?:be )?(?:available|implemented|enabled|accepted|used)|"
    r"(?:does not|doesn't|do not|don't|cannot|can't) (?:support|accept|use|have|recogni[sz]e|allow|be used)|"
    r"no such (?:parameter|field|argument)|additional propert|invalid (?:parameter|field|argument|property|role)|"
    r"unknown_parameter|unsupported_parameter|unsupported_value|only the default|is deprecated|must be removed|"
    r"should be ['\"]?(?:user|assistant)|must be one of|only .{0,60}roles? (?:are|is)"
)
_ROLE = re.compile(
    r"\b(?P<first>system|developer)\b['\"`]?\)?\s*(?:role|message|instruction|prompt)|"
    r"roles?\b.{0,80}?\b(?P<second>system|developer)\b|only .{0,20}user.{0,20}assistant.{0,60}roles?|"
    r"should be ['\"]?(?:user|assistant)"
)
_ROLE_PARAM = re.compile(r"messages[.\[](?P<index>\d+)\]?\.role")
_ALTERNATE = re.compile(
    r"(?:roles?|messages?|conversation)\b.{0,80}alternat|alternat\w* .{0,60}(?:roles?|user|messages?)|"
    r"(?:consecutive|two|successive) .{0,40}(?:messages|roles?)|first message .{0,60}user"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """How requests to one model are changed before they are sent."""

    left_out: frozenset[str] = frozenset()
    """Parameters that are not sent."""
    limit: str = ""
    """What the bound on an answer's tokens is called; empty leaves the name as it is."""
    instructs_as: str = ""
    """`system`: the developer's role is called that. `user`: instructions stand in the user's first message."""
    alternates: bool = False
    """True: messages of one role after the other are joined, and the first is the user's."""

    def applied(self, body: Mapping[str, Any]) -> Json:
        """Return the body as it is sent."""
        fitting = {name: value for name, value in body.items() if name not in self.left_out}
        if self.limit:
            for name in LIMITS:
                if name != self.limit and name in fitting:
                    bound = fitting.pop(name)
                    fitting.setdefault(self.limit, bound)
        messages = fitting.get("messages")
        if isinstance(messages, list) and (self.instructs_as or self.alternates):
            fitting["messages"] = self._messages(messages)
        return fitting

    def _messages(self, messages: Sequence[Json]) -> list[Json]:
        if self.instructs_as == "system":
            messages = [{**one, "role": "system"} if one.get("role") == "developer" else one for one in messages]
        if self.instructs_as == "user":
            messages = [{**one, "role": "user"} if _instructs(one) else one for one in messages]
        if not self.alternates:
            return joined(messages) if self.instructs_as == "user" else list(messages)
        first = next((index for index, one in enumerate(messages) if not _instructs(one)), len(messages))
        rest = [{**one, "role": "user"} if _instructs(one) else one for one in messages[first:]]
        if rest and rest[0].get("role") != "user":
            rest.insert(0, {"role": "user", "content": "…"})
        return joined([*messages[:first], *rest])

    def learning(self, report: Report, sent: Mapping[str, Any]) -> "Fit | None":
        """Return what fits better, by a server's refusal of what was sent; None where it names nothing of that."""
        if report.status not in _REFUSALS:
            return None
        learnt = self._learning_of_messages(report, sent)
        if learnt is None and (name := _refused_name(report, sent)) is not None:
            if name in LIMITS:
                learnt = replace(self, limit=next(other for other in LIMITS if other != name))
            elif name not in _KEPT:
                learnt = replace(self, left_out=self.left_out | {name})
        return None if learnt == self else learnt

    def _learning_of_messages(self, report: Report, sent: Mapping[str, Any]) -> "Fit | None":
        messages = sent.get("messages")
        if not isinstance(messages, list):
            return None
        roles = {one.get("role") for one in messages if isinstance(one, dict)}
        for param in report.params:
            at = _ROLE_PARAM.search(param)
            if at and int(at["index"]) < len(messages) and _instructs(messages[int(at["index"])]):
                return self._without(str(messages[int(at["index"])]["role"]), roles)
        if _ALTERNATE.search(report.text):
            return replace(self, alternates=True)
        found = _ROLE.search(report.text) if _REFUSED.search(report.text) else None
        if found is None:
            return None
        named = found["first"] or found["second"]
        return self._without(named if named in roles else "system", roles)

    def _without(self, role: str, roles: set[Any]) -> "Fit | None":
        if role not in roles:
            return None
        return replace(self, instructs_as="system" if role == "developer" else "user")


class ProviderRequests:
    """Asks the provider. What its models refuse is learnt once per model, for as long as the process lasts."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self._fits: dict[str, Fit] = {}
        self._thinks_first: set[str] = set()
        """The models whose text begins with thinking that no tag begins."""

    async def answer(
        self,
        body: Mapping[str, Any],
        *,
        stall_seconds: float,
        reader: AnswerReader | None = None,
        text: str | None = None,
        patience: openai.Timeout | None = None,
    ) -> AsyncGenerator[Part, None]:
        """Yield the parts of the answer to a request; see provider_stream.parts_of.

        text: the same request letter by letter, sent in place of the body where nothing of it is to be changed.
        patience: for the connection, where it is not the client's own.
        Raises the client's errors; a refusal only when nothing that it names could be left out or said otherwise.
        """
        reader = reader or AnswerReader()
        model = str(body.get("model"))
        if model in self._thinks_first:
            reader.expect_thinking()
        for further_try in range(MAX_FURTHER_TRIES + 1):
            fit = self._fits.get(model)
            sent = body if fit is None else fit.applied(body)
            try:
                response = await self._post(sent, text if fit is None else None, patience)
                async with contextlib.aclosing(parts_of(response, stall_seconds=stall_seconds, reader=reader)) as parts:
                    async for part in parts:
                        yield part
            except openai.APIError as error:
                # Some servers refuse in an answer that begins as if all were well.
                is_final = further_try == MAX_FURTHER_TRIES or not reader.is_empty
                if is_final or not self._has_learnt(error, body, sent):
                    raise
            else:
                return
            finally:
                self._note_thinking(model, reader)

    def _note_thinking(self, model: str, reader: AnswerReader) -> None:
        if reader.thinks_first:
            self._thinks_first.add(model)
        elif reader.thinks_first is False:
            self._thinks_first.discard(model)

    def _has_learnt(self, error: openai.APIError, body: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
        model = str(body.get("model"))
        learnt = self._fits.get(model, Fit()).learning(report_of(error), sent)
        if learnt is None or learnt.applied(body) == sent:
            return False
        _LOG.info("model.request_fitted", **_noted(learnt))
        self._fits[model] = learnt
        return True

    async def _post(
        self, body: Mapping[str, Any], text: str | None, patience: openai.Timeout | None
    ) -> httpx2.Response:
        content: dict[str, Any] = {"body": body} if text is None else {"content": text.encode()}
        response: Any = await self._client.post(
            PATH,
            **content,
            cast_to=httpx2.Response,
            options={} if patience is None else {"timeout": patience},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        found: httpx2.Response = response
        return found


def joined(messages: Sequence[Json]) -> list[Json]:
    """Return the messages with those of one speaker that follow each other made one; calls of tools stay apart.

    Many servers insist that user and assistant take turns, and an answer that failed leaves its question alone.
    """
    made: list[Json] = []
    for message in messages:
        last = made[-1] if made else None
        if last is not None and _is_plain(last) and _is_plain(message) and _speaker(last) == _speaker(message):
            made[-1] = {**last, "content": _together(last["content"], message["content"])}
        else:
            made.append(message)
    return made


def _speaker(message: Json) -> tuple[Any, Any]:
    return message["role"], message.get("name")


def _is_plain(message: Json) -> bool:
    return message.keys() <= {"role", "content", "name"} and isinstance(message.get("content"), str | list)


def _together(first: str | list[Any], second: str | list[Any]) -> str | list[Any]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}" if first and second else first or second
    return [*_blocks(first), *_blocks(second)]


def _blocks(content: str | list[Any]) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _instructs(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _refused_name(report: Report, sent: Mapping[str, Any]) -> str | None:
    """Return the parameter of the request that a server does not know or take at all."""
    if not _REFUSED.search(report.text):
        return None
    for param in report.params:
        name = re.split(r"[.\[]", param, maxsplit=1)[0]
        if name in sent:
            return name
    found = [
        (match.start(), name)
        for name in sent
        if (match := re.search(rf"(?<![\w]){re.escape(name.lower())}(?![\w])", report.text))
        and _is_meant(name, match, report)
    ]
    return min(found)[1] if found else None


def _is_meant(name: str, match: re.Match[str], report: Report) -> bool:
    # Words that sentences have for their own sake count only as a name in quotes.
    if "_" in name:
        return True
    quotes = report.text[max(0, match.start() - 1) : match.start()], report.text[match.end() : match.end() + 1]
    return quotes[0] in ("'", '"', "`") or (
        name not in ("model", "messages", "user", "stream", "tools", "stop", "n", "store")
    )


def _noted(fit: Fit) -> dict[str, Any]:
    # The model's name may be anything; parameters may come from a client.
    known = sorted(name for name in fit.left_out if re.fullmatch(r"[a-z_]{1,64}", name))
    return {
        "left_out": known,
        "limit": fit.limit or None,
        "instructs_as": fit.instructs_as or None,
        "alternates": fit.alternates,
    }
