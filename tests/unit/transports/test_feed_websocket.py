"""The feed over WebSocket: what each frame is answered with, and in which order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.feeds import feed
from tests.support import Served, close, publish
from tests.unit.conftest import Serve
from wakeline.errors import StorageFailedError
from wakeline.events import RUN_STARTED, SESSION_SETTLED
from wakeline.gateway import stores
from wakeline.gateway.app import gateway
from wakeline.gateway.delivery import Lane
from wakeline.gateway.log import Page
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import feed_frames, subscription


def events(*data: object, topic: str = "t") -> list[dict[str, object]]:
    return [{"topic": topic, "data": d} for d in data]


async def test_sessions_come_on_one_connection_replayed_and_live(served: Served) -> None:
    await served.publish("a", *events(0, 1))
    await served.publish("b", *events(10))
    async with feed(served) as client:
        a = await client.subscribe("a")
        assert a == {"type": "subscribed", "session": "a", "cursor": f"{a['epoch']}-0", "epoch": a["epoch"]}
        frame = await client.next("events")
        assert (frame["session"], [e["data"] for e in frame["events"]]) == ("a", [0, 1])
        assert frame["cursor"] == f"{a['epoch']}-2"
        b = await client.subscribe("b", from_="now")
        assert b["cursor"] == f"{b['epoch']}-1"
        await served.publish("b", *events(11))
        await served.publish("a", *events(2))
        assert [(f["session"], f["events"][0]["data"]) for f in [await client.next("events") for _ in "ba"]] == [
            ("b", 11),
            ("a", 2),
        ]


async def test_ready_is_the_first_frame_and_says_nothing_of_an_end_where_nobody_is_asked(served: Served) -> None:
    async with feed(served, ready=False) as client:
        assert await client.next() == {"type": "ready"}


async def test_it_is_not_compressed_even_if_the_client_offers(served: Served) -> None:
    async with feed(served, compress=15) as client:
        assert not client.socket.compress


@pytest.mark.parametrize(("start", "first"), [("beginning", 0), ("now", None), ("tail:2", 3), ("{epoch}-4", 4)])
async def test_from_has_the_forms_of_a_read(served: Served, start: str, first: int | None) -> None:
    answer = await served.publish("s", *events(*range(5)))
    async with feed(served) as client:
        subscribed = await client.subscribe("s", from_=start.format(epoch=answer["epoch"]))
        await served.publish("s", *events(5))
        assert (await client.next("events"))["events"][0]["data"] == (5 if first is None else first)
        assert subscribed["cursor"] == f"{answer['epoch']}-{5 if first is None else first}"


async def test_topics_filter_replay_and_live(served: Served) -> None:
    await served.publish("s", *events(0, topic="a"), *events(1, topic="b"))
    async with feed(served) as client:
        await client.subscribe("s", topics=["b", "c*"])
        assert [e["data"] for e in await client.events(1)] == [1]
        await served.publish("s", *events(2, topic="a"))
        await served.publish("s", *events(3, topic="cc"))
        assert [e["data"] for e in await client.events(1)] == [3]


async def test_nothing_of_a_session_comes_after_unsubscribed(served: Served) -> None:
    await served.publish("s", *events(0))
    async with feed(served) as client:
        await client.subscribe("s")
        await client.events(1)
        await client.send("unsubscribe", "s")
        unsubscribed = await client.next("unsubscribed")
        await served.publish("s", *events(1))
        await client.send("ping", data="still there")
        assert await client.next() == {"type": "pong", "data": "still there"}
        await client.subscribe("s", from_=unsubscribed["cursor"])
        assert [e["data"] for e in await client.events(1)] == [1]


async def test_the_cursor_of_unsubscribed_is_past_what_no_topic_matched(served: Served) -> None:
    answer = await served.publish("s", *events(0, 1, 2, topic="a"))
    async with feed(served) as client:
        await client.subscribe("s", topics=["b"])
        while not (await served.call("GET", "/v1/sessions/s"))[1]["devices"]:
            await asyncio.sleep(0.01)
        await client.send("unsubscribe", "s")
        assert (await client.next("unsubscribed"))["cursor"] == f"{answer['epoch']}-3"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """The engine of the gateway that is started next, so that a test can do what no publisher may."""
    engine = MemoryEngine()
    monkeypatch.setattr(stores, "engine_of", lambda _: engine)
    return engine


async def test_a_session_that_is_settled_ends_where_that_was_asked(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    answer = await publish(engine, "s", 0, topic=RUN_STARTED)
    async with feed(served) as client, feed(served) as other:
        await client.subscribe("s", until="settled")
        await other.subscribe("s")
        await client.events(1)
        await publish(engine, "s", 1, topic=SESSION_SETTLED)
        await client.events(1)
        end = await client.next("end")
        assert end == {"type": "end", "session": "s", "cursor": f"{answer.epoch}-2", "reason": "settled"}
        await publish(engine, "s", 2)
        await other.events(3)
        await client.send("ping")
        await client.next("pong")  # nothing of it after the end; and it may be subscribed anew
        await client.subscribe("s", from_=end["cursor"])
        await client.events(1)


async def test_a_session_that_is_closed_or_deleted_ends(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    answer = await publish(engine, "s", 0)
    async with feed(served) as client:
        await client.subscribe("s")
        await client.events(1)
        await close(engine, "s")
        end = await client.next("end")
        assert end == {"type": "end", "session": "s", "cursor": f"{answer.epoch}-1", "reason": "closed"}
        await client.subscribe("s", from_=end["cursor"])
        assert (await client.next("end"))["reason"] == "closed"
        await publish(engine, "t", 0)
        subscribed = await client.subscribe("t")
        await client.events(1)
        await engine.delete_session("t")
        assert await client.next("end") == {
            "type": "end",
            "session": "t",
            "cursor": f"{subscribed['epoch']}-1",
            "reason": "deleted",
        }
        await client.send("subscribe", "t")
        assert await client.error() == "session_not_found"
        await publish(engine, "t", 0)
        await client.send("subscribe", "t", from_=f"{subscribed['epoch']}-1")
        assert await client.error() == "epoch_changed"


async def test_a_store_that_fails_ends_the_subscription_and_not_the_feed(
    engine: MemoryEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()
    await publish(engine, "s", 0)
    await publish(engine, "t", 0)
    real, fails = engine.read, False

    async def read(session: str, offset: int, **how: Any) -> Page:
        if session == "s" and fails and how["before"] > offset:
            raise StorageFailedError("the disk is gone")
        return await real(session, offset, **how)

    monkeypatch.setattr(engine, "read", read)
    async with feed(served) as client:
        await client.subscribe("t")
        await client.events(1)
        fails = True
        subscribed = await client.subscribe("s")
        assert await client.error() == "storage_failed"
        assert await client.next() == {
            "type": "end",
            "session": "s",
            "cursor": subscribed["cursor"],
            "reason": "error",
        }
        await publish(engine, "t", 1)
        await client.events(1)
        fails = False
        await client.subscribe("s", from_=subscribed["cursor"])
        await client.events(1)


@pytest.mark.parametrize("query", ["", "?device=phone"])
async def test_a_client_without_a_device_cannot_acknowledge(served: Served, query: str) -> None:
    answer = await served.publish("s", *events(0, 1))
    async with feed(served, query) as client:
        await client.send("ack", "s", seen=f"{answer['epoch']}-1")
        if not query:
            assert await client.error() == "request_invalid"
        else:
            assert await client.next() == {"type": "acked", "session": "s", "seen": f"{answer['epoch']}-1"}


async def test_what_a_device_has_seen_is_where_it_begins(served: Served) -> None:
    answer = await served.publish("s", *events(0, 1, 2))
    async with feed(served, "?device=phone") as client:
        await client.subscribe("s", from_="device")
        await client.events(3)
        await client.send("ack", "s", seen=f"{answer['epoch']}-2")
        await client.next("acked")
    async with feed(served, "?device=phone") as client:
        assert (await client.subscribe("s", from_="device"))["cursor"] == f"{answer['epoch']}-2"
        assert [e["data"] for e in await client.events(1)] == [2]
    async with feed(served) as client:
        await client.send("subscribe", "s", from_="device")
        assert await client.error() == "request_invalid"


async def test_many_acknowledgements_at_once_are_all_answered(served: Served) -> None:
    answer = await served.publish("s", *events(*range(100)))
    async with feed(served, "?device=phone") as client:
        for n in range(1, 101):
            await client.send("ack", "s", seen=f"{answer['epoch']}-{n}")
        acked = [await client.next("acked") for _ in range(100)]
    assert max(int(frame["seen"].partition("-")[2]) for frame in acked) == 100


async def test_delivered_follows_what_was_written(served: Served) -> None:
    answer = await served.publish("s", *events(0, 1))
    async with feed(served, "?device=phone") as client:
        await client.subscribe("s")
        await client.events(2)
        await served.publish("s", *events(2))
        await client.events(1)
    async with asyncio.timeout(60):
        while True:
            _, found = await served.call("GET", "/v1/sessions/s/devices")
            (device,) = found["devices"]
            if not device["connected"]:
                break
            await asyncio.sleep(0.01)
    assert (device["device"], device["delivered"], device["lag"]) == ("phone", f"{answer['epoch']}-3", 3)


async def test_presence_tells_who_comes_and_goes(served: Served) -> None:
    await served.publish("s", *events(0))
    async with feed(served, "?device=desk") as desk:
        await desk.subscribe("s", from_="now", presence=True)
        assert await desk.next() == {"type": "presence", "session": "s", "event": "join", "user": "", "device": "desk"}
        async with feed(served, "?device=phone") as phone:
            await phone.subscribe("s", from_="now")
            assert (await desk.next("presence"))["event"] == "join"
        left = await desk.next("presence")
        assert (left["event"], left["device"]) == ("leave", "phone")
        await desk.send("unsubscribe", "s")
        await desk.next("unsubscribed")
        async with feed(served, "?device=phone") as phone:
            await phone.subscribe("s", from_="now")
        await desk.send("ping")
        await desk.next("pong")


async def test_events_are_encoded_once_for_all_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = feed_frames.events

    def counting(session: str, epoch: str, stretch: Any) -> bytes:
        calls.append(len(stretch))
        return real(session, epoch, stretch)

    monkeypatch.setattr(subscription, "_EVERYTHING", Lane(counting, b""))
    await served.publish("s", *events(0))
    opened = [await served.http.ws_connect("/v1/feed") for _ in range(50)]
    for socket in opened:
        await socket.receive()
        await socket.send_json({"type": "subscribe", "session": "s", "from": "now"})
        await socket.receive()
    assert calls == []
    await served.publish("s", *events(1, 2))
    texts = {(await socket.receive_str()) for socket in opened}
    assert (calls, len(texts)) == ([2], 1)
    for socket in opened:
        await socket.close()


async def test_a_thousand_subscriptions_on_one_connection(engine: MemoryEngine, serve: Serve) -> None:
    served = await serve()
    for n in range(1000):
        await publish(engine, f"s{n}", n)
    async with feed(served) as client:
        for n in range(1000):
            await client.send("subscribe", f"s{n}")
        got: dict[str, list[object]] = {}
        for _ in range(2000):
            frame = await client.next()
            if frame["type"] == "events":
                got.setdefault(frame["session"], []).extend(e["data"] for e in frame["events"])
        await client.send("subscribe", "one more")
        assert await client.error() == "limit_reached"
        for n in range(1000):
            await publish(engine, f"s{n}", n + 1)
        for _ in range(1000):
            frame = await client.next("events")
            got[frame["session"]] += [e["data"] for e in frame["events"]]
    assert got == {f"s{n}": [n, n + 1] for n in range(1000)}


async def test_the_gateway_that_stops_says_so() -> None:
    async with aiohttp.ClientSession() as device:  # which outlives the gateway
        async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as served:
            await served.publish("s", *events(0))
            opened = await device.ws_connect(f"{url}/v1/feed")
            await opened.send_json({"type": "subscribe", "session": "s"})
            messages = [json.loads((await opened.receive()).data)["type"] for _ in range(3)]
            assert messages == ["ready", "subscribed", "events"]
            closing = asyncio.ensure_future(opened.receive())
            stopped = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopped < 30
        assert (await closing).type is aiohttp.WSMsgType.CLOSE
        assert opened.close_code == 1012
        await opened.close()
