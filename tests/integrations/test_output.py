"""What models and tools make is shown whatever it is: a stand-in where it cannot be, never an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from examples.fake_openai import MODEL, FakeOpenAI, Tool, Turn
from openai import AsyncOpenAI

from tests.integrations.support import events_of, messages, under
from tests.support import Served
from wakeline.integrations.openai import publish_chat
from wakeline.integrations.output import ModelOutput, ToolCall, Topics
from wakeline.publisher import SessionPublisher


class Fails:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Weather(pydantic.BaseModel):
    city: str
    within: Any = None


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    return value


def numbers() -> Iterator[int]:
    yield from range(1_000_000)


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (cycle(), {"a": 1, "self": "… (itself)"}),
        (Fails(), "<Fails>"),
        ([Fails(), Weather(city="Bern\ud83d")], ["<Fails>", {"city": "Bern\ufffd", "within": None}]),
        ("x" * 2_000_000, "… (too large)"),
        ("[" * 50_000, "[" * 50_000),
        ("\ud83d", "\ufffd"),
        ('{"half": "\\ud83d"}', {"half": "\ufffd"}),
    ],
    ids=["cycle", "no words", "model", "large", "brackets", "half", "half in JSON"],
)
async def test_a_tool_may_have_any_arguments_and_results(served: Served, result: Any, shown: Any) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        output = ModelOutput(session, Topics())
        await output.call(ToolCall("call_1", "tool", result))
        await output.settle("call_1", "tool", result=result)
    called, returned = under(await events_of(served, "s"), "tool")
    assert called == {"id": "call_1", "name": "tool", "state": "called", "arguments": shown}
    assert (returned["state"], returned["result"]) == ("returned", shown)


async def test_a_model_that_holds_itself_and_a_generator_have_stand_ins(served: Served) -> None:
    model = Weather(city="Bern")
    model.within = model
    left = numbers()
    async with SessionPublisher(served.url, session="s") as session:
        output = ModelOutput(session, Topics())
        await output.settle("1", "tool", result=model)
        await output.settle("2", "tool", error=left)
    shown = under(await events_of(served, "s"), "tool")
    assert "Bern" in str(shown[0]["result"])
    assert "generator" in shown[1]["error"]
    assert next(left) == 0, "it was left to whom it is for"


async def test_names_of_any_length_are_the_same_for_the_same(served: Served) -> None:
    name = "é" * 2_000 + "\ud83d"
    async with SessionPublisher(served.url, session="s") as session:
        output = ModelOutput(session, Topics())
        await output.say(name, "a")
        await output.say(name, "b" * 160_000)
        await output.complete(name, "c" * 2_000_000)
        await output.call(ToolCall(name, "tool"))
        await output.settle(name, "tool", result=1)
        await output.step("", "node", "started")
    events = await events_of(served, "s")
    assert [(len(text), complete) for text, complete in messages(events).values()] == [(160_001, True)]
    first, second = [event["key"] for event in events if event["topic"] == "tool"]
    assert first == second
    assert [event["key"] for event in events if event["topic"] == "step"] == ["unnamed"]


async def test_half_an_emoji_and_deep_arguments_of_a_model(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    deep = "[" * 50_000
    fake.turns.append(Turn(text=["a\ud83d", "\ude00b", "c\ud83d"], tools=[Tool("call_1", "weather", [deep])]))
    async with SessionPublisher(served.url, session="chat") as session:
        stream = await openai.chat.completions.create(model=MODEL, messages=[], stream=True)
        answer = await publish_chat(stream, session)
    events = await events_of(served, "chat")
    assert answer.text == "a😀bc\ufffd"
    assert messages(events) == {answer.id: ("a😀bc\ufffd", True)}
    assert under(events, "tool")[0]["arguments"] == deep
