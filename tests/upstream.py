"""A part that follows workflows, for gateways in tests without Temporal: it writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from wakeline.errors import WorkflowNotFoundError
from wakeline.gateway.following import Followers
from wakeline.gateway.http import routes
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.sessions import Followed, Run, Unfollowed


class RecordingUpstream:
    """Follows nothing.

    Attributes:
        nudged: The workflows that were nudged, in order, with their namespaces.
        waited_for: The workflows whose end was waited for, in order, with their namespaces.
        are_over: Those of which this was told.
        ends_in: Seconds until they have ended.
        told: What publishers were told to publish: session, workflow, namespace, manages.
        refuses: Why nothing of that is followed; None says nothing of it.
    """

    def __init__(self) -> None:
        self.nudged: list[tuple[str, str | None]] = []
        self.waited_for: list[tuple[str, str | None]] = []
        self.are_over: list[tuple[str, str | None]] = []
        self.ends_in = 0.0
        self.told: list[tuple[str, str, str | None, bool]] = []
        self.refuses: Unfollowed | None = None

    async def watch(self, session: str) -> None:
        return

    async def register(self, workflow_id: str, session: str | None, **_: Any) -> tuple[str, Run]:
        raise WorkflowNotFoundError(f"nothing is followed here, neither is {workflow_id!r}")

    def nudge(self, workflow_id: str, namespace: str | None) -> None:
        self.nudged.append((workflow_id, namespace))

    async def ended(self, workflows: Sequence[tuple[str, str | None]]) -> None:
        self.waited_for += workflows
        await asyncio.sleep(self.ends_in)
        self.are_over += workflows

    def published(
        self,
        session: str,
        workflow_id: str,
        namespace: str | None,
        *,
        run: str | None,
        manages: bool,
        life: str,
        refused: Callable[[Unfollowed], None],
    ) -> None:
        self.told.append((session, workflow_id, namespace, manages))
        if self.refuses is not None:
            asyncio.get_running_loop().call_later(0.01, refused, self.refuses)

    def followed(self, session: str) -> dict[str, Followed]:
        return {}

    async def until_nudged(self, workflow_id: str, *, times: int = 1) -> None:
        """Wait until a workflow was nudged so often."""
        async with asyncio.timeout(60):
            while [name for name, _ in self.nudged].count(workflow_id) < times:
                await asyncio.sleep(0.002)


def recording(monkeypatch: pytest.MonkeyPatch) -> RecordingUpstream:
    """Have every gateway that is started from now on tell this one."""
    upstream = RecordingUpstream()

    def application(parts: Parts) -> Any:
        return routes.application(replace(parts, upstream=cast(Followers, upstream)))

    monkeypatch.setattr("wakeline.gateway.app.application", application)
    return upstream
