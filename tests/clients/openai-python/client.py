"""OpenAI's own client for Python."""

import openai
from features import SETTINGS, call, feature, run

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
client = openai.OpenAI(base_url=f"{SETTINGS['CONCERTO_URL']}/v1", api_key=SETTINGS["CONCERTO_TOKEN"], max_retries=0)


def new_session() -> str:
    """Return a new session in which exchanges are kept."""
    return str(call("POST", "/sessions", {})["id"])


@feature("models")
def _() -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "test-model", names
    assert client.models.retrieve("test-model").id == "test-model"


@feature("chat")
def _() -> None:
    answer = client.chat.completions.create(model="test-model", messages=HELLO)
    assert (answer.choices[0].message.content or "").startswith("You said: Hello"), answer
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@feature("stream, with what it used")
def _() -> None:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="test-model", messages=HELLO, stream=True, stream_options=options)
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.startswith("You said: Hello"), text
    assert chunks[-1].usage is not None


@feature("tools, and their results")
def _() -> None:
    first = client.chat.completions.create(model="test-model", messages=HELLO, tools=[TOOL])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls", first
    results = [{"role": "tool", "tool_call_id": call.id, "content": "empty"} for call in message.tool_calls or ()]
    second = client.chat.completions.create(model="test-model", messages=[*HELLO, message, *results], tools=[TOOL])
    assert second.choices[0].message.content, second


@feature("completions of the older API")
def _() -> None:
    whole = client.completions.create(model="test-model", prompt="Hello", max_tokens=50)
    assert whole.choices[0].text.startswith("You said: Hello"), whole
    stream = client.completions.create(model="test-model", prompt="Hello", stream=True)
    assert "".join(choice.text for chunk in stream for choice in chunk.choices) == whole.choices[0].text


@feature("a stream that is left")
def _() -> None:
    with client.chat.completions.create(model="fault:slow", messages=HELLO, stream=True) as stream:
        assert next(chunk for chunk in stream if chunk.choices[0].delta.content)


@feature("errors are those that it knows")
def _() -> None:
    for fault, kind in (("rate_limited", openai.RateLimitError), ("too_long", openai.BadRequestError)):
        try:
            client.chat.completions.create(model=f"fault:{fault}", messages=HELLO)
        except kind:
            continue
        raise AssertionError(f"{fault} raised nothing")
    try:
        client.with_options(api_key="no-token").models.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key raised nothing")


@feature("an idempotency key of its own kind")
def _() -> None:
    session = {"X-Session-Id": new_session()}

    def ask(content: str) -> str:
        headers = {**session, "Idempotency-Key": f"stainless-python-retry-{'x' * 200}"}
        messages = [{"role": "user", "content": content}]
        return str(client.chat.completions.create(model="test-model", messages=messages, extra_headers=headers))

    first = client.chat.completions.create(
        model="test-model", messages=HELLO, extra_headers={**session, "Idempotency-Key": "order 7"}
    )
    again = client.chat.completions.create(
        model="test-model", messages=HELLO, extra_headers={**session, "Idempotency-Key": "order 7"}
    )
    assert first.choices[0].message.content == again.choices[0].message.content
    ask("One")
    code = None
    try:
        ask("Two")
    except openai.ConflictError as error:
        code = error.code
    assert code == "request_id_reused", code


run()
