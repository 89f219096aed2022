"""What a workflow's requests for input carry over continue-as-new, and what is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from wakeline.streams import requests
from wakeline.streams.requests import RequestOutcome, WorkflowRequests


class Topic:
    def publish(self, value: Any) -> None:
        return


class Conditions:
    """Wakes all whose condition holds before one of them continues, as a workflow's worker does."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def wait(self, condition: Callable[[], bool]) -> None:
        self.waiting.append((condition, asyncio.get_running_loop().create_future()))
        await self.waiting[-1][1]

    def check(self) -> None:
        for condition, waiter in self.waiting:
            if condition():
                waiter.set_result(None)


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch, conditions: Conditions) -> WorkflowRequests:
    """Requests outside a workflow."""
    outside = SimpleNamespace(set_signal_handler=lambda *_: None, wait_condition=conditions.wait)
    monkeypatch.setattr(requests, "workflow", outside)
    stream: Any = SimpleNamespace(topic=lambda _: Topic())
    return WorkflowRequests(stream)


async def test_of_two_that_wait_for_one_outcome_the_second_hears_that_it_was_dropped(
    monkeypatch: pytest.MonkeyPatch, conditions: Conditions, waiting: WorkflowRequests
) -> None:
    monkeypatch.setattr(requests, "MAX_CARRIED_BYTES", 0)

    async def asks() -> None:
        await waiting.ask("approval", id="pay-1")
        waiting.carry()

    asking = [asyncio.create_task(asks()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting._on_answer(RequestOutcome("pay-1", "resolved"))
    conditions.check()
    _, second = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(second, ApplicationError)
    assert second.type == "OutcomeForgotten"
