"""Which run a workflow has come to, and into which session it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Final, NamedTuple

import msgspec
import structlog
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors import SessionClosedError, SessionNotFoundError, TemporalUnavailableError, WorkflowNotFoundError
from wakeline.events import timestamp
from wakeline.gateway.following.finding.chain import beginning
from wakeline.gateway.following.life.order import Execution, belongs, of_chain, was_reset
from wakeline.gateway.following.watching.standalone import described_activity
from wakeline.gateway.log import Engine, NewSession
from wakeline.gateway.reaching import Connection, Namespaces, session_of
from wakeline.gateway.sessions import Run, Runs
from wakeline.temporal.chains import Start, describe
from wakeline.temporal.failures import is_forgotten, is_no_namespace, is_unavailable

# While Temporal is busy, callers get an error after this time.
_CALM_SECONDS: Final = 2.0
# For so long Temporal is asked for somebody who waits; and for so long if it does not answer anyway, as far as is known.
_ASK_TIMEOUT: Final = timedelta(seconds=5)
_TRY_TIMEOUT: Final = timedelta(seconds=1)
# And for so long for the beginning of a chain, run by run: the runs of a session are locked meanwhile.
_BEGINNING_SECONDS: Final = 10.0
# Failures of calls are logged at most once in so many seconds: devices cause them as often as they like.
_LOG_SECONDS: Final = 30.0
# Servers before 1.31 have no standalone activities.
_ABSENT: Final = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNIMPLEMENTED)
_CONTINUED: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
_log = structlog.get_logger(__name__)


class Found(NamedTuple):
    """A workflow's execution, as Temporal describes it.

    Attributes:
        connection: Where it is.
        info: What is known of it.
        session: The session that it names itself; None if it names none.
        activity: Whether it is a standalone activity, whose id and type are in the places of a workflow's.
    """

    connection: Connection
    info: WorkflowExecutionInfo
    session: str | None
    activity: bool = False


class Entered(NamedTuple):
    """A run that is in a session's record.

    Attributes:
        run: The run.
        life: The epoch of the session.
    """

    run: Run
    life: str


class Finder:
    """Asks Temporal for workflows, and writes down which runs a session has.

    Args:
        namespaces: Temporal.
        engine: The log.
        runs: The record of each session's runs.
    """

    def __init__(self, namespaces: Namespaces, engine: Engine, runs: Runs) -> None:
        self._namespaces = namespaces
        self._engine = engine
        self._runs = runs
        self._log_next = 0.0

    def connection(self, namespace: str | None) -> Connection:
        """The connection to a namespace; None or empty is the main one.

        Raises:
            WorkflowNotFoundError: This gateway follows no workflows there.
        """
        if not namespace:
            return self._namespaces.main
        if namespace not in self._namespaces:
            raise WorkflowNotFoundError(f"expected a namespace that this gateway follows, got {namespace!r}")
        return self._namespaces[namespace]

    def named(self, connection: Connection) -> str:
        """A namespace as records have it."""
        return "" if connection is self._namespaces.main else connection.namespace

    async def find(
        self, connection: Connection, workflow_id: str, run_id: str | None = None, *, activity: bool = False
    ) -> Found:
        """Return a workflow's latest run, or one of its runs; or a standalone activity's.

        Raises:
            WorkflowNotFoundError: Temporal has no such workflow.
            TemporalUnavailableError: Temporal cannot be asked now.
        """
        try:
            async with asyncio.timeout(_CALM_SECONDS):
                await connection.until_calm()
        except TimeoutError:
            raise TemporalUnavailableError("Temporal has too many calls now") from None
        timeout = _ASK_TIMEOUT if connection.up() else _TRY_TIMEOUT
        try:
            if activity:
                info = await described_activity(connection, workflow_id, run_id, timeout)
            else:
                info = (await describe(connection.client, workflow_id, run_id, timeout)).workflow_execution_info
        except RPCError as error:
            if error.status in _ABSENT and not is_no_namespace(error):
                kind = "standalone activity" if activity else "workflow"
                raise WorkflowNotFoundError(f"Temporal has no {kind} {workflow_id!r}") from None
            raise self._unavailable(connection, error) from error
        return Found(connection, info, await session_of(info, connection.converter), activity)

    async def learn(self, session: str, found: Found) -> None:
        """Remember the name of the run that an execution belongs to, if the session has the run.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked now.
        """
        run, _ = await self._belongs(session, await self._runs.of(session), found)
        if run is not None:
            self._runs.names.learn(session, found.info.execution.run_id, run.run)

    async def life(self, session: str) -> str | None:
        """Return the epoch of a session; None if there is no such session."""
        state = await self._engine.state(session)
        return state.epoch if state is not None else None

    async def enter(self, session: str, found: Found, *, result: bool = False, life: str | None = None) -> Entered:
        """Return the run of the session that an execution belongs to; record it if it is new.

        The caller holds the lock of the session's runs.

        Args:
            session: The session's name.
            found: The execution.
            result: Report what it completes with.
            life: The epoch in which the execution was looked for. A deletion since then is not undone. None: any.

        Raises:
            SessionNotFoundError: The session was deleted after the execution had been looked for.
            SessionClosedError: The session is closed, and the run is not one of its own.
            WorkflowNotFoundError: Temporal no longer has the run.
            TemporalUnavailableError: Temporal cannot be asked now.
        """
        state = await self._engine.state(session)
        if life is not None and (state is None or state.epoch != life):
            raise SessionNotFoundError(f"expected session {session!r}, it was deleted meanwhile")
        # Without a session, records are those of an earlier life whose deletion another gateway has not finished yet.
        known = [] if state is None else await self._runs.of(session)
        run, execution = await self._belongs(session, known, found)
        if state is not None and run is not None:
            self._runs.names.learn(session, found.info.execution.run_id, run.run)
            if result and not run.result and run.open:
                run = msgspec.structs.replace(run, result=True)
                await self._runs.want_result(session, run)
            return Entered(run, state.epoch)
        if state is not None and state.closed:
            raise SessionClosedError(f"expected an open session, {session!r} is closed")
        info, run_id, chain = found.info, execution.run_id, execution.chain
        ended = was_reset(execution, known)
        started_at = info.start_time.ToDatetime(tzinfo=UTC)
        name = run_id if ended else chain
        if run_id != name:
            earliest = await self._beginning(found.connection, info.execution.workflow_id, run_id)
            if earliest.run_id != run_id:
                run_id, started_at = earliest.run_id, earliest.at
        run = Run(
            info.execution.workflow_id,
            name,
            run_id=run_id,
            stream=run_id,
            workflow_type=info.type.name,
            started_at=timestamp(started_at),
            namespace=self.named(found.connection),
            chain=chain if ended else "",
            result=result,
            activity=found.activity,
        )
        # The session comes first: a record without one is what a deletion has not removed yet. The record comes before the
        # event: a crash in between leaves a run that is resumed, and reported once.
        begun = state.epoch if state is not None else await self._begin(session)
        run = await self._runs.add(session, run)
        # Its activities may speak before its turn has come.
        self._runs.names.learn(session, info.execution.run_id, run.run)
        return Entered(run, begun)

    async def _begin(self, session: str) -> str:
        """Begin a life of a session without the records of the one before; return its epoch."""
        state, is_new = await self._engine.create_session(NewSession(session))
        if is_new:
            await self._runs.forget(session)
        return state.epoch

    async def _beginning(self, connection: Connection, workflow_id: str, run_id: str) -> Start:
        try:
            async with asyncio.timeout(_BEGINNING_SECONDS):
                return await beginning(connection, workflow_id, run_id)
        except TimeoutError:
            raise TemporalUnavailableError("Temporal cannot be asked now how a workflow's chain began") from None
        except RPCError as error:
            if is_forgotten(error):
                raise WorkflowNotFoundError(f"Temporal no longer has run {run_id!r} of {workflow_id!r}") from None
            raise self._unavailable(connection, error) from error

    def _unavailable(self, connection: Connection, error: RPCError) -> TemporalUnavailableError:
        """Return the error of a failed call without the reason, which has addresses; log that."""
        if is_no_namespace(error):
            return TemporalUnavailableError(f"Temporal has no namespace {connection.namespace!r} now")
        if is_unavailable(error):  # the connection logs the outage
            return TemporalUnavailableError("Temporal cannot be reached now")
        if time.monotonic() >= self._log_next:
            self._log_next = time.monotonic() + _LOG_SECONDS
            _log.warning(
                "Temporal does not answer what a workflow is", namespace=connection.namespace, error=error.message
            )
        return TemporalUnavailableError("Temporal cannot be asked now")

    async def _belongs(self, session: str, runs: list[Run], found: Found) -> tuple[Run | None, Execution]:
        """Return the run that an execution belongs to, if it is one of these, and its chain."""
        run_id, chain = found.info.execution.run_id, found.info.first_run_id or found.info.execution.run_id
        latest = False if found.info.status == _CONTINUED else None
        execution = Execution(run_id, chain, self.named(found.connection), latest=latest)
        execution = await self._logged(session, runs, execution)
        decided = belongs(execution, runs)
        if decided.asks:
            last = await self.find(found.connection, found.info.execution.workflow_id)
            decided = belongs(execution._replace(latest=last.info.execution.run_id == run_id), runs)
        return decided.run, execution

    async def _logged(self, session: str, runs: list[Run], execution: Execution) -> Execution:
        """Return an execution with what the log has of its chain, as far as that matters.

        The runs of the session are locked meanwhile, so the log is read as seldom as can be.
        """
        run_id, chain = execution.run_id, execution.chain
        chained = of_chain(execution, runs)
        if any(run.run_id == run_id for run in chained):
            return execution
        # A crash may have kept a reported end from the record, and the record may have forgotten the chain since.
        names = [run.run for run in chained if run.open] if chained or run_id == chain else [chain]
        ended = [name for name in names if await self._engine.position(session, f"closed:{name}") is not None]
        # No chain continues as its own first run.
        matters = run_id != chain and ended == names
        continued = matters and await self._engine.position(session, f"continued:{run_id}") is not None
        return execution._replace(ended=ended, continued=continued)

    async def named_after(self, session: str) -> Found | None:
        """Return the workflow of a session's name in the first namespace that has one, if any.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked now.
        """
        unavailable: TemporalUnavailableError | None = None
        for connection in self._namespaces:
            try:
                found = await self.find(connection, session)
            except WorkflowNotFoundError:
                continue
            except TemporalUnavailableError as error:
                unavailable = error
            else:
                if found.session in (None, session):
                    return found
        if unavailable is not None:
            raise unavailable
        return None


def is_older(info: WorkflowExecutionInfo, runs: Sequence[Run]) -> bool:
    """Return whether a run began before all runs of its workflow that a session already has."""
    known = [run.started_at for run in runs if run.workflow_id == info.execution.workflow_id and not run.activity]
    return bool(known) and timestamp(info.start_time.ToDatetime(tzinfo=UTC)) < min(known)
