"""Events about a run are appended through outages of the log, each of which is logged."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import CapturingLogger

from tests.unit.following.followed import World
from wakeline.errors import StorageFailedError
from wakeline.gateway.following import telling
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.log import NewSession


async def test_the_log_says_whether_reading_or_writing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log = World(monkeypatch), CapturingLogger()
    monkeypatch.setattr(telling, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(telling, "_log", log)
    for name in ("state", "append"):
        monkeypatch.setattr(world.accept, name, _once_unavailable(getattr(world.accept, name)))
    await world.engine.create_session(NewSession("a"))
    teller = Teller("a", "run", world.accept)
    assert not await teller.begin("started:run")
    await teller.tell("started:run", teller.event("$run.started", {}))
    assert await teller.told("started:run")
    assert [call.args[0] for call in log.calls] == ["cannot read the log now", "cannot write to the log now"]


def _once_unavailable(work: Any) -> Any:
    failures = [StorageFailedError("the disk is full")]

    async def once(*given: Any, **how: Any) -> Any:
        if failures:
            raise failures.pop()
        return await work(*given, **how)

    return once
