from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from services.orchestrator.models.window import count_message, count_text, trim


def call(name: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": name, "type": "tool_call"}])


def test_texts_without_spaces_count_a_token_per_character_and_english_about_one_per_word() -> None:
    assert 10 <= count_text("The quick brown fox jumps over the lazy dog.") <= 16
    assert 6 <= count_text("今天天气很好，我们去散步吧。") <= 16
    assert count_text("") == 1


def test_tool_calls_and_blocks_are_counted() -> None:
    assert count_message(call("one")) > count_message(AIMessage(""))
    assert count_message(HumanMessage([{"type": "text", "text": "word " * 100}])) > 100


def test_newest_messages_are_kept_and_begin_with_a_users() -> None:
    messages: list[BaseMessage] = []
    for index in range(10):
        messages += [HumanMessage(f"question {index} " * 5), AIMessage(f"answer {index} " * 5)]
    kept = trim(messages, 200)
    assert kept
    assert kept == messages[-len(kept) :]
    assert isinstance(kept[0], HumanMessage)
    assert sum(count_message(message) for message in kept) <= 200


def test_all_is_kept_when_all_fits() -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hi")]
    assert trim(messages, 10_000) == messages
    assert trim([], 10) == []
    assert trim(messages, 0) == []


def test_calls_and_results_stay_together() -> None:
    exchange = [HumanMessage("Rain?"), call("one"), ToolMessage("Yes", tool_call_id="one"), AIMessage("It will.")]
    assert trim(exchange, 10_000) == exchange


def test_loose_ends_that_a_provider_would_refuse_are_left_out() -> None:
    messages = [
        HumanMessage("Rain?"),
        ToolMessage("Nobody asked", tool_call_id="zero"),
        call("never answered"),
        AIMessage(""),
        HumanMessage("Well?"),
    ]
    assert trim(messages, 10_000) == [messages[0], messages[-1]]
