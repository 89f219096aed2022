"""What a gateway does with inputs that it cannot carry on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from structlog.testing import capture_logs

from tests.support import publish
from tests.unit.inputs.test_intents import intent
from wakeline.gateway.delivery import Accept
from wakeline.gateway.inputs import Inputs
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Intents, Runs
from wakeline.gateway.settings import Settings


def inputs_of(engine: MemoryEngine) -> Inputs:
    """The inputs of a gateway that follows no namespace."""
    return Inputs(
        Intents(engine),
        engine,
        Accept(engine),
        Runs(engine),
        cast(Any, {}),
        cast(Any, None),
        Ownership(engine, 1.0, shared=False),
        Settings(),
        Metrics(),
    )


async def test_an_input_of_a_namespace_that_is_no_longer_followed_waits_quietly() -> None:
    engine = MemoryEngine()
    epoch = (await publish(engine, "s", 1)).epoch
    waiting = intent(epoch=epoch, namespace="gone")
    await Intents(engine).create(waiting)
    inputs = inputs_of(engine)
    with capture_logs() as logs:
        await inputs.start()
        async with asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await inputs.stop()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "gone" in logs[0]["error"]
    assert [found.intent for found in await Intents(engine).unfinished()] == [waiting]
