"""The hand-over proof on every engine: its scenes in `tests/unit/delivery`, where the engine itself takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from tests.contract.conftest import ENGINES, remove_store, start_servers
from tests.soak import times
from tests.unit.delivery import test_handover, test_handover_ends
from tests.unit.delivery.test_handover import Schedule
from wakeline.gateway.log import Engine

few = settings(max_examples=times(20, 60), deadline=None)


class Opened(NamedTuple):
    """An engine that every example of a test uses, each for a session of its own."""

    engine: Engine
    names: Iterator[str]
    runner: asyncio.Runner

    def run(self, scene: Coroutine[Any, Any, None]) -> None:
        self.runner.run(scene)


@pytest.fixture(params=sorted(ENGINES))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    start_servers(request.param, request)
    with asyncio.Runner() as runner:
        engine = ENGINES[request.param](tmp_path)
        runner.run(engine.open())
        yield Opened(engine, (f"s{number}" for number in count()), runner)
        runner.run(engine.close())
        runner.run(remove_store(request.param, tmp_path))


def test_each_device_gets_every_event_once_in_order(opened: Opened) -> None:
    @few
    @test_handover.scenes
    def each(
        numbers: list[int],
        publishers: list[list[int]],
        devices: list[tuple[int, bool]],
        readers: list[tuple[int, bool]],
    ) -> None:
        schedule, session = Schedule(numbers), next(opened.names)
        opened.run(test_handover.scene(opened.engine, session, schedule, publishers, devices, readers))

    each()


def test_each_device_gets_one_life_and_is_let_go(opened: Opened) -> None:
    @few
    @test_handover_ends.scenes
    def each(numbers: list[int], acts: list[str], devices: list[int]) -> None:
        scene = test_handover_ends.Scene(opened.engine, next(opened.names), Schedule(numbers))
        opened.run(scene.play(acts, devices))

    each()
