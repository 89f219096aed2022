"""Half an emoji (a lone surrogate) in a token, in arguments or in a page's JSON fails nothing that anybody shares."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pydantic
import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec

from tests.publishers import line
from tests.support import Served
from wakeline.client import SessionClient
from wakeline.errors import RequestInvalidError
from wakeline.publisher import SessionPublisher, SyncSessionPublisher
from wakeline.publisher.options import PublisherOptions
from wakeline.publisher.values import Values

HIGH, LOW, EMOJI, LOST = "\ud83d", "\ude00", "😀", "\ufffd"


async def data(served: Served, session: str = "s") -> list[Any]:
    _, page = await served.call("GET", f"/v1/sessions/{session}/events")
    return [event["data"] for event in page["events"] if not event["topic"].startswith("$")]


async def test_a_text_message_holds_a_half_until_the_other_one_follows(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        message = session.topic("answer", append="text").message("m")
        for piece in ("a" + HIGH, LOW + "b", HIGH, LOW, "c" + HIGH, "d", HIGH):
            await message.append(piece)
        await message.complete()
    assert await data(served) == ["a", EMOJI + "b", EMOJI, "c", LOST + "d", LOST, None]


async def test_a_half_that_is_held_at_the_end_is_replaced(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        text = session.topic("answer", append="text")
        await text.message("left").append("a" + HIGH)
        whole = text.message("whole")
        await whole.append(HIGH)
        await whole.complete("all of it")
    assert await data(served) == ["a", "all of it", LOST]


async def test_threads_have_it_held_too(served: Served) -> None:
    def speak() -> None:
        with SyncSessionPublisher(served.url, session="s") as session:
            message = session.topic("answer", append="text").message("m")
            for piece in ("a" + HIGH, LOW, HIGH):
                message.append(piece)

    await asyncio.to_thread(speak)
    assert await data(served) == ["a", EMOJI, LOST]


@dataclasses.dataclass
class Delta:
    text: str


class Struct(msgspec.Struct):
    text: str


class Model(pydantic.BaseModel):
    text: str


class Reversing(PayloadCodec):
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"reversed"}, data=one.SerializeToString()[::-1]) for one in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(one.data[::-1]) for one in payloads]


@pytest.mark.parametrize(
    "value", [{"text": HIGH}, Delta(HIGH), Struct(HIGH), Model(text=HIGH)], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("converter", [None, DataConverter.default, pydantic_data_converter])
def test_in_data_it_is_replaced(value: Any, converter: DataConverter | None) -> None:
    if converter is not pydantic_data_converter or not isinstance(value, Struct):  # which does not know it
        assert json.loads(Values(converter).write(value)[1]) == {"text": LOST}


async def test_in_names_in_lists_and_under_a_codec_too(served: Served) -> None:
    coded = DataConverter(payload_codec=Reversing())
    async with (
        SessionPublisher(served.url, session="s") as session,
        SessionPublisher(served.url, session="coded", data_converter=coded) as secret,
        SessionClient(served.url, data_converter=coded) as client,
    ):
        await session.topic("t").publish({HIGH: ["x" + LOW, {"y": HIGH + LOW}]})
        await session.topic("t").publish(Payload(metadata={"encoding": b"json/plain"}, data=rb'{"z":"\ud83d"}'))
        await session.topic("list", append="list").message("m").append(HIGH)
        await secret.topic("t").publish([HIGH])
        await secret.flush()
        assert (await anext(client.session("coded").events())).data == [LOST]
        await client.session("s").publish("t", {"w": LOW})
        await session.flush()
    shown = await data(served)
    assert sorted(shown, key=str) == sorted(
        [{LOST: ["x" + LOST, {"y": EMOJI}]}, {"z": LOST}, LOST, {"w": LOST}], key=str
    )


async def test_a_name_with_a_half_is_refused_before_it_is_taken(served: Served) -> None:
    names: tuple[PublisherOptions, ...] = ({"run": HIGH}, {"activity": HIGH}, {"workflow": HIGH}, {"publisher": HIGH})
    for wrong in names:
        with pytest.raises(RequestInvalidError, match=r"UTF-8|ASCII"):
            SessionPublisher(served.url, session="s", **wrong)
    async with SessionPublisher(served.url, session="s") as session:
        with pytest.raises(RequestInvalidError, match="not UTF-8"):
            await session.topic("t").publish(1, key=HIGH)
        await session.topic("t").publish(2)
    assert await data(served) == [2]


@pytest.mark.parametrize("how", ["json", "x-ndjson"])
async def test_over_http_it_is_taken(served: Served, how: str) -> None:
    """As a page's JSON.stringify writes it."""
    event = rb'{"topic":"t","data":{"a":"\ud83d","b":"\uD83D\uDE00","c":"\\ud83d"}}'
    body = event if how == "x-ndjson" else b'{"events":[' + event + b"]}"
    headers = {"Content-Type": f"application/{how}"}
    async with served.http.post("/v1/sessions/s/events", data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    assert await data(served) == [{"a": LOST, "b": EMOJI, "c": r"\ud83d"}]
    async with SessionClient(served.url) as client:
        assert (await anext(client.session("s").events())).data["a"] == LOST


async def test_on_a_socket_it_fails_no_channel_and_a_bad_frame_only_its_own(served: Served) -> None:
    async with line(served) as client:
        await client.open(1, publisher="a")
        await client.open(2, publisher="b")
        half = '{"type":"append","channel":1,"sequence":0,"events":[{"topic":"t","data":"' + "\\ud83d" + '"}]}'
        await client.socket.send_str(half)
        assert (await client.next("appended"))["channel"] == 1
        for bad in (r'"\x"', "[" * 5_000 + "]" * 5_000, '"\\ud83d", nonsense'):
            await client.open(1, publisher="a")
            begins = '{"type":"append","channel":1,"sequence":1,"events":[{"topic":"t","data":'
            await client.socket.send_str(begins + bad + "}]}")
            refused = await client.next("error")
            assert (refused["channel"], refused["error"]["code"]) == (1, "request_invalid")
        await client.append("goes on", channel=2)
        assert (await client.next("appended"))["channel"] == 2
    assert await data(served) == [LOST, "goes on"]


async def test_on_a_feed_it_ends_no_other_subscription(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": 1})
    async with served.http.ws_connect("/v1/feed") as feed:
        assert (await feed.receive_json())["type"] == "ready"
        await feed.send_str('{"type":"subscribe","session":"' + "\\ud83d" + '"}')
        assert (await feed.receive_json())["type"] in ("error", "subscribed")
        await feed.send_json({"type": "subscribe", "session": "s"})
        while (await feed.receive_json()).get("session") != "s":
            pass
