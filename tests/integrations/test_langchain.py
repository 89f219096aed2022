"""LangChain and LangGraph, as a session has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from examples.fake_openai import MODEL, FakeOpenAI, Tool, Turn
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import SecretStr

from tests.integrations.support import events_of, messages, under
from tests.support import Served
from wakeline.integrations.langchain import SessionCallbackHandler, Topics
from wakeline.publisher import SessionPublisher

WEATHER = Tool("call_1", "weather", ['{"city":', '"Bern"}'])


@tool
async def weather(city: str) -> str:
    """The weather of a city."""
    if city == "Atlantis":
        raise ValueError("there is no Atlantis")
    return f"sunny in {city}"


def model_of(fake: FakeOpenAI, *, streaming: bool = True) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL, base_url=fake.url, api_key=SecretStr("none"), max_retries=0, streaming=streaming, stream_usage=True
    )


def graph_of(fake: FakeOpenAI) -> Any:
    """Asks the model, runs what it calls, asks again."""
    model = model_of(fake).bind_tools([weather])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def done(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", done)
    graph.add_edge("tools", "ask")
    return graph.compile()


async def test_a_graph_tells_its_nodes_tools_tokens_and_usage(fake: FakeOpenAI, served: Served) -> None:
    fake.turns.extend([Turn(text=["I look."], tools=[WEATHER]), Turn(text=["It is ", "sunny."])])
    async with SessionPublisher(served.url, session="graph") as session:
        await graph_of(fake).ainvoke(
            {"messages": [HumanMessage("Weather?")]}, {"callbacks": [SessionCallbackHandler(session)]}
        )
    events = await events_of(served, "graph")
    assert [(step["name"], step["state"]) for step in under(events, "step")] == [
        ("LangGraph", "started"),
        ("ask", "started"),
        ("ask", "completed"),
        ("tools", "started"),
        ("tools", "completed"),
        ("ask", "started"),
        ("ask", "completed"),
        ("LangGraph", "completed"),
    ]
    assert list(messages(events).values()) == [("I look.", True), ("It is sunny.", True)]
    assert "It is " in under(events, "answer"), "token by token"
    called = {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}
    assert under(events, "tool") == [called, {**called, "state": "returned", "result": "sunny in Bern"}]
    assert [used["total_tokens"] for used in under(events, "usage")] == [10, 9]


async def test_a_chain_tells_its_steps_and_a_model_that_does_not_stream_its_text(
    fake: FakeOpenAI, served: Served
) -> None:
    fake.turns.append(Turn(text=["Hel", "lo"]))
    chain = ChatPromptTemplate.from_template("Say {what}") | model_of(fake, streaming=False)
    async with SessionPublisher(served.url, session="chain") as session:
        handler = SessionCallbackHandler(session, message="m", topics=Topics(usage=None))
        await chain.ainvoke({"what": "hello"}, {"callbacks": [handler]})
    events = await events_of(served, "chain")
    assert messages(events) == {"m": ("Hello", True)}
    assert under(events, "answer") == ["Hello", None]
    assert ("RunnableSequence", "completed") in [(step["name"], step["state"]) for step in under(events, "step")]


async def test_what_fails_is_told_and_still_fails(fake: FakeOpenAI, served: Served) -> None:
    async def fail(state: MessagesState) -> dict[str, Any]:
        raise ValueError("the node broke")

    graph = StateGraph(MessagesState)
    graph.add_node("fail", fail)
    graph.add_edge(START, "fail")
    async with SessionPublisher(served.url, session="fails") as session:
        handler = SessionCallbackHandler(session)
        with pytest.raises(ValueError, match="the node broke"):
            await graph.compile().ainvoke({"messages": []}, {"callbacks": [handler]})
        with pytest.raises(ValueError, match="Atlantis"):
            await weather.ainvoke({"city": "Atlantis"}, {"callbacks": [handler]})
    events = await events_of(served, "fails")
    failed = [(step["name"], step["error"]) for step in under(events, "step") if step["state"] == "failed"]
    assert failed == [("fail", "the node broke"), ("LangGraph", "the node broke")]
    assert under(events, "tool")[-1]["error"] == "there is no Atlantis"


async def test_what_cannot_be_published_fails_the_run(fake: FakeOpenAI, served: Served) -> None:
    fake.turns.append(Turn(text=["never said"]))
    async with SessionPublisher(served.url, session="over") as session:
        handler = SessionCallbackHandler(session)
    with pytest.raises(RuntimeError, match="open publisher"):
        await model_of(fake).ainvoke("?", {"callbacks": [handler]})


async def test_a_model_that_begins_anew_leaves_no_half_answer(fake: FakeOpenAI, served: Served) -> None:
    fake.turns.extend([Turn(text=["wrong ", "start"], cut=1), Turn(text=["right"])])
    chain = model_of(fake).with_retry(wait_exponential_jitter=False)
    async with SessionPublisher(served.url, session="anew") as session:
        await chain.ainvoke("?", {"callbacks": [SessionCallbackHandler(session, message="m")]})
    events = await events_of(served, "anew")
    assert [event["message"]["op"] for event in events if event["topic"] == "answer"] == ["text", "text", "set"]
    assert under(events, "answer")[-1] == "right"


async def test_it_is_for_ainvoke_and_says_so(
    fake: FakeOpenAI, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    fake.turns.append(Turn(text=["said"]))
    async with SessionPublisher(served.url, session="sync") as session:
        handler = SessionCallbackHandler(session)
        await asyncio.to_thread(model_of(fake).invoke, "?", {"callbacks": [handler]})
    # Of an async handler, LangChain's `invoke` only logs the errors.
    assert "use ainvoke or astream" in caplog.text
    assert await events_of(served, "sync") == []
