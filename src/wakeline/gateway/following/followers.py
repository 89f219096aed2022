"""Follows the workflows of sessions that devices are on, and those that rules find."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.background import cancel_all
from wakeline.errors import (
    SessionClosedError,
    SessionNotFoundError,
    UnavailableError,
    WakelineError,
    WorkflowNotFoundError,
)
from wakeline.events import check_session_name
from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following.audience import Audience
from wakeline.gateway.following.finding.finder import Finder, Found, is_older
from wakeline.gateway.following.finding.readers import Readers
from wakeline.gateway.following.finding.rules import check_rules, session_by_rule
from wakeline.gateway.following.finding.sweep import Sweep, Swept
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.lookups import Lookups
from wakeline.gateway.following.pool import FollowerPool
from wakeline.gateway.following.registering import Registrar
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.wanted import Wanted
from wakeline.gateway.log import Commit, Engine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Connection, Namespaces, session_of
from wakeline.gateway.rules import Follow
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import Runs
from wakeline.gateway.settings import Settings
from wakeline.temporal.failures import UNKNOWN_TIMES

# A reader of an existing session waits so long for a new run that Temporal may have; not at all while Temporal is slower.
_PATIENCE: Final = 0.5
# So long a worker is kept for another gateway of the same log.
_ELSEWHERE_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Followers:
    """Finds what is to be followed, and has it followed.

    Args:
        namespaces: Temporal.
        engine: The log.
        accept: The way into it.
        runs: The record of each session's runs.
        settings: What is followed, and how often it is polled.
        hub: Knows on which sessions devices are.
        ownership: Decides which workflows this gateway follows.

    Attributes:
        register: See `Registrar.register`.
        published: See `Registrar.published`.
        learn: See `Registrar.learn`.
        closely: See `Roster.closely`.
        followed: See `Roster.followed`.

    Raises:
        SettingsInvalidError: A rule cannot be followed.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        engine: Engine,
        accept: Accept,
        runs: Runs,
        settings: Settings,
        hub: Hub,
        ownership: Ownership,
    ) -> None:
        check_rules(settings.follow, namespaces.__contains__)
        self._parts = parts = Following(
            namespaces=namespaces,
            engine=engine,
            accept=accept,
            runs=runs,
            settings=settings,
            hub=hub,
            ownership=ownership,
            audience=Audience(hub, runs, ownership),
            child=lambda *child: self._registrar.child(*child),
            earlier=lambda session, run: self._pool.earlier(session, run),
        )
        ownership.wakeups.listen("nudge", self._nudge)
        self._finder = Finder(namespaces, engine, runs)
        self._pool = FollowerPool(parts)
        self._roster = self._pool.roster
        self._readers = Readers(2 * settings.sweep_interval)
        engine.feed.listen(self._committed)
        self._wanted = Wanted(parts, self._readers, self._roster, self._finder)
        self._lookups = Lookups()
        self._nudged: set[asyncio.Task[None]] = set()  # of followed runs that were nudged
        self._sweeps: dict[str, Sweep] = {}
        self._registrar = Registrar(parts, self._finder, self._pool, self._sweeps, self._lookups)
        self._sweeps |= {connection.namespace: self._sweep(connection) for connection in namespaces}
        self.register = self._registrar.register
        self.published = self._registrar.published
        self.learn = self._registrar.learn
        self.closely = self._roster.closely
        self.followed = self._roster.followed
        self._sweeping: list[asyncio.Task[None]] = []
        self._prompt = True

    async def start(self) -> None:
        """Continue with every run that was open when the gateway stopped."""
        await self._pool.start()
        self._sweeping = [supervised(f"sweep of {namespace}", sweep.run) for namespace, sweep in self._sweeps.items()]

    async def stop(self) -> None:
        """Stop following; the next gateway goes on where the log ends."""
        await cancel_all(*self._sweeping, *self._lookups.running.values())
        await self._pool.stop()
        await cancel_all(*self._lookups.running.values())  # what followers have begun meanwhile

    def count(self) -> int:
        """How many runs are followed now."""
        return len(self._roster.open)

    async def watch(self, session: str) -> None:
        """Have the workflow of a session's name followed, because a device is on the session.

        Devices that arrive at once cause one check, and those that arrive during it at most another. Later readers of an
        existing session cause none for some minutes: sweeps check for new runs of sessions that are read.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked, and there is no session of this name to serve.
        """
        if await self._pool.serves(session):
            return
        state = await self._parts.engine.state(session)
        known = state is not None
        if state is not None:
            if state.closed:
                return  # nothing can be added to it
            self._readers.came(session)
            if self._readers.need_not_ask(session, state.epoch):
                return  # a sweep finds what begins after that
        if known and not all(connection.up() for connection in self._parts.namespaces):
            return  # what we have is served now, not after a time-out
        look = self._look_anew(session)
        if known and not self._prompt:
            return
        try:
            async with asyncio.timeout(_PATIENCE if known else None):
                await asyncio.shield(look)
        except (UnavailableError, TimeoutError):
            if not known:
                raise

    def nudge(self, workflow_id: str, namespace: str | None) -> None:
        """Have a workflow checked for new events soon, by the gateway that follows it; never fails."""
        with suppress(WorkflowNotFoundError):
            named = self._finder.named(self._finder.connection(namespace))
            self._nudge(workflow_id, named)
            self._parts.ownership.wakeups.wake("nudge", workflow_id, named)

    def _nudge(self, workflow_id: str, named: str) -> None:
        tasks = self._roster.nudge(named, workflow_id)
        if not tasks:
            self._look_nudged(workflow_id)
        self._look_after(workflow_id, tasks)

    def _look_after(self, workflow_id: str, tasks: Sequence[asyncio.Task[None]]) -> None:
        # The run may be over, and the nudge be of a later one: that is looked up once the end is reported.
        for task in tasks:
            if task not in self._nudged:
                self._nudged.add(task)
                task.add_done_callback(partial(self._over, workflow_id))

    def _over(self, workflow_id: str, task: asyncio.Task[None]) -> None:
        self._nudged.discard(task)
        if not task.cancelled():
            self._look_nudged(workflow_id)

    def _look_nudged(self, workflow_id: str) -> None:
        if self._parts.hub.watched(workflow_id):
            self._lookups.begin(("nudged", workflow_id), partial(self._look_if_there, workflow_id))

    async def ended(self, workflows: Sequence[tuple[str, str | None]]) -> None:
        """Find and check these workflows at once; return when the end of each is in its session."""
        ours: list[tuple[str, str]] = []
        unfound: dict[str, Sweep] = {}
        for workflow_id, namespace in workflows:
            with suppress(WorkflowNotFoundError):
                connection = self._finder.connection(namespace)
                ours.append((self._finder.named(connection), workflow_id))
                self.nudge(workflow_id, namespace)
                if self._registrar.rules(connection) and not self._roster.of_workflow(*ours[-1]):
                    unfound[connection.namespace] = self._sweeps[connection.namespace]
        await asyncio.gather(*(sweep.once_more() for sweep in unfound.values()))
        ids = {workflow_id for _, workflow_id in ours}
        while under_way := [*self._lookups.of(ids), *(task for of in ours for task in self._roster.tasks_of(*of))]:
            await asyncio.wait(under_way)
        if not all(self._parts.ownership.owns(workflow_id) for workflow_id in ids):
            await asyncio.sleep(_ELSEWHERE_SECONDS)  # another gateway may follow it, and does not report its end here

    def _look_anew(self, session: str) -> asyncio.Task[Any]:
        """Return a lookup that begins from now on; one that is under way may be too early."""
        if self._lookups.running.get(session) is not None:
            return self._lookups.begin(("next", session), partial(self._look_next, session))
        return self._lookups.begin(session, partial(self._look, session))

    async def _look_if_there(self, session: str) -> None:
        # Another gateway may have deleted it a moment ago: only a device begins another life.
        if await self._parts.engine.state(session) is not None:
            self._look_anew(session)  # not awaited: a nudge that comes meanwhile needs another one

    async def _look_next(self, session: str) -> None:
        while (under_way := self._lookups.running.get(session)) is not None:
            await asyncio.wait([under_way])
        if self._roster.follows(session):  # a run that was found before the nudge, perhaps
            self._look_after(session, [self._roster.tasks[key] for key in self._roster.of_session(session)])
        else:
            # Callers that come from now on need another lookup after this one.
            look = self._lookups.begin(session, partial(self._look, session))
            self._lookups.forget(("next", session), asyncio.current_task())
            await look

    async def _look(self, session: str) -> None:
        await self._registrar.caught_up()
        began, life = monotonic(), await self._finder.life(session)
        try:
            found = await self._finder.named_after(session)
        finally:
            self._prompt = monotonic() - began < _PATIENCE
        if found is not None:
            await self._registrar.rules_first(session, found, life)
            with suppress(SessionClosedError, SessionNotFoundError):  # nothing can be added to it
                await self._registrar.enter(session, found, life=life)
        if (state := await self._parts.engine.state(session)) is not None:  # else its readers wait for its start
            self._readers.asked(session, state.epoch)

    def _committed(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            if "deleted" in commit.changes:
                self._readers.forget(commit.session)

    def _sweep(self, connection: Connection) -> Sweep:
        swept = Swept(
            endings=lambda: self._roster.workflows() > self.closely(),
            ended=self._roster.ended,
            wanted=partial(self._wanted.workflows, connection),
            found=partial(self._found, connection),
        )
        rules = self._registrar.rules(connection)
        return Sweep(connection, self._parts.engine, rules, swept, self._parts.settings.sweep_interval)

    async def _found(self, connection: Connection, info: WorkflowExecutionInfo, rule: Follow | None) -> None:
        """A sweep has found a workflow that is to be followed."""
        workflow_id, run_id = info.execution.workflow_id, info.execution.run_id
        try:
            if rule is not None:
                named = await session_of(info, connection.converter)
                session = check_session_name(named or session_by_rule(rule, info))
                life = await self._finder.life(session)
                # Each sweep lists again what the one before has listed, and the first one what was found before a restart.
                if not any(run_id in (run.run, run.run_id) for run in await self._parts.runs.of(session)):
                    found = await self._listed(connection, workflow_id, run_id)
                    await self._registrar.enter(session, found, result=rule.result, life=life)
                return
            found = await self._listed(connection, workflow_id, run_id)
            waiting = self._wanted.sessions(connection, workflow_id)
            for session in [session for session in waiting if found.session in (None, session)]:
                life = await self._finder.life(session)
                if life is None or not self._wanted.waits(session):
                    continue  # it was deleted; another gateway's deletion may not have come here yet
                runs = await self._parts.runs.of(session)
                speaks = session == workflow_id or any(
                    run.workflow_id == workflow_id and not run.activity for run in runs
                )
                if speaks and not is_older(info, runs):
                    with suppress(SessionNotFoundError):
                        await self._registrar.enter(session, found, life=life)
        except UnavailableError:
            raise
        except WakelineError as error:
            _log.warning("a workflow that was found is not followed", workflow_id=workflow_id, error=error.message)

    async def _listed(self, connection: Connection, workflow_id: str, run_id: str) -> Found:
        """Find a run that was listed; it is passed over for good only if it is really not there."""
        for _ in range(UNKNOWN_TIMES - 1):
            with suppress(WorkflowNotFoundError):
                return await self._finder.find(connection, workflow_id, run_id)
            await asyncio.sleep(RETRY_SECONDS * random.uniform(1, 2))
        return await self._finder.find(connection, workflow_id, run_id)
