"""LiteLLM, with Concerto as an OpenAI-compatible server."""

import litellm
from features import SETTINGS, feature, run

litellm.telemetry = False
litellm.num_retries = 0
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def ask(model: str = "test-model", messages: object = HELLO, **options: object) -> object:
    """Ask a model of the gateway."""
    return litellm.completion(
        model=f"openai/{model}",
        messages=messages,
        api_base=f"{SETTINGS['CONCERTO_URL']}/v1",
        api_key=SETTINGS["CONCERTO_TOKEN"],
        **options,
    )


@feature("chat")
def _() -> None:
    answer = ask()
    assert answer.choices[0].message.content.startswith("You said: Hello"), answer
    assert answer.usage.completion_tokens > 0


@feature("stream")
def _() -> None:
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
    assert text.startswith("You said: Hello"), text


@feature("tools, and their results")
def _() -> None:
    message = ask(tools=[TOOL]).choices[0].message
    assert message.tool_calls[0].function.name == "look", message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "empty"}
    assert ask(messages=[*HELLO, message.model_dump(), result], tools=[TOOL]).choices[0].message.content


@feature("completions of the older API")
def _() -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/test-model",
        prompt="Hello",
        api_base=f"{SETTINGS['CONCERTO_URL']}/v1",
        api_key=SETTINGS["CONCERTO_TOKEN"],
    )
    assert answer.choices[0].text.startswith("You said: Hello"), answer


@feature("errors are those that it knows")
def _() -> None:
    for fault, kind in (("rate_limited", litellm.RateLimitError), ("too_long", litellm.ContextWindowExceededError)):
        raised = None
        try:
            ask(f"fault:{fault}")
        except kind as error:
            raised = error
        assert raised is not None, fault


run()
