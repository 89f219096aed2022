"""The figure from publish to device: from an event's acceptance to its being handed to the last live device's socket."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import Served
from tests.unit.conftest import Serve, on_disk
from wakeline.events import compose, timestamp
from wakeline.gateway.delivery.written import Written


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


def test_sessions_that_are_written_together_count_once_as_their_oldest_event() -> None:
    written, now = Reports(), time.time()
    written.add(2, body(time=timestamp(now - 1)))
    written.add(1, body(time=timestamp(now - 3)))
    written.add(4, body(time=timestamp(now - 2)))
    written.report()
    written.report()  # nothing since
    assert written.counts == [7]
    assert written.ages == [pytest.approx(3, abs=0.9)]


@pytest.mark.parametrize("data", [b"1", b'{"time":"1999-01-01T00:00:00.000Z"}', b'"\\"time\\":\\"x"'])
def test_the_acceptance_is_the_event_s_own_time(data: bytes) -> None:
    written = Reports()
    written.add(1, body(data, time=timestamp(time.time() - 3), key='"time":"'))
    written.report()
    assert written.ages == [pytest.approx(3, abs=0.9)]


@pytest.mark.parametrize("without", [b"", b'"topic":"t"}', b'"time":"yesterday"}', b'"time":"\xff'])
def test_a_body_without_such_a_time_is_counted_without_one(without: bytes) -> None:
    written = Reports()
    written.add(1, without)
    written.report()
    assert (written.counts, written.ages) == ([1], [])


class Reports(Written):
    """What was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.ages: list[float] = []
        self.events, self.seconds = self.counts.append, self.ages.append


def body(data: bytes = b"1", *, time: str, key: str | None = None) -> bytes:
    return compose("t", data, time=time, run="r", activity="a", attempt=1, key=key).body
