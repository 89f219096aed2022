"""Every test in this folder runs on every engine: what they share is what an engine promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.nats import NatsStore, name_of
from tests.postgres import running
from tests.sharing import Faults, SharedStore
from wakeline.gateway.log import Engine
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.nats import NatsEngine
from wakeline.gateway.log.engines.postgres import PostgresEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine

# The engines on servers, by the fixtures that start these.
ON_NATS = {"nats", "nats_of_three"}
ON_SERVERS = {*ON_NATS, "postgres"}

_stores: dict[str, NatsStore] = {}
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


def _on_nats(kind: str, directory: Path) -> NatsEngine:
    return NatsEngine(_stores[kind].address(name_of(directory)))


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": lambda _: MemoryEngine(),
    **{kind: partial(_on_nats, kind) for kind in ON_NATS},
    "postgres": StoredFor,
    "shared": lambda _: SharedStore().engine(Faults(latency=0)),
    "sqlite": lambda directory: SqliteEngine(directory, durability="process"),
}


def start_servers(kind: str, request: pytest.FixtureRequest) -> None:
    """Start the servers of an engine, if it has any, until the last test has ended."""
    if kind in ON_SERVERS:
        server = request.getfixturevalue(kind)
        if isinstance(server, NatsStore):
            _stores[kind] = server


async def remove_store(kind: str, directory: Path) -> None:
    """Remove the store of a test that has ended, where its servers run on."""
    if kind in ON_NATS:
        await _stores[kind].remove(name_of(directory))


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    start_servers(request.param, request)
    opened = ENGINES[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()
    await remove_store(request.param, tmp_path)
