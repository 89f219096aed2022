"""Which run a Temporal run belongs to is read from the records, and not with every append."""

from __future__ import annotations

import pytest

from wakeline.gateway.sessions import Run, run_names
from wakeline.gateway.sessions.run_names import RunNames

RUN = Run("w", "first", "third", "third", "W", "2026-11-21T05:14:43Z", earlier=("second",))


async def test_a_temporal_run_is_found_in_the_records_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, reads, kept = [100.0], [0], [RUN]
    monkeypatch.setattr(run_names, "monotonic", lambda: now[0])

    async def runs_of(session: str) -> list[Run]:
        reads[0] += 1
        return kept if session == "s" else []

    names = RunNames(runs_of)
    for run_id in ("first", "second", "third"):
        assert await names.find("s", run_id) == names.known("s", run_id) == "first"
    assert reads == [1]
    for _ in range(3):
        assert await names.find("s", "fourth") == "fourth"
        assert await names.find("other", "third") == "third"
    assert reads == [3]
    kept[:] = [Run("w", "first", "fourth", "fourth", "W", RUN.started_at, earlier=("second", "third"))]
    assert await names.find("s", "fourth") == "fourth"
    now[0] += 1
    assert await names.find("s", "fourth") == "first"
    assert reads == [4]
