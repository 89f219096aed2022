from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support import publish
from wakeline.errors import StorageFailedError
from wakeline.gateway.devices import Positions, Presence, positions
from wakeline.gateway.devices.positions import DevicePosition
from wakeline.gateway.log import Record
from wakeline.gateway.log.engines.memory import MemoryEngine


class Counting(MemoryEngine):
    """Counts and delays what is written; fails it on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.delay = 0.0
        self.failing = False

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        self.writes += 1
        await asyncio.sleep(self.delay)
        if self.failing:
            raise StorageFailedError("the store failed")
        return await super().put_record(key, value, revision=revision)


@pytest.fixture(autouse=True, scope="module")
def _saved_when_asked() -> Iterator[None]:
    """Nothing is saved by the clock: what a test counts must not depend on how busy the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "SAVE_SECONDS", 3600)
        yield


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
async def epoch(engine: Counting) -> str:
    return (await publish(engine, "s", *range(10))).epoch


@pytest.fixture
async def kept(engine: Counting) -> AsyncIterator[Positions]:
    async with Positions(engine, Presence()) as opened:
        yield opened


async def listed(kept: Positions, session: str = "s", user: str | None = None) -> dict[str, DevicePosition]:
    return {position.device: position for position in await kept.devices(session, user)}
