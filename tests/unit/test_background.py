"""Background tasks: one that fails goes on, and says so meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from structlog.testing import capture_logs

from tests.support import Served
from wakeline import background
from wakeline.background import begin, cancel_all, wait_at_most
from wakeline.errors import StorageFailedError, UnavailableError
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.runtime import supervised

Serve = Callable[..., Awaitable[Served]]


def failing(name: str, tasks: Iterable[str]) -> list[str]:
    """The failures of one task: tasks of other tests in this process may still be recovering."""
    return [task for task in tasks if task.startswith(f"{name}: ")]


async def test_a_background_task_that_fails_is_reported_and_restarted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE", 0.01)
    began = 0

    async def work(_: Compacts) -> None:
        nonlocal began
        began += 1
        if began == 1:
            raise KeyError("unexpected")
        await asyncio.Event().wait()

    monkeypatch.setattr(Compacts, "_work_for_ever", work)
    with capture_logs() as logged:
        served = await serve()
        async with asyncio.timeout(60):
            while began < 2:
                await asyncio.sleep(0.01)
    assert [line["task"] for line in logged if line["log_level"] == "error"] == ["compact forms"]
    status, health = await served.call("GET", "/readyz")
    assert (status, health["status"]) == (200, "degraded")
    assert failing("compact forms", health["tasks"]) == ["compact forms: KeyError: 'unexpected'"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (StorageFailedError.of_outage("PostgreSQL failed: no connection"), "PostgreSQL failed: no connection"),
        (ExceptionGroup("leases", [StorageFailedError.of_outage("no connection")]), "no connection"),
        (OSError("no route"), "OSError: no route"),
    ],
)
async def test_a_failing_task_has_its_error_in_words(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE", 60.0)

    async def work() -> None:
        raise failure

    with capture_logs():
        task = supervised("inputs", work)
        async with asyncio.timeout(60):
            while not (found := failing("inputs", background.failing())):
                await asyncio.sleep(0.001)
    assert found == [f"inputs: {said}"]
    await cancel_all(task)


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (StorageFailedError.of_outage("no connection"), "debug"),
        (ExceptionGroup("leases", [StorageFailedError.of_outage("no connection")]), "debug"),
        (UnavailableError("Temporal cannot be asked"), "warning"),
        (KeyError("unexpected"), "error"),
    ],
)
async def test_a_traceback_is_of_a_defect_and_an_outage_of_the_store_is_left_to_its_engine(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, level: str
) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE", 0.01)
    failures = iter([failure])

    async def work() -> None:
        if (error := next(failures, None)) is not None:
            raise error

    with capture_logs() as logged:
        async with asyncio.timeout(60):
            await supervised("work", work)
    assert [(line["log_level"], "exc_info" in line) for line in logged] == [(level, level == "error")]


async def test_a_task_is_well_again_when_it_has_run_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(background, "_WELL_SECONDS", 0.5)
    failures = iter([OSError("one"), OSError("two")])

    async def work() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        await asyncio.Event().wait()

    with capture_logs():
        task = supervised("work", work)
        async with asyncio.timeout(60):
            while failing("work", background.failing()) != ["work: OSError: two"]:
                await asyncio.sleep(0.001)
            while failing("work", background.failing()):
                await asyncio.sleep(0.01)
    assert not task.done()
    await cancel_all(task)


async def test_cancelling_waits_for_the_end_of_tasks_and_hides_their_errors() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            raise OSError("at the end")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await cancel_all(task, None)
    assert task.done()


async def test_a_task_is_kept_until_its_end() -> None:
    over, tasks = asyncio.Event(), set[asyncio.Task[bool]]()
    task = begin(over.wait(), tasks)
    assert tasks == {task}
    over.set()
    assert await task
    await asyncio.sleep(0)
    assert not tasks


async def test_a_wait_is_over_with_its_time_or_with_what_it_waits_for() -> None:
    over = asyncio.Event()
    await wait_at_most(0.001, over.wait())
    async with asyncio.timeout(60):
        asyncio.get_running_loop().call_soon(over.set)
        await wait_at_most(60, over.wait())


async def test_the_error_of_what_is_waited_for_is_passed_on_and_so_is_a_cancellation() -> None:
    async def fails() -> None:
        raise OSError("while it was waited for")

    with pytest.raises(OSError, match="waited for"):
        await wait_at_most(60, fails())
    waiting = asyncio.create_task(wait_at_most(60, asyncio.Event().wait()))
    await asyncio.sleep(0)
    await cancel_all(waiting)
    assert waiting.cancelled()
