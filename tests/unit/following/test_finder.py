"""Which run a workflow has come to: nobody is kept waiting for the beginning of its chain."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.errors import TemporalUnavailableError
from wakeline.gateway.following.finding import finder
from wakeline.gateway.following.finding.finder import Finder, Found
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Runs


async def test_a_chain_whose_beginning_temporal_is_too_busy_to_tell_is_not_waited_for_with_the_session_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Busy:
        async def until_calm(self) -> None:
            await asyncio.sleep(3600)

    monkeypatch.setattr(finder, "_BEGINNING_SECONDS", 0.05)
    engine, busy = MemoryEngine(), Busy()
    runs = Runs(engine)
    namespaces: Any = SimpleNamespace(main=busy)
    info = WorkflowExecutionInfo(execution=WorkflowExecution(workflow_id="order", run_id="third"), first_run_id="first")
    connection: Any = busy  # all of one that is used here
    found = Found(connection, info, None)
    async with asyncio.timeout(60), runs.lock("order"):
        with pytest.raises(TemporalUnavailableError):
            await Finder(namespaces, engine, runs).enter("order", found)
    assert await runs.of("order") == []
