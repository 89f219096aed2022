"""How often a run's history is asked for what is left of its budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors import LimitReachedError
from wakeline.gateway.inputs.budgets import Budgets


class Counting(Budgets):
    """Budgets of a run that has had `used` inputs.

    Attributes:
        asked: How often Temporal was asked.
    """

    def __init__(self, limit: int, used: int = 0) -> None:
        super().__init__({"signal": limit})
        self.used = used
        self.asked = 0
        self.fails = False

    async def _left(self, *_: Any) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
        return self._limits["signal"] - self.used

    async def signal(self) -> None:
        up: Any = Up()
        await self.take(up, "w", "r", "signal")
        self.used += 1


class Up:
    """A connection to Temporal that works."""

    def __getattr__(self, name: str) -> Any:
        return lambda: True


async def test_a_run_is_counted_some_times_in_its_life_and_refused_at_its_limit() -> None:
    budgets = Counting(10_000)
    for _ in range(10_000):
        await budgets.signal()
    with pytest.raises(LimitReachedError):
        await budgets.signal()
    counted = budgets.asked
    assert counted <= 15
    with pytest.raises(LimitReachedError):
        await budgets.signal()
    assert budgets.asked == counted


async def test_inputs_of_others_are_seen_at_the_next_count() -> None:
    budgets = Counting(100)
    await budgets.signal()
    budgets.used = 90
    outcomes = await asyncio.gather(*(budgets.signal() for _ in range(60)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) <= 50


async def test_inputs_at_once_are_counted_one_after_the_other() -> None:
    budgets = Counting(5)
    outcomes = await asyncio.gather(*(budgets.signal() for _ in range(8)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 5


async def test_nothing_is_refused_while_temporal_cannot_be_asked() -> None:
    budgets = Counting(1, used=1)
    budgets.fails = True
    await budgets.signal()
    budgets.fails = False
    with pytest.raises(LimitReachedError):
        await budgets.signal()
