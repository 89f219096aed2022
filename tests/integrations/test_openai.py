"""Streams of OpenAI's API, read by OpenAI's own client, into a session."""

from __future__ import annotations

import asyncio

import pytest
from examples.fake_openai import MODEL, FakeOpenAI, Tool, Turn
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.integrations.support import events_of, messages, under
from tests.support import Served
from wakeline.integrations.openai import ModelFailedError, Topics, publish_chat, publish_response
from wakeline.publisher import SessionPublisher

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is durable execution?"}]
WEATHER = Tool("call_1", "weather", ['{"city": ', '"Bern"}'])
CALLED = {"id": "call_1", "name": "weather", "state": "called", "arguments": {"city": "Bern"}}


async def test_the_fake_speaks_as_openai_s_client_expects(fake: FakeOpenAI, openai: AsyncOpenAI) -> None:
    turn = Turn(text=["Hel", "lo"], tools=[WEATHER])
    fake.turns.extend([turn] * 4)
    completion = await openai.chat.completions.create(model=MODEL, messages=ASKED)
    assert completion.choices[0].message.content == "Hello"
    assert completion.choices[0].finish_reason == "tool_calls"
    async with openai.chat.completions.stream(model=MODEL, messages=ASKED) as chat:
        streamed = await chat.get_final_completion()
    said, called = streamed.choices[0].message.content, streamed.choices[0].message.tool_calls
    assert said == "Hello"
    assert called is not None
    assert (called[0].id, called[0].function.name, called[0].function.arguments) == (
        "call_1",
        "weather",
        '{"city": "Bern"}',
    )
    response = await openai.responses.create(model=MODEL, input="?")
    async with openai.responses.stream(model=MODEL, input="?") as events:
        whole = await events.get_final_response()
    assert whole.output_text == response.output_text == "Hello"
    assert (
        [item.type for item in whole.output] == [item.type for item in response.output] == ["message", "function_call"]
    )
    assert not fake.turns


async def test_a_chat_completion_grows_in_the_session(fake: FakeOpenAI, openai: AsyncOpenAI, served: Served) -> None:
    fake.turns.append(Turn(text=["Dur", "able", "."], tools=[WEATHER]))
    async with SessionPublisher(served.url, session="chat") as session:
        stream = await openai.chat.completions.create(
            model=MODEL, messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        answer = await publish_chat(stream, session)
    assert (answer.text, answer.finish_reason, answer.model) == ("Durable.", "tool_calls", MODEL)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("weather", '{"city": "Bern"}')]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    events = await events_of(served, "chat")
    assert under(events, "answer") == ["Dur", "able", ".", None]
    assert messages(events) == {answer.id: ("Durable.", True)}
    assert under(events, "tool") == [CALLED]
    used = {"id": answer.id, "model": MODEL, "input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    assert under(events, "usage") == [used]


async def test_a_response_grows_in_the_session(fake: FakeOpenAI, openai: AsyncOpenAI, served: Served) -> None:
    fake.turns.append(Turn(text=["Dur", "able", "."], tools=[WEATHER]))
    async with SessionPublisher(served.url, session="response") as session:
        stream = await openai.responses.create(model=MODEL, input="?", stream=True)
        response = await publish_response(stream, session, message="m1", topics=Topics(text="said", usage=None))
    assert response.output_text == "Durable."
    events = await events_of(served, "response")
    assert messages(events, "said") == {"m1": ("Durable.", True)}
    assert under(events, "tool") == [CALLED]
    assert [event["topic"] for event in events] == ["said", "said", "said", "said", "tool"]
    (tool,) = [event for event in events if event["topic"] == "tool"]
    assert tool["key"] == "call_1"


async def test_a_device_reads_while_the_model_still_speaks(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    more = asyncio.Event()
    fake.turns.append(Turn(text=["one ", "two"], hold={1: more}))
    async with SessionPublisher(served.url, session="live") as session:
        stream = await openai.responses.create(model=MODEL, input="?", stream=True)
        publishing = asyncio.create_task(publish_response(stream, session))
        device = await served.stream("live")
        assert (await asyncio.wait_for(device.next(), 60))["data"] == "one "
        assert not publishing.done()
        more.set()
        await asyncio.wait_for(publishing, 60)
        assert (await asyncio.wait_for(device.next(), 60))["data"] == "two"
        device.close()


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_refusal_is_what_the_model_says(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served, api: str
) -> None:
    fake.turns.append(Turn(refusal=["I ", "won't."]))
    async with SessionPublisher(served.url, session="refusal") as session:
        if api == "chat":
            chunks = await openai.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
            assert (await publish_chat(chunks, session)).text == "I won't."
        else:
            await publish_response(await openai.responses.create(model=MODEL, input="?", stream=True), session)
    assert list(messages(await events_of(served, "refusal")).values()) == [("I won't.", True)]


async def test_a_stream_that_is_cut_raises_and_its_message_stays_incomplete(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    fake.turns.append(Turn(text=["half ", "of it"], cut=1))
    async with SessionPublisher(served.url, session="cut") as session:
        stream = await openai.responses.create(model=MODEL, input="?", stream=True)
        with pytest.raises(APIConnectionError):
            await publish_response(stream, session, message="m")
    assert messages(await events_of(served, "cut")) == {"m": ("half ", False)}


async def test_a_response_that_failed_raises_with_the_model_s_own_words(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    fake.turns.append(Turn(text=["so "], failure=("server_error", "the model tripped")))
    async with SessionPublisher(served.url, session="failed") as session:
        stream = await openai.responses.create(model=MODEL, input="?", stream=True)
        with pytest.raises(ModelFailedError, match="the model tripped") as caught:
            await publish_response(stream, session)
    assert caught.value.code == "server_error"
    assert caught.value.response is not None


async def test_a_response_that_was_cut_off_by_a_limit_is_an_answer(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    fake.turns.append(Turn(text=["so far"], incomplete="max_output_tokens"))
    async with SessionPublisher(served.url, session="limit") as session:
        stream = await openai.responses.create(model=MODEL, input="?", stream=True)
        response = await publish_response(stream, session, message="m")
    assert response.status == "incomplete"
    assert messages(await events_of(served, "limit")) == {"m": ("so far", True)}


async def test_a_model_whose_reader_fails_is_hung_up_on(fake: FakeOpenAI, openai: AsyncOpenAI, served: Served) -> None:
    never = asyncio.Event()
    fake.turns.append(Turn(text=["a", "b", "c"], hold={2: never}))
    async with SessionPublisher(served.url, session="hung-up") as session:
        stream = await openai.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        publishing = asyncio.create_task(publish_chat(stream, session))
        device = await served.stream("hung-up")
        await asyncio.wait_for(device.take(2), 60)
        device.close()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
    async with asyncio.timeout(60):
        while not fake.gone:
            await asyncio.sleep(0.01)


async def test_a_request_that_is_refused_publishes_nothing(
    fake: FakeOpenAI, openai: AsyncOpenAI, served: Served
) -> None:
    fake.turns.append(Turn(error=(429, "slow down")))
    with pytest.raises(APIStatusError, match="slow down"):
        await openai.responses.create(model=MODEL, input="?", stream=True)
