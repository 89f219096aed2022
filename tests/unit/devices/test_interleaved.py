"""Two gateways on one engine, under interleavings that hypothesis chooses: positions only grow, and nothing acknowledged is lost.

Every place where a real engine would wait, waits here for as many turns of the loop as the schedule says. Some answers to
writes are lost: the write is done, and the gateway does not know it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak import times
from tests.support import publish
from wakeline.errors import StorageFailedError, UnavailableError
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Record, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine

END = 20
DEVICES = ["phone", "laptop", "tablet"]
T = TypeVar("T")


class SlowEngine(MemoryEngine):
    """Answers late, after it was done or before, or not at all."""

    def __init__(self, schedule: Sequence[int], lost: Sequence[bool]) -> None:
        super().__init__()
        self._schedule = iter(schedule)
        self._lost = iter(lost)

    async def _wait(self) -> None:
        for _ in range(next(self._schedule, 0)):
            await asyncio.sleep(0)

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        await self._wait()
        state = await super().state(session, publisher=publisher)
        await self._wait()
        return state

    async def get_record(self, key: str) -> Record | None:
        await self._wait()
        record = await super().get_record(key)
        await self._wait()
        return record

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        await self._wait()
        record = await super().put_record(key, value, revision=revision)
        await self._wait()
        if next(self._lost, False):
            raise StorageFailedError("the answer was lost")
        return record


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call whose outcome is unknown, as a client does that was answered 503."""
    while True:
        with suppress(UnavailableError):
            return await call()


class Scene:
    """What every actor does, held against what may be seen."""

    def __init__(self, engine: SlowEngine, epoch: str, gateways: list[Positions]) -> None:
        self.epoch = epoch
        self.gateways = gateways
        self.acknowledged: dict[str, int] = defaultdict(int)
        self.given: dict[str, int] = defaultdict(int)
        self.highest = 0

    async def acknowledge(self, gateway: int, device: str, offset: int, everywhere: bool) -> None:
        self.highest = max(self.highest, offset)
        known = {p.device for p in await self.gateways[gateway].devices("s")} if everywhere else set()
        cursor, kept = f"{self.epoch}-{offset}", self.gateways[gateway]
        position = await persistently(lambda: kept.acknowledge("s", "alice", device, cursor, everywhere=everywhere))
        assert int((position.seen or "").rpartition("-")[2]) >= offset
        for raised in {device} | known:
            self.acknowledged[raised] = max(self.acknowledged[raised], offset)

    async def connect(self, gateway: int, device: str, offsets: list[int]) -> None:
        given = 0

        def offset_of() -> int:
            return given

        with self.gateways[gateway].connected("s", self.epoch, "alice", device, offset_of):
            for offset in sorted(offsets):
                given = offset
                self.given[device] = max(self.given[device], offset)
                await persistently(self.gateways[gateway].save)

    async def observe(self, gateway: int, device: str, times: int) -> None:
        last = 0
        for _ in range(times):
            expected = self.acknowledged[device]
            seen = await self.gateways[gateway].seen("s", self.epoch, "alice", device) or 0
            assert seen >= expected, "what was acknowledged is read by whoever asks later"
            assert seen >= last, "a position only grows"
            last = seen


async def play(schedule: list[int], lost: list[bool], acts: list[tuple[int, str, list[int], bool]]) -> None:
    engine = SlowEngine(schedule, lost)
    epoch = (await publish(engine, "s", *range(END))).epoch
    async with Positions(engine, Presence()) as one, Positions(engine, Presence()) as other:
        scene = Scene(engine, epoch, [one, other])
        actors = []
        for gateway, device, offsets, flag in acts:
            actors += [scene.acknowledge(gateway, device, offset, flag) for offset in offsets]
            actors.append(scene.connect(1 - gateway, device, offsets) if flag else scene.observe(gateway, device, 6))
        await asyncio.gather(*actors)
        await persistently(one.save)
        await persistently(other.save)
        for kept in (one, other):
            for device in DEVICES:
                seen = await kept.seen("s", epoch, "alice", device) or 0
                assert scene.acknowledged[device] <= seen <= scene.highest
            delivered = {p.device: p.delivered for p in await kept.devices("s")}
            for device, offset in scene.given.items():
                assert delivered[device] == f"{epoch}-{offset}"
        assert await one.devices("s") == await other.devices("s")
        assert not one._parts
        assert not other._parts


@settings(max_examples=times(40, 50), deadline=None)
@given(
    schedule=st.lists(st.integers(0, 4), max_size=200),
    lost=st.lists(st.booleans(), max_size=40),
    acts=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from(DEVICES),
            st.lists(st.integers(0, END), min_size=1, max_size=5),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_positions_only_grow_and_nothing_acknowledged_is_lost(
    schedule: list[int], lost: list[bool], acts: list[tuple[int, str, list[int], bool]]
) -> None:
    asyncio.run(asyncio.wait_for(play(schedule, lost, acts), 60))
