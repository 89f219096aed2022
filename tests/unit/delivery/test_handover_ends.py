"""Sessions that are closed, deleted, made anew and trimmed under their devices, under interleavings that hypothesis chooses.

Whatever the schedule says, a device gets a contiguous run of one life of the session, with what retention took told as gaps;
all of it if the session was closed; and it is let go when nothing more can come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak import times
from tests.support import data_of, publish
from tests.unit.delivery.test_handover import RecordingSink, Schedule, Slow
from wakeline.errors import EpochChangedError, SessionClosedError, SessionNotFoundError
from wakeline.events import GAP, Event
from wakeline.gateway.delivery import Device, Hub, Lane
from wakeline.gateway.log import Append, Engine, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Runs

ACTS = st.sampled_from(["publish", "publish", "publish", "trim", "close", "delete", "delete and publish"])


def encode(_: str, epoch: str, events: Sequence[Event]) -> bytes:
    told = [(e.offset, "gap" if e.topic == GAP else data_of(e)) for e in events]
    return b"".join(f"{epoch},{offset},{life} ".encode() for offset, life in told)


@dataclass
class Life:
    number: int
    next_offset: int = 0


@dataclass
class Scene:
    engine: Engine
    session: str
    schedule: Schedule
    lives: dict[str, Life] = field(default_factory=dict)
    made: int = 0

    async def play(self, acts: list[str], devices: list[int]) -> None:
        slow = Slow(self.engine, self.schedule, times=3)  # tells of what it did long after it can be read
        self.hub = Hub(cast("Engine", slow), Runs(self.engine).settled)
        watching = [asyncio.ensure_future(self.watch(start)) for start in devices]
        for act in acts:
            await self.schedule.wait()
            await self.act(act)
        await self.act("close")  # so that everybody is let go
        for seen in await asyncio.wait_for(asyncio.gather(*watching), 60):
            for epoch, sink, whole in seen:
                self.check(epoch, sink, whole=whole)
        assert self.hub.devices() == 0
        assert self.hub._channels == {}
        await slow.stop()

    async def act(self, act: str) -> None:
        state = await self.now()
        if act == "trim" and state is not None:
            await self.engine.trim(self.session, (state.first_offset + state.next_offset) // 2, epoch=state.epoch)
        elif act == "close":
            if state is None:
                appended = await self.engine.append(Append(self.session, (), close=True))
                self.lives[appended.epoch] = Life(-1)
            else:
                with suppress(SessionClosedError, EpochChangedError):
                    await self.engine.append(Append(self.session, (), close=True, epoch=state.epoch))
        elif act.startswith("delete"):
            await self.engine.delete_session(self.session)
        if act.endswith("publish"):
            self.made += state is None or act != "publish"
            try:
                appended = await publish(self.engine, self.session, *[self.made] * 3)
            except SessionClosedError:
                return
            life = self.lives.setdefault(appended.epoch, Life(self.made))
            life.next_offset = appended.next_offset

    async def watch(self, start: int) -> list[tuple[str, RecordingSink, bool]]:
        """Watch one life after the other; return what came of each, and whether it was closed."""
        seen: list[tuple[str, RecordingSink, bool]] = []
        for _ in range(start):
            await self.schedule.wait()
        while True:
            sink = RecordingSink(self.schedule)
            try:
                async with self.hub.attach(self.session) as channel:
                    await Device(channel, sink, Lane(encode, b""), 0).run()
            except (SessionNotFoundError, EpochChangedError):
                await asyncio.sleep(0)
                continue
            state = await self.now()
            gone = state is None or state.epoch != channel.epoch
            closed = channel.closed and not channel.deleted
            assert gone or closed
            seen.append((channel.epoch, sink, closed))
            if closed:
                return seen

    async def now(self) -> SessionState | None:
        """The session as it is at this moment, without the engine's wait."""
        return await self.engine.state(self.session)

    def check(self, epoch: str, sink: RecordingSink, *, whole: bool) -> None:
        expected = 0
        for part in b"".join(sink.chunks).decode().split():
            of, offset, life = part.split(",")
            assert of == epoch
            if life == "gap":
                assert int(offset) >= expected
                expected = int(offset) + 1
            else:
                assert (int(life), int(offset)) == (self.lives[epoch].number, expected)
                expected += 1
        assert expected <= self.lives[epoch].next_offset
        if whole:
            assert expected == self.lives[epoch].next_offset


scenes = given(
    numbers=st.lists(st.integers(0, 3), max_size=300),
    acts=st.lists(ACTS, max_size=12),
    devices=st.lists(st.integers(0, 12), min_size=1, max_size=4),
)


@settings(max_examples=times(60, 100), deadline=None)
@scenes
def test_each_device_gets_one_life_and_is_let_go(numbers: list[int], acts: list[str], devices: list[int]) -> None:
    asyncio.run(Scene(MemoryEngine(), "s", Schedule(numbers)).play(acts, devices))
