"""Sweeps by rules: gateways of one store continue where any of them has come."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from tests.unit.following.followed import Temporal
from wakeline.gateway.following.finding.sweep import Sweep, Swept
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.rules import Follow

BEGAN = datetime(2026, 11, 21, 5, 14, 43, tzinfo=UTC)


class Gateway:
    """The sweep of one gateway, and the workflows that it has found."""

    def __init__(self, engine: MemoryEngine, started: dict[str, datetime]) -> None:
        self.found: list[str] = []
        self._started = started
        swept = Swept(endings=lambda: False, ended=lambda _: None, wanted=cast(Any, None), found=self._find)
        rule = Follow(workflow_id="w*")
        self.sweep = Sweep(cast(Any, Temporal()), engine, [rule], swept, 5.0)
        self._rule = rule
        self.sweep.visibility.newest = BEGAN
        cast(Any, self.sweep.visibility).listed = self._listed

    async def sweep_once(self) -> list[str]:
        self.found.clear()
        await self.sweep._find_by(self._rule)
        return self.found

    async def _find(self, info: WorkflowExecutionInfo, rule: Follow | None) -> None:
        self.found.append(info.execution.workflow_id)

    async def _listed(self, query: str) -> AsyncIterator[WorkflowExecutionInfo]:
        since = re.search(r"StartTime >= '([^']*)'", query)
        for workflow_id, started in self._started.items():
            if since is None or started >= datetime.fromisoformat(since[1]):
                info = WorkflowExecutionInfo()
                info.execution.workflow_id, info.execution.run_id = workflow_id, f"run-of-{workflow_id}"
                info.start_time.FromDatetime(started)
                yield info


async def test_a_gateway_that_was_cut_off_finds_no_workflow_again_that_another_one_has_followed() -> None:
    engine, started = MemoryEngine(), {"w-0": BEGAN}
    one, other = Gateway(engine, started), Gateway(engine, started)
    assert (await one.sweep_once(), await other.sweep_once()) == (["w-0"], [])
    started |= {"w-1": BEGAN + timedelta(minutes=10), "w-2": BEGAN + timedelta(hours=1)}
    assert await one.sweep_once() == ["w-1", "w-2"]
    # Their sessions may have been deleted since.
    assert await other.sweep_once() == []


async def test_a_gateway_that_starts_finds_only_what_visibility_did_not_list_before() -> None:
    engine, started = MemoryEngine(), {"w-0": BEGAN, "w-1": BEGAN + timedelta(seconds=20)}
    assert await Gateway(engine, started).sweep_once() == ["w-0", "w-1"]
    started |= {"w-2": BEGAN + timedelta(seconds=10)}
    restarted = Gateway(engine, started)
    assert await restarted.sweep_once() == ["w-2"]
    assert await Gateway(engine, started).sweep_once() == []
