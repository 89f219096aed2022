from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.publisher.scripted import ScriptedGateway, scripted


@pytest.fixture
async def away() -> AsyncIterator[ScriptedGateway]:
    """A gateway that was not started."""
    gateway = ScriptedGateway()
    try:
        yield gateway
    finally:
        await gateway.stop()


@pytest.fixture
async def script() -> AsyncIterator[ScriptedGateway]:
    """A gateway that goes wrong as it is told."""
    async with scripted() as gateway:
        yield gateway
