"""How a run's history is followed: what broke off is taken up again soon, if it had gone well for long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from wakeline.retry import Backoff
from wakeline.streams import runs as running
from wakeline.streams.places import Places
from wakeline.streams.runs import Run
from wakeline.streams.shared import SharedWork
from wakeline.temporal.endings import Ending


@pytest.mark.parametrize(("lasts", "pauses"), [(3600.0, [1, 1, 1]), (0.1, [1, 2, 3])])
async def test_the_pauses_grow_only_while_it_goes_wrong(
    lasts: float, pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, paused = 0.0, list[int]()
    close = Ending("completed", datetime.now(UTC))

    async def follow() -> Ending | None:
        nonlocal now
        now += lasts
        return close if len(paused) == 3 else None

    class Noting(Backoff):
        def pause(self) -> float:
            super().pause()
            paused.append(self.failures)
            return 0.0

    run = Run.__new__(Run)
    run.places, run._shared = Places(), SharedWork()
    monkeypatch.setattr(run, "_follow", follow)
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(running, "backoff", Noting)
    async with asyncio.timeout(60):
        assert await run._watch() is close
    assert paused == pauses
