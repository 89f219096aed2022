"""Registers workflows: enters their runs into sessions, in the order of their starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog

from wakeline.background import wait_at_most
from wakeline.errors import EpochChangedError, SessionClosedError, SessionNotFoundError, WorkflowNotFoundError
from wakeline.events import check_session_name
from wakeline.gateway.following.finding.finder import Finder, Found, is_older
from wakeline.gateway.following.finding.rules import fits
from wakeline.gateway.following.finding.sweep import Sweep
from wakeline.gateway.following.following import Following, Subject
from wakeline.gateway.following.lookups import Lookups, until_followed
from wakeline.gateway.following.pool import FollowerPool
from wakeline.gateway.reaching import Connection
from wakeline.gateway.rules import Follow
from wakeline.gateway.sessions import NOT_ALLOWED, NOT_FOUND, Run, Unfollowed

_NAMINGS: Final = 16
_CATCH_UP_SECONDS: Final = 5.0
# A refusal is reported to a publisher after a whole number of these seconds, because Temporal answers at different speeds for
# a missing and for a foreign workflow.
_ALIKE_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Registrar:
    """Enters the runs of workflows that are named into sessions, and has them followed.

    Args:
        parts: The parts of the gateway.
        finder: Asks Temporal for workflows.
        pool: Follows their runs.
        sweeps: The sweep of each namespace.
        lookups: The lookups that are under way.
    """

    def __init__(
        self, parts: Following, finder: Finder, pool: FollowerPool, sweeps: Mapping[str, Sweep], lookups: Lookups
    ) -> None:
        self._parts = parts
        self._runs = parts.runs
        self._finder = finder
        self._pool = pool
        self._sweeps = sweeps
        self._lookups = lookups
        # However many workflows publishers and parents name, so many are looked up at once.
        self._naming = asyncio.Semaphore(_NAMINGS)

    async def register(
        self,
        workflow_id: str,
        session: str | None,
        *,
        namespace: str | None = None,
        run_id: str | None = None,
        result: bool = False,
        activity: bool = False,
        reaches: Callable[[str], bool] = lambda session: True,
        any_workflow: bool = True,
        life: str | None = None,
    ) -> tuple[str, Run]:
        """Follow the workflow's latest run, or one of its runs, into a session until it ends.

        Args:
            workflow_id: The workflow.
            session: The session; None: the one that the workflow's memo or search attribute names, or the one of its own name.
            namespace: Its namespace; None is the main one.
            run_id: The Temporal run; None is the latest.
            result: Report what it completes with.
            activity: Whether `workflow_id` is the id of a standalone activity.
            reaches: Whether the caller reaches a session.
            any_workflow: Whether the caller may register a workflow that names no session which the caller reaches.
            life: Register it in this life of the session only. Default: in any, or in a new one.

        Raises:
            WorkflowNotFoundError: There is no such workflow or namespace, or the caller may not register the workflow.
            TemporalUnavailableError: Temporal cannot be asked now.
            SessionClosedError: The session is closed, and the run is not one of its own.
            SessionNotFoundError: The session of `life` was deleted.
        """

        async def work() -> tuple[str, Run]:
            connection = self._finder.connection(namespace)
            await self.caught_up()
            found = await self._finder.find(connection, workflow_id, run_id, activity=activity)
            into = check_session_name(session or found.session or workflow_id)
            own = any_workflow or (found.session is not None and reaches(found.session))
            if not (own and reaches(into)):
                what = f"Temporal has no workflow {workflow_id!r} of a session that the token reaches"
                raise WorkflowNotFoundError(what)
            if not activity:
                await self.rules_first(into, found, life)
            return into, await self.enter(into, found, result=result, life=life)

        # It ends also if the caller leaves: a run that is recorded and not followed would be open for ever.
        return await asyncio.shield(self._lookups.begin(object(), work))

    def published(
        self,
        session: str,
        workflow_id: str,
        namespace: str | None,
        *,
        run: str | None,
        manages: bool,
        life: str,
        refused: Callable[[Unfollowed], None] = lambda reason: None,
    ) -> None:
        """Follow a workflow that a publisher of a session names, if that is allowed.

        It is allowed if the session has the workflow's name, if the workflow names the session, or if `manages`. The call
        returns at once and continues in the background, in this life of the session only; errors are only logged. `refused`
        is called if the workflow is not allowed or not there.
        """
        allowed, began = manages or session == workflow_id, monotonic()

        def not_allowed() -> None:
            delay = _ALIKE_SECONDS - (monotonic() - began) % _ALIKE_SECONDS
            asyncio.get_running_loop().call_later(delay, refused, NOT_ALLOWED)

        async def work() -> None:
            await self.caught_up()
            try:
                connection = self._finder.connection(namespace)
                async with self._naming:
                    found = await self._named(connection, workflow_id, run)
            except WorkflowNotFoundError:
                if not allowed:
                    not_allowed()
                raise
            if allowed or session == found.session:
                await self.rules_first(session, found, life)
                await self.enter(session, found, life=life)
            else:
                not_allowed()

        async def until() -> None:
            error = await until_followed(work, session=session)
            if allowed and isinstance(error, WorkflowNotFoundError):
                refused(NOT_FOUND)

        self._lookups.begin((session, workflow_id, namespace, run, manages, life), until)

    async def learn(self, session: str, run_id: str, beside: str) -> None:
        """Have the name of a Temporal run's run known, if Temporal has the run.

        Args:
            session: The session's name.
            run_id: The Temporal run, which the session's records do not have yet.
            beside: Another run, maybe of the same workflow. If no record has it, the workflow of the session's name is meant.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked now.
        """
        life = await self._finder.life(session)
        known = next((run for run in await self._runs.of(session) if beside in run.run_ids), None)
        workflow_id, namespace = (session, "") if known is None else (known.workflow_id, known.namespace)
        with suppress(WorkflowNotFoundError, SessionClosedError, SessionNotFoundError):
            async with self._naming:
                found = await self._finder.find(self._finder.connection(namespace), workflow_id, run_id)
            if known is not None:
                await self._finder.learn(session, found)
            elif found.session in (None, session):  # as if it had published
                await self.rules_first(session, found, life)
                await self.enter(session, found, life=life)

    def child(self, parent: Subject, workflow_id: str, run_id: str) -> asyncio.Task[Any]:
        """Follow the child of a followed workflow into the session that it names, if it names one.

        Args:
            parent: Its parent's run. If the child names the same session, a deletion of that is not undone.
            workflow_id: The child's Workflow Id.
            run_id: Its run.
        """
        connection, beside, life = parent.connection, parent.session, parent.teller.epoch

        async def work() -> None:
            async with self._naming:
                found = await self._finder.find(connection, workflow_id, run_id)
            if found.session is not None:
                its = life if found.session == beside else None
                await self.enter(check_session_name(found.session), found, life=its)

        key = (connection.namespace, workflow_id, run_id, beside, life)
        return self._lookups.begin(key, partial(until_followed, work))

    async def _named(self, connection: Connection, workflow_id: str, run: str | None) -> Found:
        """Return the run that a publisher names; else the latest, as it may use names of its own."""
        if run:
            with suppress(WorkflowNotFoundError):
                return await self._finder.find(connection, workflow_id, run)
        return await self._finder.find(connection, workflow_id)

    async def caught_up(self) -> None:
        """Wait for the rules' first sweep: runs that it finds come before later ones."""
        caught_up = asyncio.gather(*(sweep.caught_up() for sweep in self._sweeps.values()))
        await wait_at_most(_CATCH_UP_SECONDS, caught_up)

    async def rules_first(self, session: str, found: Found, life: str | None) -> None:
        """Apply the rules, and register the runs before a new one, so that all are in order."""
        run_id, workflow_id = found.info.execution.run_id, found.info.execution.workflow_id
        runs = await self._runs.of(session)
        if any(run_id in (run.run, run.run_id) for run in runs):
            return
        sweep = self._sweeps[found.connection.namespace]
        await sweep.find_runs_of(workflow_id)
        if any(run.workflow_id == workflow_id and not run.activity for run in runs):
            for earlier in await sweep.visibility.runs_before(workflow_id, run_id):
                with suppress(WorkflowNotFoundError):
                    between = await self._finder.find(found.connection, workflow_id, earlier)
                    if between.session in (None, session) and not is_older(between.info, runs):
                        await self.enter(session, between, life=life)

    async def enter(self, session: str, found: Found, *, result: bool = False, life: str | None = None) -> Run:
        """Enter a run into a session, and have it followed; see `Finder.enter`.

        Raises:
            WakelineError: What `Finder.enter` raises.
        """
        # A device may be faster than the rule that finds the workflow.
        rules = [rule for rule in self.rules(found.connection) if rule.result and rule.query is None]
        result |= not found.activity and any(fits(rule, found.info) for rule in rules)
        async with self._runs.lock(session):
            entered = await self._finder.enter(session, found, result=result, life=life)
            try:
                await self._pool.take(session, *entered)
            except EpochChangedError:
                if await self._finder.life(session) is None:
                    await self._runs.forget(session)  # it was recorded after the deletion
                raise SessionNotFoundError(f"expected session {session!r}, it was deleted meanwhile") from None
        return entered.run

    def rules(self, connection: Connection) -> list[Follow]:
        """Return the rules for a namespace."""
        main = self._parts.namespaces.main.namespace
        return [rule for rule in self._parts.settings.follow if (rule.namespace or main) == connection.namespace]
