"""The thread that writes survives an error that nobody expected; if it ends all the same, that is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.sqlite.upkeep import Upkeep
from wakeline.gateway.settings import Settings

PUBLISHERS = 5
Break = Callable[[BaseException | None], None]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Lets the check of the store, which the thread makes once a second, raise an error; None ends that."""
    error: list[BaseException | None] = [None]
    check = Upkeep.look

    def look(self: Upkeep, *given: Any) -> None:
        if error[0] is not None:
            raise error[0]
        check(self, *given)

    monkeypatch.setattr(Upkeep, "look", look)

    def change(to: BaseException | None) -> None:
        error[0] = to

    return change


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings(port=0, no_auth=True, data=str(tmp_path / "data"), durability="process")
    async with gateway(settings) as url, Served(url) as served:
        yield served


async def ready(served: Served) -> tuple[int, str]:
    status, answer = await served.call("GET", "/readyz")
    return status, answer["log"]


async def append(served: Served, publisher: int, number: int) -> str:
    """Append a publisher's event of this number; gives the error's code, or nothing."""
    headers = {"Wakeline-Publisher": f"p{publisher}", "Wakeline-Sequence": str(number)}
    event = {"topic": f"p{publisher}", "data": number}
    status, answer = await served.call("POST", "/v1/sessions/s/events", json={"events": [event]}, headers=headers)
    return "" if status == 200 else str(answer["error"]["code"])


async def test_after_an_unexpected_error_callers_are_answered_and_the_writer_continues(
    served: Served, broken: Break
) -> None:
    failures: list[str] = []
    acknowledged = [0] * PUBLISHERS

    async def publishes(publisher: int) -> None:
        while not failures:
            if code := await append(served, publisher, acknowledged[publisher]):
                failures.append(code)
            else:
                acknowledged[publisher] += 1

    async with asyncio.timeout(60):
        assert await ready(served) == (200, "ok")
        broken(RuntimeError("a defect"))
        await asyncio.gather(*(publishes(publisher) for publisher in range(PUBLISHERS)))
        assert set(failures) == {"storage_failed"}
        while await ready(served) != (503, "failed: a defect"):
            await asyncio.sleep(0.02)
        broken(None)
        while await ready(served) != (200, "ok"):  # without an append
            await asyncio.sleep(0.02)
        for publisher in range(PUBLISHERS):
            assert await append(served, publisher, acknowledged[publisher]) == ""
        _, page = await served.call("GET", "/v1/sessions/s/events?limit=10000")
    for publisher, count in enumerate(acknowledged):
        its = [event["data"] for event in page["events"] if event["topic"] == f"p{publisher}"]
        assert its == list(range(count + 1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the fault itself
async def test_a_writer_that_has_stopped_is_reported_and_refuses_appends_at_once(served: Served, broken: Break) -> None:
    async with asyncio.timeout(60):
        assert await append(served, 0, 0) == ""
        broken(SystemExit())
        while (await ready(served))[0] == 200:
            await asyncio.sleep(0.02)
        assert await ready(served) == (503, "failed: the writer has stopped")
        async with asyncio.timeout(60):
            assert await append(served, 0, 1) == "storage_failed"
        _, page = await served.call("GET", "/v1/sessions/s/events")
        assert [event["data"] for event in page["events"]] == [0]
