"""History to live, and back for those who fall behind, under interleavings that hypothesis chooses.

Every place where the real engine or a real connection would wait, waits here for as many turns of the loop as the schedule
says. Whatever it says, a device must get each event from its offset on exactly once, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak import times
from tests.support import publish
from wakeline.background import cancel_all
from wakeline.events import RUN_STARTED, SESSION_SETTLED, Event
from wakeline.gateway.delivery import Device, Hub, Lane, Topics
from wakeline.gateway.log import Engine, Listener, Page, Record, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Runs


class Schedule:
    """Numbers drawn by hypothesis; when they run out, nothing waits."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def next(self) -> int:
        return next(self._numbers, 0)

    async def wait(self) -> None:
        for _ in range(self.next()):
            await asyncio.sleep(0)


class Slow:
    """An engine that answers late, and tells of commits late (but in order), as if it were farther away.

    Args:
        engine: Keeps everything.
        schedule: Says how late.
        times: How often it waits before it tells of a commit.
    """

    def __init__(self, engine: Engine, schedule: Schedule, *, times: int = 1) -> None:
        self._engine = engine
        self._schedule = schedule
        self._times = times
        self._told: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._telling = asyncio.ensure_future(self._tell())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        subscribed = True

        def late(*told: Any) -> None:
            self._told.put_nowait(lambda: listener(*told) if subscribed else None)

        def unsubscribe() -> None:
            nonlocal subscribed
            subscribed = False
            end()

        end = self._engine.subscribe(session, late)
        return unsubscribe

    async def _tell(self) -> None:
        while True:
            tell = await self._told.get()
            for _ in range(self._times):
                await self._schedule.wait()
            tell()

    async def stop(self) -> None:
        """Tell of nothing any more; the engine stays open."""
        await cancel_all(self._telling)

    async def read(self, *where: Any, limit: int, **how: Any) -> Page:
        await self._schedule.wait()
        page = await self._engine.read(*where, limit=min(limit, 3), **how)
        await self._schedule.wait()
        return page

    async def found(self, session: str) -> SessionState:
        return await Engine.found(cast("Engine", self), session)

    async def state(self, *of: Any, **how: Any) -> SessionState | None:
        await self._schedule.wait()
        state = await self._engine.state(*of, **how)
        await self._schedule.wait()
        return state


class RecordingSink:
    """A connection that now and then has too much unsent, and takes its time."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.chunks: list[bytes] = []

    def put(self, chunk: bytes) -> int:
        taken = self._schedule.next()
        if taken == 3:
            raise BlockingIOError
        if taken == 0:
            self.chunks.append(chunk)
            return len(chunk)
        return 0

    def keep(self, chunk: bytes, taken: int) -> bool:
        if self._schedule.next() == 3:
            return False
        self.chunks.append(chunk[taken:])
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self._schedule.wait()
        yield

    async def send(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        await self._schedule.wait()

    def offsets(self) -> list[int]:
        return [int(part) for chunk in self.chunks for part in chunk.decode().split()]


def encode(_: str, __: str, events: Sequence[Event]) -> bytes:
    return b"".join(b"%d " % e.offset for e in events)


async def scene(
    engine: Engine,
    session: str,
    schedule: Schedule,
    publishers: list[list[int]],
    devices: list[tuple[int, bool]],
    readers: list[tuple[int, bool]],
) -> None:
    """Publish to a session that is not there yet, and watch it."""
    slow = Slow(engine, schedule)
    hub = Hub(cast("Engine", slow), Runs(engine).settled)
    await publish(engine, session, 0, topic=RUN_STARTED)
    expected = {False: [0], True: []}

    async def publisher(sizes: list[int]) -> None:
        for size in sizes:
            await schedule.wait()
            topic = "x" if size % 2 else "y"
            answer = await publish(engine, session, *range(size), topic=topic)
            offsets = range(answer.first_offset, answer.next_offset)
            expected[False].extend(offsets)
            if topic == "x":
                expected[True].extend(offsets)

    async def watch(start: int, filtered: bool) -> tuple[RecordingSink, int, bool]:
        for _ in range(start):
            await schedule.wait()
        sink = RecordingSink(schedule)
        lane = Lane(encode, b"", Topics({"x"}) if filtered else None)
        async with hub.attach(session) as channel:
            offset = min(start, channel.tail)
            await Device(channel, sink, lane, offset, until_settled=True).run()
        return sink, offset, filtered

    async def read(start: int, filtered: bool) -> tuple[RecordingSink, int, bool]:
        """Read pages, and wait for the next event at the end, as a chat frontend and a long poll do."""
        for _ in range(start):
            await schedule.wait()
        sink, topics = RecordingSink(schedule), Topics({"x"}) if filtered else None
        async with hub.attach(session) as channel:
            first = offset = min(start, channel.tail)
            while not (channel.settled and offset >= channel.tail):
                await channel.wait_beyond(offset, 60)
                page = await channel.pages.read(offset, before=channel.tail, topics=topics)
                sink.chunks.append(encode(session, "", page.events))
                offset = page.next_offset
        return sink, first, filtered

    watching = [asyncio.ensure_future(watch(*device)) for device in devices]
    watching += [asyncio.ensure_future(read(*reader)) for reader in readers]
    await asyncio.gather(*map(publisher, publishers))
    end = await publish(engine, session, 0, topic=SESSION_SETTLED)
    expected[False].append(end.first_offset)
    for sink, offset, filtered in await asyncio.wait_for(asyncio.gather(*watching), 60):
        assert sink.offsets() == [o for o in sorted(expected[filtered]) if o >= offset]
    assert hub.devices() == 0
    await slow.stop()


scenes = given(
    numbers=st.lists(st.integers(0, 3), max_size=300),
    publishers=st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=3),
    devices=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=5),
    readers=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=3),
)


@settings(max_examples=times(60, 100), deadline=None)
@scenes
def test_each_device_gets_every_event_once_in_order(
    numbers: list[int],
    publishers: list[list[int]],
    devices: list[tuple[int, bool]],
    readers: list[tuple[int, bool]],
) -> None:
    asyncio.run(scene(MemoryEngine(), "s", Schedule(numbers), publishers, devices, readers))


class Watcher:
    """A live device that only counts what it is told."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.sink = self
        self.until_settled = False
        self.left: int | None = None
        self.written: list[bytes] = []

    def put(self, chunk: bytes) -> int:
        self.written.append(chunk)
        return len(chunk)

    def keep(self, chunk: bytes, taken: int) -> bool:
        raise AssertionError("expected everything to be taken")

    def leave_live(self, offset: int) -> None:
        self.left = offset


async def _channel(calls: list[int]) -> tuple[Any, Any, MemoryEngine]:
    engine = MemoryEngine()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0)
    return hub, hub.attach("s"), engine


async def test_events_are_encoded_once_whatever_the_number_of_devices() -> None:
    calls: list[int] = []

    def counting(session: str, epoch: str, events: Sequence[Event]) -> bytes:
        calls.append(len(events))
        return encode(session, epoch, events)

    _, attached, engine = await _channel(calls)
    async with attached as channel:
        devices = [Watcher(Lane(counting, b"")) for _ in range(700)]
        for device in devices:
            channel.join(device, channel.tail)
        await publish(engine, "s", 1, 2)
        async with asyncio.timeout(60):
            while not all(device.written for device in devices):
                await asyncio.sleep(0)
    assert calls == [2]
    assert all(device.written == [b"1 2 "] for device in devices)
    assert len({id(device.written[0]) for device in devices}) == 1


class CountedReads(MemoryEngine):
    """Counts the reads of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def read(self, *asked: Any, **how: Any) -> Page:
        self.reads += 1
        return await super().read(*asked, **how)


async def test_a_reader_that_waits_for_an_event_has_it_without_a_read_of_the_log() -> None:
    engine = CountedReads()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0)
    async with hub.attach("s") as channel:
        before, offset, seen = engine.reads, channel.tail, list[int]()
        for count in (1, 3, 2):
            waiting = asyncio.create_task(channel.wait_beyond(offset, 60))
            await asyncio.sleep(0)
            await publish(engine, "s", *range(count))
            await waiting
            page = await channel.pages.read(offset, before=channel.tail, topics=Topics({"t"}))
            offset, seen = page.next_offset, seen + [event.offset for event in page.events]
        assert (seen, engine.reads) == (list(range(1, 7)), before)
        assert (await channel.pages.read(2, before=channel.tail)).next_offset == 7
        assert engine.reads == before + 1, "an earlier event is in the log alone"
        await engine.trim("s", 7, epoch=channel.epoch)
        page = await channel.pages.read(5, before=channel.tail)
        assert [event.topic for event in page.events] == ["$gap"], "retention has removed it meanwhile"


async def test_a_commit_that_was_not_told_sends_devices_back_to_the_log() -> None:
    _, attached, engine = await _channel([])
    async with attached as channel:
        device = Watcher(Lane(encode, b""))
        channel.join(device, channel.tail)
        channel.publish([Event(5, "t", b"}")])
        await channel.reach(6)
        assert (device.left, device.written, channel.tail) == (1, [], 6)
    await engine.close()


async def test_a_commit_that_was_not_told_between_two_that_were_sends_devices_back_to_the_log() -> None:
    _, attached, engine = await _channel([])
    async with attached as channel:
        device = Watcher(Lane(encode, b""))
        channel.join(device, channel.tail)
        channel.publish([Event(1, "t", b"}")])
        channel.publish([Event(5, "t", b"}")])
        await channel.reach(6)
        assert (device.left, device.written, channel.tail) == (2, [b"1 "], 6)
    await engine.close()


async def test_a_device_that_leaves_while_others_are_written_to_gets_nothing_more() -> None:
    _, attached, engine = await _channel([])
    async with attached as channel:
        others = [Watcher(Lane(encode, b"")) for _ in range(300)]
        leaving = Watcher(Lane(encode, b"", Topics({"t"})))
        for device in (*others, leaving):
            channel.join(device, channel.tail)
        await publish(engine, "s", 1)
        while not others[0].written:
            await asyncio.sleep(0)
        assert (others[-1].written, leaving.written) == ([], []), "expected a turn between two slices"
        given = channel.given(leaving)
        channel.leave(leaving)
        while not others[-1].written:
            await asyncio.sleep(0)
    assert (given, leaving.written, leaving.left) == (1, [], None)


class LateRecords(MemoryEngine):
    """Answers what a record was after it has become another one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        records = await super().get_records(keys)
        self.asked.set()
        await self.answer.wait()
        return records


async def test_a_session_that_is_settled_while_its_record_is_read_is_known_to_be() -> None:
    engine = LateRecords()
    hub = Hub(engine, Runs(engine).settled)
    await publish(engine, "s", 0)
    entering = asyncio.create_task(hub.enter("s"))
    await engine.asked.wait()
    hub.settle("s")
    engine.answer.set()
    channel = await entering
    assert channel.settled
    hub.leave(channel)


async def test_a_session_that_is_settled_while_old_events_are_told_lets_devices_go() -> None:
    hub, attached, _ = await _channel([])
    async with attached as channel:
        device = Watcher(Lane(encode, b""))
        device.until_settled = True
        channel.join(device, channel.tail)
        channel.publish([Event(0, "t", b"}")])  # told late: it was below the end that the log has told
        hub.settle("s")
        for _ in range(10):
            await asyncio.sleep(0)
        assert device.left == channel.tail
