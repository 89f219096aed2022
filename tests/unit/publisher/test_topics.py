"""Topics and messages that grow, as they stand in a real gateway's log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tests.messages import after
from tests.support import Served
from wakeline.client import SessionClient
from wakeline.errors import AttemptFencedError, RequestInvalidError, SessionNameInvalidError, TopicInvalidError
from wakeline.publisher import MessageCompleteError, PublisherMisusedError, SessionPublisher, ValueRefusedError
from wakeline.streams import TopicTypeError


@dataclass
class Status:
    state: str


async def events(served: Served, session: str = "s") -> list[dict[str, Any]]:
    _, page = await served.call("GET", f"/v1/sessions/{session}/events")
    return [{key: value for key, value in event.items() if key not in ("time", "offset")} for event in page["events"]]


async def test_values_keys_and_messages_are_in_the_log(served: Served) -> None:
    async with SessionPublisher(served.url, session="s", run="r", activity="a", attempt=2, publisher="p") as session:
        await session.topic("status", type=Status).publish(Status("paid"))
        await session.topic("cell", keyed=True).publish(7, key="A1")
        await session.topic("cell").publish(8, key="A2")
        answer = session.topic("answer", append="text").message("m1")
        await answer.append("Hel")
        await answer.append("lo")
        await answer.complete()
        merged = session.topic("state", append="json-merge").message("m2")
        await merged.append({"a": 1})
        await merged.complete(final={"b": 2})
    whose = {"run": "r", "activity": "a", "attempt": 2}
    assert await events(served) == [
        {"topic": "status", "data": {"state": "paid"}, **whose},
        {"topic": "cell", "data": 7, "key": "A1", **whose},
        {"topic": "cell", "data": 8, "key": "A2", **whose},
        {"topic": "answer", "data": "Hel", "message": {"id": "m1", "op": "text"}, **whose},
        {"topic": "answer", "data": "lo", "message": {"id": "m1", "op": "text"}, **whose},
        {"topic": "answer", "data": None, "message": {"id": "m1", "op": "none", "complete": True}, **whose},
        {"topic": "state", "data": {"a": 1}, "message": {"id": "m2", "op": "json-merge"}, **whose},
        {"topic": "state", "data": {"b": 2}, "message": {"id": "m2", "op": "set", "complete": True}, **whose},
    ]


async def test_what_makes_no_sense_is_refused_and_takes_nothing(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        text = session.topic("answer", append="text")
        with pytest.raises(ValueRefusedError, match="expected str"):
            await text.message("m").append({"no": "text"})
        with pytest.raises(ValueRefusedError, match="expected a list"):
            await session.topic("items", append="list").message("m").complete("no list")
        with pytest.raises(RequestInvalidError, match="use message"):
            await text.publish("x")
        with pytest.raises(RequestInvalidError, match="use message"):
            await text.publish("x", key="k")
        with pytest.raises(RequestInvalidError, match="made with append"):
            session.topic("plain").message("m")
        with pytest.raises(RequestInvalidError, match="expected a key"):
            await session.topic("cell", keyed=True).publish(1)
        with pytest.raises(RequestInvalidError, match="1 to 256 bytes"):
            await session.topic("cell", keyed=True).publish(1, key="")
        with pytest.raises(RequestInvalidError, match="1 to 256 bytes"):
            text.message("x" * 257)
        with pytest.raises(RequestInvalidError, match="got 'json'"):
            session.topic("x", append="json")  # type: ignore[call-overload] # what is wrong is meant
        with pytest.raises(RequestInvalidError, match="got both"):
            session.topic("x", append="list", keyed=True)
        for name in ("", "$own", "a,b"):
            with pytest.raises(TopicInvalidError):
                session.topic(name)
        session.topic("typed", type=Status)
        with pytest.raises(TopicTypeError):
            session.topic("typed", type=int)
        await session.flush()
        assert session.acknowledged == 0


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"in": inner}
    return inner


async def test_merges_go_as_deep_as_data_may_be_on_every_side(served: Served) -> None:
    patches = [nested(127, {"x": 1, "y": 1}), nested(127, {"x": None, "z": 2}), nested(126, {"beside": 1})]
    value: Any = None
    async with SessionPublisher(served.url, session="s") as session:
        message = session.topic("state", append="json-merge").message("m")
        for patch in patches[:2]:
            await message.append(patch)
            value = after(value, "json-merge", patch)
        with pytest.raises(ValueRefusedError, match="at most 128 levels"):
            await message.append(nested(128, {}))
        with pytest.raises(ValueRefusedError, match="at most 128 levels"):
            await session.topic("t").publish(nested(900, 1))
        await message.append(patches[2])
        value = after(value, "json-merge", patches[2])
    _, page = await served.call("GET", "/v1/sessions/s/events?view=compact")
    assert [event["data"] for event in page["events"] if event["topic"] == "state"] == [value]
    async with SessionClient(served.url) as client, client.session("s").view() as view:
        async with asyncio.timeout(60):
            while not view.messages:
                await anext(view)
        assert view.messages["state", "m"].value == value
    event = {"topic": "state", "data": nested(128, {}), "message": {"id": "m", "op": "json-merge"}}
    status, refused = await served.call("POST", "/v1/sessions/s/events", json={"events": [event]})
    assert (status, refused["error"]["code"]) == (400, "body_invalid")


async def test_nothing_is_added_to_a_message_that_is_complete(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        message = session.topic("answer", append="text").message("m1")
        await message.complete("all of it")
        for more in (message.append("x"), message.complete()):
            with pytest.raises(MessageCompleteError, match="'m1' of topic 'answer'"):
                await more
        await session.flush()
        assert session.acknowledged == 1


async def test_it_must_be_open(served: Served) -> None:
    session = SessionPublisher(served.url, session="s")
    topic = session.topic("t")
    with pytest.raises(PublisherMisusedError, match="async with"):
        await topic.publish(1)
    with pytest.raises(PublisherMisusedError, match="async with"):
        await session.flush()
    async with session:
        await topic.publish(1)
        with pytest.raises(PublisherMisusedError, match="not open yet"):
            await session.__aenter__()
    with pytest.raises(PublisherMisusedError, match="async with"):
        await topic.publish(2)
    await session.aclose()
    async with session:  # and goes on where it was
        await topic.publish(2)
    assert [event["data"] for event in await events(served)] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": 0},
        {"max_batch": 0},
        {"max_buffer": 0},
        {"when_full": "drop"},
        {"on_unavailable": "wait"},
        {"on_unavailable": "spool"},
        {"spool": "file"},
        {"on_unavailable": "workflow"},
        {"url": "ftp://gateway"},
    ],
    ids=str,
)
async def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalidError):
        async with SessionPublisher(**{"session": "s", **wrong}):
            pytest.fail("it opened")


def test_a_session_must_have_a_name_that_one_can_have() -> None:
    with pytest.raises(SessionNameInvalidError):
        SessionPublisher(session="")


async def test_a_later_attempt_supersedes_an_earlier_one_and_shuts_it_out(served: Served) -> None:
    first = SessionPublisher(served.url, session="s", publisher="p", activity="a", attempt=1)
    await first.__aenter__()
    await first.topic("t").publish("stale")
    await first.flush()
    async with SessionPublisher(served.url, session="s", publisher="p", activity="a", attempt=2) as second:
        await second.topic("t").publish("fresh")
        await second.flush()
        await first.topic("t").publish("zombie")
        with pytest.raises(AttemptFencedError) as caught:
            await first.aclose()
    assert caught.value.attempt == 2
    assert [(e["topic"], e["data"]) for e in await events(served)] == [
        ("t", "stale"),
        ("$attempt.superseded", {"activity": "a", "attempt": 2, "offsets": [[0, 0]]}),
        ("t", "fresh"),
    ]
