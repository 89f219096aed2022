"""What a listener of a session on PostgreSQL hears, whichever of two reads has the older state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from wakeline.events import Event, compose, timestamp
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.transaction import News
from wakeline.gateway.log.engines.postgres.watches import Watches
from wakeline.gateway.log.feed import Feed
from wakeline.gateway.log.values import Change, SessionState

LIFE = "e1"


class SlowReaders:
    """Reads a log of one session, at the moment that the test chooses."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.closed = False
        self.asked: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def fetch(self, query: str, names: Sequence[str], *positions: Sequence[Any]) -> list[tuple[Any, ...]]:
        moment = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(moment)
        await moment
        tail = (names[0], LIFE, 0, self.next_offset, self.closed)
        if not positions:
            return [tail]
        (epoch,), (start,) = positions
        new = range(start if epoch == LIFE else self.next_offset, self.next_offset)
        return [(*tail, at, "t", body(at)) for at in new] or [(*tail, None, None, None)]

    async def read_now(self) -> None:
        """Let the read that waits see the log as it is now."""
        (await asyncio.wait_for(self.asked.get(), 60)).set_result(None)

    def state(self) -> SessionState:
        return SessionState("s", LIFE, self.next_offset, timestamp(), closed=self.closed)


def body(number: int) -> bytes:
    return compose("t", b"%d" % number, time=timestamp(0)).body


class Heard:
    """What a listener has heard."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.changes: list[Change] = []

    def __call__(self, _: str, __: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        self.offsets += [event.offset for event in events]
        self.changes += changes


@pytest.fixture
def readers() -> SlowReaders:
    return SlowReaders()


@pytest.fixture
async def watches(readers: SlowReaders) -> AsyncIterator[Watches]:
    watches = Watches(cast("Readers", readers), Feed())
    watches.start()
    yield watches
    await watches.stop()


async def until(heard: Heard, offsets: list[int], changes: list[Change]) -> None:
    async with asyncio.timeout(60):
        while (heard.offsets, heard.changes) != (offsets, changes):
            await asyncio.sleep(0.001)


async def test_a_session_that_is_closed_during_the_first_read_of_a_new_watch(
    watches: Watches, readers: SlowReaders
) -> None:
    readers.next_offset = 3
    earlier = watches.subscribe("s", Heard())
    assert watches.woken("s", LIFE, 2, ["appended"])
    earlier()  # the session is still to be read
    heard = Heard()
    watches.subscribe("s", heard)
    reading = await asyncio.wait_for(readers.asked.get(), 60)
    watches.seen("s", readers.state())
    readers.closed = True
    watches.committed({("s", LIFE): News(changes=["closed"], next_offset=3)})
    reading.set_result(None)
    await readers.read_now()
    await until(heard, [], ["closed"])


async def test_an_event_between_the_subscriber_s_state_and_that_of_a_poll(
    watches: Watches, readers: SlowReaders
) -> None:
    readers.next_offset = 3
    heard = Heard()
    watches.subscribe("s", heard)
    state = readers.state()
    readers.next_offset = 4  # by another gateway, whose notification is lost
    polling = asyncio.create_task(watches.poll())
    await readers.read_now()
    await polling
    watches.seen("s", state)
    await readers.read_now()
    await until(heard, [3], [])


async def test_the_end_of_a_session_that_a_poll_has_seen_first(watches: Watches, readers: SlowReaders) -> None:
    readers.next_offset = 3
    heard = Heard()
    watches.subscribe("s", heard)
    state = readers.state()
    readers.next_offset = 4
    polling = asyncio.create_task(watches.poll())
    await readers.read_now()
    await polling
    readers.closed = True
    watches.committed({("s", LIFE): News(changes=["closed"], next_offset=4)})
    reading = await asyncio.wait_for(readers.asked.get(), 60)
    watches.seen("s", state)
    reading.set_result(None)
    await readers.read_now()  # from where the subscriber is
    await until(heard, [3], ["closed"])
