"""The figure from publish to device: from an event's acceptance to its being handed to the last live device's socket."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import Served
from tests.unit.conftest import Serve, on_disk
from wakeline.events import compose, timestamp
from wakeline.gateway.delivery.written import accepted_at


@on_disk
async def test_the_wait_for_the_disk_is_part_of_it(serve: Serve, tmp_path: Path) -> None:
    served = await serve()
    await served.publish("order-1", {"topic": "n"})
    stream = await served.stream("order-1", "from=now")
    while await served.metric("wakeline_devices_live") < 1:
        await asyncio.sleep(0.01)
    before = await taken(served)
    with closing(sqlite3.connect(tmp_path / "wakeline.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # no commit is possible meanwhile
        publishing = asyncio.create_task(served.publish("order-1", {"topic": "n"}))
        await asyncio.sleep(1.5)
        assert not publishing.done()
        other.execute("ROLLBACK")
    await publishing
    await stream.next()
    count, seconds = await taken(served)
    assert count == before[0] + 1
    assert seconds - before[1] >= 0.3  # a busy gateway accepts it late
    stream.close()


async def taken(served: Served) -> tuple[float, float]:
    """How many observations there are, and their sum."""
    return (
        await served.metric("wakeline_delivery_seconds_count"),
        await served.metric("wakeline_delivery_seconds_sum"),
    )


async def test_events_that_no_live_device_gets_do_not_count(serve: Serve) -> None:
    served = await serve()
    await served.publish("order-1", {"topic": "n"})
    stream = await served.stream("order-1", "from=now&topics=other")
    await served.publish("order-1", {"topic": "n"})
    await served.publish("order-1", {"topic": "other"})
    await stream.next()
    assert (await taken(served))[0] == 1
    stream.close()


@pytest.mark.parametrize("data", [b"1", b'{"time":"1999-01-01T00:00:00.000Z"}', b'"\\"time\\":\\"x"'])
def test_the_acceptance_is_the_event_s_own_time(data: bytes) -> None:
    event = compose("t", data, time=timestamp(1_800_000_000.789), run="r", activity="a", attempt=1, key='"time":"')
    assert accepted_at(event.body) == pytest.approx(1_800_000_000.789)


@pytest.mark.parametrize("body", [b"", b'"topic":"t"}', b'"time":"yesterday"}', b'"time":"\xff'])
def test_a_body_without_such_a_time_has_none(body: bytes) -> None:
    assert accepted_at(body) is None
