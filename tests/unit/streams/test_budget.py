"""The pace of a publisher, as the signals of its run are spent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wakeline.streams.budget import SignalBudget


class FakeRun:
    """Says of itself what a test wants."""

    id = "w"

    def __init__(self) -> None:
        self.run_id = "r1"
        self.history_length = 0
        self.looks = 0
        self.error: Exception | None = None

    async def describe(self) -> Any:
        self.looks += 1
        if self.error:
            raise self.error
        return SimpleNamespace(run_id=self.run_id, history_length=self.history_length)


async def spend(budget: SignalBudget, count: int) -> None:
    for _ in range(count):
        budget.spend()
        await budget.look()


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


@pytest.fixture
def budget(run: FakeRun) -> SignalBudget:
    return SignalBudget(run)  # type: ignore[arg-type]  # the two calls of a handle that a budget makes


async def test_the_first_half_goes_at_the_pace_asked_for(budget: SignalBudget, run: FakeRun) -> None:
    await spend(budget, 4_999)
    assert (budget.interval(0.2), budget.pause()) == (0.2, 0)
    assert run.looks == 19


async def test_pauses_grow_as_the_rest_shrinks(budget: SignalBudget) -> None:
    told = []
    for _ in range(4):
        await spend(budget, 2_490)
        told.append((round(budget.interval(0.2), 2), round(budget.pause(), 2)))
    assert told == [(0.2, 0), (0.2, 0), (0.4, 0.1), (10.0, 4.9)]


async def test_an_interval_above_the_longest_is_kept(budget: SignalBudget) -> None:
    await spend(budget, 9_990)
    assert budget.interval(60) == 60


async def test_signals_of_others_show_in_the_history(budget: SignalBudget, run: FakeRun) -> None:
    run.history_length = 36_000
    await spend(budget, 250)
    assert round(budget.interval(0.2), 2) == 1.0


async def test_a_new_run_has_its_own(budget: SignalBudget, run: FakeRun) -> None:
    await spend(budget, 9_000)
    assert budget.pause() > 0
    run.run_id = "r2"
    await spend(budget, 250)
    assert budget.pause() == 0


async def test_a_look_that_fails_changes_nothing(budget: SignalBudget, run: FakeRun) -> None:
    run.error = RuntimeError("no server")
    await spend(budget, 7_500)
    assert round(budget.interval(0.2), 2) == 0.4
