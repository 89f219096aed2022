"""Who is followed: the first device or a registration starts a follower, a restart resumes those that were open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog
from temporalio.client import WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors import (
    EpochChangedError,
    SessionClosedError,
    TemporalUnavailableError,
    UnavailableError,
    WorkflowNotFoundError,
)
from wakeline.events import timestamp
from wakeline.gateway.accept import Accept
from wakeline.gateway.log import Change, Engine
from wakeline.gateway.runs import Run, Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.temporal.connection import Connection
from wakeline.gateway.temporal.follower import Follower

_DESCRIBE_TIMEOUT: Final = timedelta(seconds=5)
_RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Followers:
    """All runs followed by this gateway, at most one follower each."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        accept: Accept,
        runs: Runs,
        settings: Settings,
        settled: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._accept = accept
        self._runs = runs
        self._settings = settings
        self._settled = settled
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        engine.listen_changes(self._changed)

    async def start(self) -> None:
        """Connect, and go on with every run that was open when the gateway stopped."""
        await self._connection.start()
        for session, run in await self._runs.open_runs():
            self._start_follower(session, run)

    async def stop(self) -> None:
        """Stop following; the next gateway goes on where the log ends."""
        tasks = [*self._tasks.values(), *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connection.stop()

    def count(self) -> int:
        """How many runs are followed now."""
        return len(self._tasks)

    def followed(self, run: str) -> bool:
        """Whether a run is followed now."""
        return any(name == run for _, name in self._tasks)

    def health(self) -> str:
        """`ok`, or what is wrong with Temporal."""
        return self._connection.health

    async def watch(self, session: str) -> None:
        """A device is on this session: see that the workflow of its name, if there is one, is followed.

        Any number of devices that come at once cause one look.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked, and there is no session of this name to serve.
        """
        if any(watched == session for watched, _ in self._tasks):
            return
        if not self._connection.up() and await self._engine.state(session) is not None:
            return  # what we have is served now, not after a time-out
        looking = self._looking.get(session)
        if looking is None:
            looking = self._looking[session] = asyncio.create_task(self._look(session))
            looking.add_done_callback(lambda _: self._looking.pop(session, None))
        try:
            await asyncio.shield(looking)
        except UnavailableError:
            if await self._engine.state(session) is None:
                raise

    async def _look(self, session: str) -> None:
        # A session that only publishers write; or none, which the reader is told; or one that nothing can be added to.
        with suppress(WorkflowNotFoundError, SessionClosedError):
            await self.register(session, session)

    async def register(self, workflow_id: str, session: str) -> Run:
        """Follow the workflow's latest run into a session until it ends.

        Raises:
            WorkflowNotFoundError: Temporal has no such workflow.
            TemporalUnavailableError: Temporal cannot be asked now.
            SessionClosedError: The session is closed, and the run is not one of its own.
        """
        found = await self._describe(workflow_id)
        info = found.raw_description.workflow_execution_info
        chain = info.first_run_id or found.run_id
        async with self._runs.lock(session):
            run = next((run for run in await self._runs.of(session) if run.run == chain), None)
            if run is None:
                state = await self._engine.state(session)
                if state is not None and state.closed:
                    raise SessionClosedError(f"expected an open session, {session!r} is closed")
                run = Run(
                    workflow_id,
                    chain,
                    run_id=found.run_id,
                    stream=found.run_id,
                    workflow_type=found.workflow_type,
                    started_at=timestamp(found.start_time),
                )
                # The record comes before the event: a crash in between leaves a run that is resumed, and told once.
                await self._runs.put(session, run)
            if run.status == "running":
                await self._follower(session, run).announce()
                self._start_follower(session, run)
        return run

    def _changed(self, session: str, _: str, change: Change) -> None:
        """Follow nothing into a session that was deleted: what is still to come would bring it back."""
        if change == "deleted":
            for key in [key for key in self._tasks if key[0] == session]:
                self._tasks.pop(key).cancel()

    async def _describe(self, workflow_id: str) -> WorkflowExecutionDescription:
        try:
            found = await self._connection.client.get_workflow_handle(workflow_id).describe(
                rpc_timeout=_DESCRIBE_TIMEOUT
            )
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                raise WorkflowNotFoundError(f"Temporal has no workflow {workflow_id!r}") from None
            self._connection.failed(error)
            raise TemporalUnavailableError(f"Temporal cannot be asked now: {error.message}") from error
        except RuntimeError as error:  # the first connection of a lazy client failed
            raise TemporalUnavailableError(f"Temporal cannot be reached: {error}") from error
        return found

    def _follower(self, session: str, run: Run) -> Follower:
        return Follower(session, run, self._connection, self._accept, self._runs, self._settings, self._settled)

    def _start_follower(self, session: str, run: Run) -> None:
        key = (session, run.run)
        if key in self._tasks:
            return
        task = self._tasks[key] = asyncio.create_task(self._follow(session, run))
        task.add_done_callback(lambda _: self._tasks.get(key) is task and self._tasks.pop(key))

    async def _follow(self, session: str, run: Run) -> None:
        """Follow a run, starting anew from its record whatever goes wrong."""
        while True:
            try:
                await self._follower(session, run).follow()
            except EpochChangedError:
                return  # that life of the session is over, and its record with it
            except Exception:  # noqa: BLE001 - one bad run must not stop being followed
                _log.exception("following failed; it goes on from the record", session=session, run=run.run)
                await asyncio.sleep(_RETRY_SECONDS)
                run = next((r for r in await self._runs.of(session) if r.run == run.run), run)
            else:
                return
