"""A graph of LangGraph, its nodes and its model's tokens watched. Run it by `python -m examples.langgraph`."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import SecretStr

from examples.fake_openai import Turn
from examples.live import Live, LiveExample, main
from wakeline.integrations.langchain import SessionCallbackHandler
from wakeline.publisher import SessionPublisher

SCRIPT = [Turn(text=["Roses ", "are red."]), Turn(text=["Rosen ", "sind rot."])]
EXPECTED = """
[step] LangGraph started
[step] write started
[answer] "Roses "
[answer] "are red."
[answer] complete
[step] write completed
[step] translate started
[answer] "Rosen "
[answer] "sind rot."
[answer] complete
[step] translate completed
[step] LangGraph completed
the graph: Rosen sind rot.
"""


def graph_of(model: ChatOpenAI) -> Any:
    """A node that writes, and one that translates what it wrote."""

    async def write(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def translate(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([*state["messages"], HumanMessage("In German, please.")])]}

    graph = StateGraph(MessagesState)
    graph.add_node("write", write)
    graph.add_node("translate", translate)
    graph.add_edge(START, "write")
    graph.add_edge("write", "translate")
    return graph.compile()


async def play(live: Live) -> None:
    """Have a line written and translated."""
    base_url, key = str(live.openai.base_url), SecretStr(live.openai.api_key)
    graph = graph_of(ChatOpenAI(model=live.model, base_url=base_url, api_key=key, streaming=True))
    async with live.watched("graph", ["answer", "step"]), SessionPublisher(live.url, session="graph") as session:
        asked = {"messages": [HumanMessage("A line about roses.")]}
        final = await graph.ainvoke(asked, {"callbacks": [SessionCallbackHandler(session)]})
    live.show("the graph:", final["messages"][-1].text)


EXAMPLE = LiveExample("langgraph", play, SCRIPT, EXPECTED)

if __name__ == "__main__":
    main(EXAMPLE)
