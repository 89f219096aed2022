"""A stream that says whose device it is: positions, `from=device`, and who comes and goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support import Served, Stream
from tests.unit.conftest import on_disk

TWO_GATEWAYS = True

PATH = "/v1/sessions/s"


async def frame(stream: Stream) -> dict[str, str]:
    """The next frame that is not a comment alone."""
    while True:
        lines = await stream.lines()
        assert lines, "expected a frame, the stream ended"
        fields = dict(line.decode().split(": ", 1) for line in lines if not line.startswith(b":"))
        if fields:
            return fields


async def presence(stream: Stream) -> dict[str, Any]:
    """The next that tells who comes or goes."""
    while True:
        fields = await asyncio.wait_for(frame(stream), 60)
        if fields.get("event") == "presence":
            assert "id" not in fields
            told: dict[str, Any] = json.loads(fields["data"])
            return told


def change(event: str, device: str) -> dict[str, str]:
    return {"session": "s", "event": event, "user": "", "device": device}


async def devices(served: Served) -> dict[str, Any]:
    _, body = await served.call("GET", f"{PATH}/devices")
    return {device["device"]: device for device in body["devices"]}


async def until(served: Served, device: str, **expected: Any) -> None:
    """Wait until a device is listed so: another gateway may take seconds to list it."""
    async with asyncio.timeout(60):
        while True:
            known = (await devices(served)).get(device, {})
            if {name: known.get(name) for name in expected} == expected:
                return
            await asyncio.sleep(0.05)


async def test_a_stream_tells_who_comes_and_goes(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": 1})
    phone = await served.stream("s", "device=phone")
    await phone.next()
    watcher = await served.stream("s", "presence=true&device=desk&from=now")
    assert sorted([(await presence(watcher))["device"], (await presence(watcher))["device"]]) == ["desk", "phone"]
    tab = await served.stream("s", "device=tab")
    assert await presence(watcher) == change("join", "tab")
    await served.publish("s", {"topic": "t", "data": 2})
    assert json.loads((await frame(watcher))["data"])["data"] == 2
    phone.close()
    assert await presence(watcher) == change("leave", "phone")
    second = await served.stream("s", "device=tab")
    await second.next()
    second.close()
    tab.close()
    assert await presence(watcher) == change("leave", "tab")
    watcher.close()


@on_disk
async def test_events_are_whole_and_in_order_beside_presence(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": 0})
    watcher = await served.stream("s", "presence=true")

    async def come_and_go(number: int) -> None:
        for _ in range(5):
            stream = await served.stream("s", f"device=d{number}&from=now")
            stream.close()

    async def publish() -> None:
        for n in range(1, 200):
            await served.publish("s", {"topic": "t", "data": n})

    assert (await watcher.next())["data"] == 0
    working = asyncio.gather(publish(), *[come_and_go(n) for n in range(5)])
    offsets: list[int] = []
    while len(offsets) < 199:
        fields = await asyncio.wait_for(frame(watcher), 60)
        if "event" not in fields and "data" in fields:
            offsets.append(json.loads(fields["data"])["offset"])
    await working
    assert offsets == list(range(1, 200))
    watcher.close()


async def test_delivered_follows_the_stream_and_from_device_what_was_acknowledged(served: Served) -> None:
    answer = await served.publish("s", *[{"topic": "t", "data": n} for n in range(10)])
    epoch = answer["epoch"]
    stream = await served.stream("s", "device=phone")
    await stream.take(10)
    await until(served, "phone", delivered=f"{epoch}-10", seen=None, connected=True)
    status, body = await served.call("PUT", f"{PATH}/devices/phone", json={"seen": f"{epoch}-4"})
    assert (status, body["seen"], body["lag"]) == (200, f"{epoch}-4", 6)
    stream.close()
    stream = await served.stream("s", "device=phone&from=device")
    assert (await stream.next())["offset"] == 4
    stream.close()
    stream = await served.stream("s", "device=unknown&from=device")
    assert (await stream.next())["offset"] == 0
    stream.close()


async def test_a_page_counts_as_delivered(served: Served) -> None:
    answer = await served.publish("s", *[{"topic": "t", "data": n} for n in range(10)])
    await served.call("GET", f"{PATH}/events?device=poller&limit=6")
    assert (await devices(served))["poller"]["delivered"] == f"{answer['epoch']}-6"


async def test_a_device_that_waits_for_a_page_is_present(served: Served) -> None:
    await served.publish("s", {"topic": "t", "data": 1})
    waiting = asyncio.ensure_future(served.call("GET", f"{PATH}/events?device=poller&from=now&wait=60"))
    while not (await devices(served)).get("poller", {}).get("connected"):
        await asyncio.sleep(0.01)
    await served.publish("s", {"topic": "t", "data": 2})
    await waiting
    assert (await devices(served))["poller"]["connected"] is False


@pytest.mark.parametrize(
    ("query", "accept", "message"),
    [
        ("from=device", "*/*", "expected device= with from=device"),
        ("device=", "*/*", "expected a device id of 1 to 128 visible ASCII characters, got ''"),
        ("device=a%20b", "*/*", "expected a device id of 1 to 128 visible ASCII characters, got 'a b'"),
        ("device=%C3%A9", "*/*", "expected a device id of 1 to 128 visible ASCII characters, got 'é'"),
        ("presence=yes", "text/event-stream", "expected presence=true or presence=false, got 'yes'"),
        ("presence=true", "*/*", "expected presence with Accept: text/event-stream, because pages do not report it"),
    ],
)
async def test_what_makes_no_sense_is_refused(served: Served, query: str, accept: str, message: str) -> None:
    await served.publish("s", {"topic": "t"})
    status, body = await served.call("GET", f"{PATH}/events?{query}", headers={"Accept": accept})
    assert (status, body["error"]["code"], body["error"]["message"]) == (400, "request_invalid", message)
