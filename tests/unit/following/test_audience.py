"""The devices at other gateways: each gateway reports its own now and then, and believes the others for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.clocks import Clock
from tests.unit.following.followed import World, run, steps
from wakeline.background import cancel_all
from wakeline.gateway.following import audience as module
from wakeline.gateway.following.audience import Audience
from wakeline.gateway.log import NewSession


class Hints:
    """Notes the hints that are sent, and has those of other gateways followed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, bool]] = []
        self.listeners: dict[str, Callable[[str, str], None]] = {}

    def listen(self, subject: str, listener: Callable[[str, str], None]) -> None:
        self.listeners[subject] = listener

    def wake(self, subject: str, name: str, detail: str, *, urgent: bool = True) -> None:
        self.sent.append((subject, name, detail, urgent))


Begin = Callable[[World, Hints], Awaitable[Audience]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.02)
    return clock


@pytest.fixture
async def begin(clock: Clock) -> AsyncIterator[Begin]:
    """Have an audience reported in the background."""
    tasks: list[asyncio.Task[None]] = []

    async def one(world: World, hints: Hints) -> Audience:
        ownership = cast(Any, SimpleNamespace(shared=True, wakeups=hints))
        audience = Audience(world.hub, world.runs, ownership)
        tasks.append(asyncio.create_task(audience.run()))
        return audience

    yield one
    await cancel_all(*tasks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_new_sessions_are_reported_at_once_and_later_not_all_together(
    clock: Clock, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, hints = World(monkeypatch), Hints()
    names = {f"a{number}" for number in range(200)}
    async with AsyncExitStack() as devices:
        for name in names:
            await world.engine.create_session(NewSession(name))
            await world.runs.put(name, run(name))
            await devices.enter_async_context(world.hub.attach(name))
        await begin(world, hints)
        await until(lambda: len(hints.sent) >= len(names))
        assert set(hints.sent) == {("watched", name, name, False) for name in names}
        hints.sent.clear()
        clock.now += module._REPORT_SECONDS / 2
        await until(lambda: len(hints.sent) >= 50)
        await steps(2000)
        assert len(hints.sent) < 150
        clock.now += module._REPORT_SECONDS / 2
        await until(lambda: {hint[2] for hint in hints.sent} == names)


async def test_the_last_device_at_another_gateway_is_noticed_when_it_has_left(
    clock: Clock, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, hints, calls = World(monkeypatch), Hints(), list[bool]()
    audience = await begin(world, hints)
    audience.listen(lambda: calls.append(audience.watches("s")))
    hints.listeners["watched"]("workflow", "s")
    assert calls == [True]
    clock.now += module._BELIEVED_SECONDS / 2
    hints.listeners["watched"]("workflow", "s")  # it is still there
    clock.now += 0.6 * module._BELIEVED_SECONDS
    await steps(200)
    assert calls == [True]
    clock.now += module._BELIEVED_SECONDS
    await until(lambda: len(calls) > 1)
    assert calls == [True, False]
