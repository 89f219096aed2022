"""A pool of followers, and all around it, without Temporal: what each follower does is said by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following import Followers
from wakeline.gateway.following import pool as pooling
from wakeline.gateway.following.audience import Audience
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.pool import FollowerPool
from wakeline.gateway.following.roster import Roster
from wakeline.gateway.following.watching.attention import Attention
from wakeline.gateway.log import Append, Appended, Record
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.sessions import Followed, Run, Runs, RunState
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff


def run(workflow_id: str, **how: Any) -> Run:
    run_id = f"run-of-{workflow_id}"
    return Run(workflow_id, run_id, run_id, run_id, "Chat", "2026-11-21T05:14:43.123Z", **how)


async def steps(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class SlowEngine(MemoryEngine):
    """Has done what it was asked for some turns of the loop before it says so; cannot be asked for records when told so."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: list[Exception] = []

    async def get_record(self, key: str) -> Record | None:
        await steps(2)
        if self.fails:
            raise self.fails.pop()
        return await super().get_record(key)

    async def append(self, append: Append) -> Appended:
        appended = await super().append(append)
        await steps(2)
        return appended

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        await steps(2)
        record = await super().put_record(key, value, revision=revision)
        await steps(2)
        return record


class Temporal:
    """The one namespace: every workflow is there, and runs."""

    namespace = "default"
    converter = None

    def __init__(self) -> None:
        self.main = self.client = self

    def __iter__(self) -> Iterator[Temporal]:
        return iter([self])

    def __contains__(self, name: str) -> bool:
        return name == self.namespace

    def __getitem__(self, name: str) -> Temporal:
        return self

    def up(self) -> bool:
        return True

    def converter_of(self, workflow_id: str) -> None:
        return None

    def calm(self) -> bool:
        return True

    async def until_calm(self) -> None:
        pass

    async def after_failure(self, backoff: Backoff) -> None:
        backoff.pause()
        await steps(2)

    async def until_up(self) -> None:
        await asyncio.Event().wait()

    def get_workflow_handle(self, workflow_id: str, run_id: str | None = None) -> Any:
        async def describe(**_: Any) -> Any:
            await steps(2)
            info = WorkflowExecutionInfo(
                execution=WorkflowExecution(workflow_id=workflow_id, run_id=f"run-of-{workflow_id}"),
                status=WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING,
            )
            return SimpleNamespace(raw_description=SimpleNamespace(workflow_execution_info=info))

        return SimpleNamespace(describe=describe)


class World:
    """What a gateway has around its followers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.engine = SlowEngine()
        self.runs, self.temporal = Runs(self.engine), Temporal()
        self.hub = Hub(self.engine, self.runs.settled)
        self.settings = Settings(**settings)
        self.accept = Accept(self.engine)
        self.follow: Callable[[Any], Awaitable[None]] = _for_ever
        world = self

        class FakeFollower:
            def __init__(self, session: str, run: Run, parts: Any, life: str | None = None) -> None:
                self.session, self.run, self.life, self.attention = session, run, life, Attention()
                self.parts = parts
                self.hurried = asyncio.Event()
                self.telling, self.state = None, RunState()

            async def follow(self) -> None:
                await world.follow(self)

            def hurry(self) -> None:
                self.hurried.set()

            async def announce(self) -> None:
                await steps(2)

        monkeypatch.setattr(pooling, "Follower", FakeFollower)

    def parts(self, ownership: Ownership | None = None, **others: Any) -> Following:
        """The parts of a gateway whose followers have no children and wait for no earlier run, if nothing else is given."""
        given: dict[str, Any] = {"child": _no_child, "earlier": _no_earlier, "ownership": ownership or alone()} | others
        given["audience"] = given.get("audience") or Audience(self.hub, self.runs, given["ownership"])
        return Following(
            namespaces=cast(Any, self.temporal),
            engine=self.engine,
            accept=self.accept,
            runs=self.runs,
            settings=self.settings,
            hub=self.hub,
            **given,
        )

    def pool(self, ownership: Ownership | None = None) -> FollowerPool:
        async def earlier(session: str, run: Run) -> None:
            await pool.earlier(session, run)

        pool = FollowerPool(self.parts(ownership, earlier=earlier))
        return pool

    def followers(self, ownership: Ownership | None = None) -> Followers:
        namespaces, ours = cast(Any, self.temporal), ownership or alone()
        return Followers(namespaces, self.engine, self.accept, self.runs, self.settings, self.hub, ours)


def alone() -> Ownership:
    """The ownership of a gateway that has its store for itself."""
    return Ownership(MemoryEngine(), 1, shared=False)


async def _no_child(*_: Any) -> None:
    raise AssertionError("expected no children")


async def _no_earlier(*_: Any) -> None:
    """No earlier run is waited for."""


async def _for_ever(follower: Any) -> None:
    await asyncio.Event().wait()


def followed(pool: Roster | Followers, workflow_id: str) -> Followed | None:
    return pool.followed(workflow_id).get(f"run-of-{workflow_id}")
