"""A live trace of what the connections of a device are sent."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.http.traces import MOST

DEVICES = "/v1/sessions/s/devices"


@pytest.fixture
async def asking(serve: Serve) -> Served:
    """A gateway that asks who calls, with ten events in session `s`."""
    opened = await serve(token_secret=SECRET)
    opened.http.headers.update(bearer())
    await opened.publish("s", *({"topic": "t", "data": n} for n in range(10)))
    return opened


def as_user(user: str, *allow: str, sessions: tuple[str, ...] = ("s",)) -> dict[str, str]:
    return bearer(sub=user, sessions=list(sessions), allow=list(allow))


async def test_a_trace_shows_what_a_device_is_sent_until_it_leaves(asking: Served) -> None:
    asking.http.headers.update(as_user("alice", "read", "ack", "publish"))
    reading = await asking.stream("s", "device=phone&from=now")
    await reading.lines()
    trace = await asking.http.get(f"{DEVICES}/phone/trace")
    assert (trace.status, trace.content_type) == (200, "text/event-stream")

    async def next_of() -> dict[str, Any]:
        while not (line := await trace.content.readline()).startswith(b"data: "):
            assert line, "the trace has ended"
        found: dict[str, Any] = json.loads(line[6:])
        assert found.pop("time").endswith("Z")
        return found

    assert await next_of() == {"connections": [{"transport": "sse", "offset": 10}], "end": 10}
    await asking.publish("s", {"topic": "t"})
    while (now := await next_of()) != {"connections": [{"transport": "sse", "offset": 11}], "end": 11}:
        assert now["end"] == 11
    reading.close()
    assert await next_of() == {"connections": [], "end": 11}
    assert await trace.content.read() == b"\n"


async def test_a_device_has_a_few_traces_at_once(asking: Served) -> None:
    asking.http.headers.update(as_user("alice", "read", "ack"))
    for device in ("phone", "laptop"):
        await (await asking.stream("s", f"device={device}&from=now")).lines()
    async with AsyncExitStack() as open_traces:

        async def trace(device: str) -> aiohttp.ClientResponse:
            answer = await open_traces.enter_async_context(asking.http.get(f"{DEVICES}/{device}/trace"))
            assert answer.status in (200, 429)
            return answer

        traces = [await trace("phone") for _ in range(MOST)]
        assert {answer.status for answer in traces} == {200}
        refused = await trace("phone")
        assert (refused.status, (await refused.json())["error"]["code"]) == (429, "limit_reached")
        assert int(refused.headers["Retry-After"]) > 0
        assert (await trace("laptop")).status == 200

        traces[0].close()
        async with asyncio.timeout(60):
            while (await trace("phone")).status == 429:
                await asyncio.sleep(0.05)


async def test_a_trace_is_for_those_who_see_the_device(asking: Served) -> None:
    expected = {"": 200, "?user=alice": 200, "?user=bob": 403}
    for query, status in expected.items():
        async with asking.http.get(f"{DEVICES}/phone/trace{query}", headers=as_user("alice", "ack")) as answer:
            assert answer.status == status
            await answer.read()
    path = "/v1/sessions/none/devices/phone/trace"
    assert (await asking.call("GET", path, headers=as_user("alice", "ack", sessions=("*",))))[0] == 404
    assert (await asking.call("GET", f"{DEVICES}/phone/trace", headers=as_user("alice", "read")))[0] == 403
