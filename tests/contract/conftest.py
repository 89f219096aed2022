"""Every test in this folder runs on every engine: what they share is what an engine promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.postgres import running
from tests.sharing import Faults, SharedStore
from wakeline.gateway.log import Engine
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.postgres import PostgresEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine

_stored: list[Path] = []


class StoredFor(PostgresEngine):
    """An engine on the one server of all tests, which is empty for each new directory."""

    def __init__(self, directory: Path) -> None:
        self._server = running[-1]
        self._directory = directory
        super().__init__(self._server.address())

    async def open(self) -> None:
        if _stored != [self._directory]:
            await self._server.clear()
            _stored[:] = [self._directory]
        await super().open()


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": lambda _: MemoryEngine(),
    "postgres": StoredFor,
    "shared": lambda _: SharedStore().engine(Faults(latency=0)),
    "sqlite": lambda directory: SqliteEngine(directory, durability="process"),
}


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    opened = ENGINES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()
