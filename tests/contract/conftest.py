"""Every test in this folder runs on every engine: what they share is what an engine promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.sharing import Faults, SharedStore
from wakeline.gateway.log import Engine
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": lambda _: MemoryEngine(),
    "shared": lambda _: SharedStore().engine(Faults(latency=0)),
    "sqlite": lambda directory: SqliteEngine(directory, durability="process"),
}


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    opened = ENGINES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()
