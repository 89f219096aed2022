"""Which events make an input stale."""

from __future__ import annotations

import pytest

from tests.support import batch
from wakeline.gateway.inputs.unseen import unseen
from wakeline.gateway.log.engines.memory import MemoryEngine


async def log(*topics: str) -> tuple[MemoryEngine, str]:
    """A session with an event of each topic, and its epoch."""
    engine = MemoryEngine()
    for topic in topics:
        await engine.append(batch("s", 1, topic=topic))
    state = await engine.state("s")
    assert state is not None
    return engine, state.epoch


@pytest.mark.parametrize(
    ("topic", "counts"),
    [
        ("message", True),
        ("$input.accepted", True),
        ("$run.started", True),
        ("$run.closed", True),
        ("$input.completed", False),
        ("$activity.retrying", False),
        ("$run.waiting", False),
        ("$input.requested", False),
    ],
)
async def test_events_that_count(topic: str, counts: bool) -> None:
    engine, epoch = await log("message", "$run.waiting", topic)
    assert await unseen(engine, "s", epoch, 0) == (2 if counts else None)
    assert await unseen(engine, "s", epoch, 2) is None
    assert await unseen(engine, "s", epoch, -1) == 0


async def test_events_after_the_input_do_not_count() -> None:
    engine, epoch = await log("message", "$input.accepted", "message")
    assert await unseen(engine, "s", epoch, 0, before=1) is None
    assert await unseen(engine, "s", epoch, 0, before=3) == 1


async def test_removed_events_count_when_the_input_arrives_and_not_later() -> None:
    engine, epoch = await log("message", "message", "$run.waiting")
    await engine.trim("s", 2, epoch=epoch)
    assert await unseen(engine, "s", epoch, 0) == 1
    assert await unseen(engine, "s", epoch, 1) is None
    assert await unseen(engine, "s", epoch, 0, before=3) is None
