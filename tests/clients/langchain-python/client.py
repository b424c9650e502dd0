"""LangChain for Python: its model of OpenAI, an agent with a tool, and the older completions."""

from features import SETTINGS, feature, run
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

OPTIONS = {
    "base_url": f"{SETTINGS['CONCERTO_URL']}/v1",
    "api_key": SETTINGS["CONCERTO_TOKEN"],
    "max_retries": 0,
}
model = ChatOpenAI(model="test-model", **OPTIONS)


@feature("chat")
def _() -> None:
    answer = model.invoke("Hello")
    assert answer.text.startswith("You said: Hello"), answer
    assert answer.usage_metadata is not None


@feature("stream")
async def _() -> None:
    pieces = [piece.text async for piece in model.astream("Hello")]
    assert len(pieces) > 2, pieces
    assert "".join(pieces).startswith("You said: Hello"), pieces


@feature("an agent with a tool")
def _() -> None:
    asked: list[str] = []

    @tool
    def look(path: str) -> str:
        """Look somewhere."""
        asked.append(path)
        return "empty"

    answer = create_agent(model, [look]).invoke({"messages": [{"role": "user", "content": "Look around"}]})
    assert asked == ["x"], asked
    assert answer["messages"][-1].text.startswith("You said"), answer


@feature("completions of the older API")
def _() -> None:
    assert OpenAI(model="test-model", **OPTIONS).invoke("Hello").startswith("You said: Hello")


@feature("errors are those that it knows")
def _() -> None:
    raised = None
    try:
        ChatOpenAI(model="fault:too_long", **OPTIONS).invoke("Hello")
    except ContextOverflowError as error:
        raised = error
    assert raised is not None


run()
