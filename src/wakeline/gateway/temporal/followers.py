"""Who is followed: what devices, registrations, publishers and rules ask for, and what was open when the gateway stopped."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Container, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from wakeline.errors import (
    AttemptFencedError,
    EpochChangedError,
    SessionClosedError,
    SettingsInvalidError,
    UnavailableError,
    WakelineError,
    WorkflowNotFoundError,
)
from wakeline.events import check_session_name
from wakeline.gateway.accept import Accept
from wakeline.gateway.hub import Hub
from wakeline.gateway.leases import Leases
from wakeline.gateway.log import Change, Engine
from wakeline.gateway.runs import Run, Runs, RunState
from wakeline.gateway.settings import Follow, Settings
from wakeline.gateway.temporal.finding.finder import Finder, Found
from wakeline.gateway.temporal.finding.rules import check_rule, fits, session_by_rule
from wakeline.gateway.temporal.finding.sweep import Sweep, Swept
from wakeline.gateway.temporal.follower import Follower, Following
from wakeline.gateway.temporal.late import Late
from wakeline.gateway.temporal.reaching.connection import Connection
from wakeline.gateway.temporal.reaching.namespaces import Namespaces
from wakeline.gateway.temporal.sessions import session_of
from wakeline.gateway.temporal.telling import RETRY_SECONDS

_LOOKS: Final = 16
_READS: Final = 32
_LATE_READS: Final = 8
_WANTED: Final = 2_000
# So long a reader of a session that there is waits for what Temporal says of a new run; not at all while Temporal is slower.
_PATIENCE: Final = 0.5
_ASSIGN_SECONDS: Final = 0.2
_CATCH_UP_SECONDS: Final = 5.0
_LONGEST_PAUSE: Final = 60.0
_log = structlog.get_logger(__name__)


class Followers:
    """All runs that this gateway follows, at most one follower each.

    Args:
        namespaces: Temporal.
        engine: The log.
        accept: The way into it.
        runs: The record of each session's runs.
        settings: What is followed, and how often it is looked at.
        hub: Knows on which sessions devices are.

    Raises:
        SettingsInvalidError: A rule cannot be followed.
    """

    def __init__(
        self, namespaces: Namespaces, engine: Engine, accept: Accept, runs: Runs, settings: Settings, hub: Hub
    ) -> None:
        self._namespaces = namespaces
        self._engine = engine
        self._runs = runs
        self._settings = settings
        self._hub = hub
        for rule in settings.follow:
            if check_rule(rule).namespace is not None and str(rule.namespace) not in namespaces:
                raise SettingsInvalidError(
                    f"expected a namespace of the settings in a rule of follow, got {rule.namespace!r}"
                )
        looks, reads, late_reads = (asyncio.Semaphore(count) for count in (_LOOKS, _READS, _LATE_READS))
        self._finder = Finder(namespaces, engine, runs)
        self._leases = Leases(engine, settings.lease, self._leased) if engine.shared else None
        self._parts = {
            connection.namespace: Following(
                connection=connection,
                accept=accept,
                runs=runs,
                settings=settings,
                settled=hub.settle,
                watched=hub.watched,
                child=self._child,
                earlier=self._earlier,
                looks=looks,
                reads=reads,
                late_reads=late_reads,
            )
            for connection in namespaces
        }
        self._sweeps = {connection.namespace: self._sweep(connection) for connection in namespaces}
        self._followers: dict[tuple[str, str], Follower] = {}
        self._of_workflow: defaultdict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        self._late: dict[tuple[str, str], Late] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._looking: dict[object, asyncio.Task[Any]] = {}
        self._beside: list[asyncio.Task[None]] = []
        self._assigning = asyncio.Event()
        # However many workflows publishers and parents name, so many are looked for at once.
        self._naming = asyncio.Semaphore(_LOOKS)
        self._prompt = True
        engine.listen_changes(self._changed)

    async def start(self) -> None:
        """Go on with every run that was open when the gateway stopped; Temporal is connected to already, or tried."""
        if self._leases is not None:
            await self._leases.start()
        await self._resume()
        self._beside = [asyncio.create_task(sweep.run()) for sweep in self._sweeps.values()]
        self._beside.append(asyncio.create_task(self._keep_assigning()))

    async def stop(self) -> None:
        """Stop following; the next gateway goes on where the log ends."""
        tasks = [*self._beside, *self._tasks.values(), *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._leases is not None:
            await self._leases.stop()

    def count(self) -> int:
        """How many runs are followed now."""
        return len(self._followers)

    def closely(self) -> int:
        """How many of them are watched closely."""
        return sum(follower.attention.closely for follower in self._followers.values())

    def followed(self, session: str, run: str) -> bool:
        """Whether a run is followed now."""
        return (session, run) in self._followers

    def state(self, session: str, run: str) -> RunState | None:
        """What a run is doing; None if it is not followed here."""
        follower = self._followers.get((session, run))
        return None if follower is None else follower.state

    async def watch(self, session: str) -> None:
        """A device is on this session: see that the workflow of its name, if there is one, is followed.

        Any number of devices that come at once cause one look.

        Raises:
            TemporalUnavailableError: Temporal cannot be asked, and there is no session of this name to serve.
        """
        self._assigning.set()
        if any(watched == session for watched, _ in self._followers):
            return
        known = await self._engine.state(session) is not None
        if known and not all(connection.up() for connection in self._namespaces):
            return  # what we have is served now, not after a time-out
        look = asyncio.shield(self._begin(session, partial(self._look, session)))
        if known and not self._prompt:
            return
        try:
            await asyncio.wait_for(look, _PATIENCE if known else None)
        except (UnavailableError, TimeoutError):
            if not known:
                raise

    async def register(
        self,
        workflow_id: str,
        session: str | None,
        *,
        namespace: str | None = None,
        result: bool = False,
        may: Callable[[str], bool] = lambda session: True,
    ) -> tuple[str, Run]:
        """Follow the workflow's latest run into a session until it ends.

        Args:
            workflow_id: The workflow.
            session: The session; None: the one that the workflow's memo or search attribute names, or the one of its own name.
            namespace: Its namespace; None is the main one.
            result: Tell what it completes with.
            may: Whether the caller reaches the session that the workflow names.

        Raises:
            WorkflowNotFoundError: Temporal has no such workflow, or the gateway no such namespace.
            TemporalUnavailableError: Temporal cannot be asked now.
            SessionClosedError: The session is closed, and the run is not one of its own.
        """
        connection = self._finder.connection(namespace)
        await self._caught_up()
        found = await self._finder.find(connection, workflow_id)
        session = check_session_name(session or found.session or workflow_id)
        if not may(session):
            raise WorkflowNotFoundError(
                f"Temporal has no workflow {workflow_id!r} for a session that the token reaches"
            )
        await self._rules_first(session, found)
        return session, await self._enter(session, found, result=result)

    def nudge(self, workflow_id: str, namespace: str | None) -> None:
        """A workflow may have something new: look at once, if it is followed or has a device."""
        with suppress(WorkflowNotFoundError):
            named = self._finder.named(self._finder.connection(namespace))
            followed = self._of_workflow.get((named, workflow_id))
            for key in followed or ():
                self._followers[key].nudge()
            if not followed and self._hub.watched(workflow_id):
                self._begin(workflow_id, partial(self._look, workflow_id))

    def published(self, session: str, workflow_id: str, namespace: str | None, *, manages: bool) -> None:
        """A publisher of a session names this workflow: follow it into the session, if that may be."""
        work = partial(self._published, session, workflow_id, namespace, manages=manages)
        self._begin((session, workflow_id, namespace), work)

    def _child(self, namespace: str, workflow_id: str) -> None:
        """A workflow that is followed has a child that says where it speaks: follow it there."""
        connection = self._namespaces[namespace]
        if (self._finder.named(connection), workflow_id) not in self._of_workflow:
            self._begin((namespace, workflow_id), partial(self._enter_child, connection, workflow_id))

    async def _enter_child(self, connection: Connection, workflow_id: str) -> None:
        try:
            async with self._naming:
                found = await self._finder.find(connection, workflow_id)
            if found.session is not None:
                await self._enter(check_session_name(found.session), found)
        except WakelineError as error:
            _log.info("a child is not followed", workflow_id=workflow_id, error=error.message)

    async def _published(self, session: str, workflow_id: str, namespace: str | None, *, manages: bool) -> None:
        try:
            connection = self._finder.connection(namespace)
            await self._caught_up()
            async with self._naming:
                found = await self._finder.find(connection, workflow_id)
            if manages or session in (found.session, workflow_id):
                await self._rules_first(session, found)
                await self._enter(session, found)
            else:
                _log.debug("a publisher's workflow is not of this session", session=session, workflow_id=workflow_id)
        except WakelineError as error:
            _log.info("a publisher's workflow is not followed", session=session, error=error.message)

    async def _caught_up(self) -> None:
        """What rules find comes first, in its order; who comes right after a start would else bring in the latest before it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await asyncio.gather(*(sweep.caught_up() for sweep in self._sweeps.values()))

    async def _rules_first(self, session: str, found: Found) -> None:
        """A run that is new to a session may not be the first that a rule should have found since its last sweep."""
        run_id = found.info.execution.run_id
        if not any(run_id in (run.run, run.run_id) for run in await self._runs.of(session)):
            await self._sweeps[found.connection.namespace].find_runs_of(found.info.execution.workflow_id)

    async def _look(self, session: str) -> None:
        await self._caught_up()
        began = monotonic()
        try:
            found = await self._finder.named_after(session)
        finally:
            self._prompt = monotonic() - began < _PATIENCE
        if found is not None:
            await self._rules_first(session, found)
            with suppress(SessionClosedError):  # nothing can be added to it
                await self._enter(session, found)

    async def _enter(self, session: str, found: Found, *, result: bool = False) -> Run:
        # A device may be faster than the rule that finds the workflow.
        result |= any(
            rule.result and rule.query is None and fits(rule, found.info) for rule in self._rules(found.connection)
        )
        async with self._runs.lock(session):
            run = await self._finder.enter(session, found, result=result)
            if (follower := self._followers.get((session, run.run))) is not None and run.result:
                follower.tell_result()
            if run.open and self._is_mine(run):
                if not _before(run, await self._runs.of(session)):  # else they come first
                    await Follower(session, run, self._parts_of(run)).announce()
                self._start(session, run)
        return run

    def _begin(self, key: object, work: Any) -> asyncio.Task[Any]:
        """Do something in the background, once at a time."""
        task = self._looking.get(key)
        if task is None:
            task = self._looking[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: (self._looking.pop(key, None), done.cancelled() or done.exception()))
        return task

    def _parts_of(self, run: Run) -> Following:
        return self._parts[run.namespace or self._namespaces.main.namespace]

    def _is_mine(self, run: Run) -> bool:
        return self._leases is None or self._leases.mine(run.workflow_id)

    async def _resume(self) -> None:
        """Go on with every run that is open or owes something, and is ours."""
        for session, run in await self._runs.unfinished():
            if run.namespace and run.namespace not in self._namespaces:
                _log.warning("a run's namespace is not among the settings", session=session, namespace=run.namespace)
            elif self._is_mine(run):
                self._start(session, run)

    def _leased(self) -> None:
        """Follow what is ours now, and no longer what is not."""
        for key, follower in list(self._followers.items()):
            if not self._is_mine(follower.run):
                self._end(key)
        self._begin("resume", self._resume)

    def _start(self, session: str, run: Run) -> None:
        key = (session, run.run)
        if key in self._tasks:
            return
        if run.open:
            self._followers[key] = self._make(session, run)
            self._of_workflow[run.namespace, run.workflow_id].add(key)
            self._tasks[key] = self._task(key, self._follow(key))
            self._assigning.set()
        elif run.owed:
            late = self._late[key] = Late(session, run, self._parts_of(run))
            self._tasks[key] = self._task(key, late.wait())

    def _make(self, session: str, run: Run) -> Follower:
        follower = Follower(session, run, self._parts_of(run))
        follower.attention.set(closely=len(self._followers) < self._settings.close_watches)
        return follower

    def _task(self, key: tuple[str, str], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is task:
                follower = self._followers.get(key)
                self._end(key)
                if follower is not None and follower.run.owed and not task.cancelled():
                    self._start(key[0], follower.run)

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    def _end(self, key: tuple[str, str]) -> None:
        """Follow it no more."""
        self._tasks.pop(key).cancel()
        self._late.pop(key, None)
        follower = self._followers.pop(key, None)
        if follower is not None:
            of_workflow = (follower.run.namespace, follower.run.workflow_id)
            self._of_workflow[of_workflow].discard(key)
            if not self._of_workflow[of_workflow]:
                del self._of_workflow[of_workflow]
            self._assigning.set()

    async def _follow(self, key: tuple[str, str]) -> None:
        """Follow a run, starting anew from its record whatever goes wrong."""
        session, failures = key[0], 0
        while True:
            follower = self._followers[key]
            try:
                await follower.follow()
            except EpochChangedError:
                return  # that life of the session is over, and its record with it
            except AttemptFencedError:
                _log.info("another gateway has come further; it goes on from the record", session=session, run=key[1])
            except Exception:  # noqa: BLE001 - one bad run must not stop being followed
                _log.exception("following failed; it goes on from the record", session=session, run=key[1])
                await asyncio.sleep(min(RETRY_SECONDS * 2**failures, _LONGEST_PAUSE))
                failures += 1
            else:
                return
            self._followers[key] = self._make(session, await self._runs.latest(session, key[1]) or follower.run)

    async def _earlier(self, session: str, run: Run) -> None:
        """What ended runs still owe a session comes before the first event of a later one, or not at all.

        An earlier run of the same workflow has ended, too, even if we have not come to its end.
        """
        for other in _before(run, await self._runs.of(session)):
            key = (session, other.run)
            while key in self._followers:
                await asyncio.wait([self._tasks[key]])
            if key in self._late:
                await self._late[key].last_chance()

    def _changed(self, session: str, _: str, change: Change) -> None:
        """Follow nothing into a session that was deleted: what is still to come would bring it back."""
        if change == "deleted":
            for key in [key for key in self._tasks if key[0] == session]:
                self._end(key)

    async def _keep_assigning(self) -> None:
        """Watch closely as many runs as may be: first those whose sessions have devices, then those that were."""
        while True:
            await self._assigning.wait()
            self._assigning.clear()
            followers = list(self._followers.values())
            if len(followers) > self._settings.close_watches:
                followers.sort(key=lambda f: (not self._hub.watched(f.session), not f.attention.closely))
            for place, follower in enumerate(followers):
                follower.attention.set(closely=place < self._settings.close_watches)
            await asyncio.sleep(_ASSIGN_SECONDS)

    def _sweep(self, connection: Connection) -> Sweep:
        swept = Swept(
            endings=lambda: self.count() > self.closely(),
            ended=self._ended,
            wanted=partial(self._wanted, connection),
            found=partial(self._found, connection),
        )
        rules = self._rules(connection)
        return Sweep(connection, self._engine, rules, swept, self._settings.sweep_interval)

    def _rules(self, connection: Connection) -> list[Follow]:
        """The rules for a namespace."""
        main = self._namespaces.main.namespace
        return [rule for rule in self._settings.follow if (rule.namespace or main) == connection.namespace]

    def _ended(self, run_ids: Container[str]) -> None:
        for follower in self._followers.values():
            if follower.run.run_id in run_ids:
                follower.nudge()

    async def _wanted(self, connection: Connection) -> Sequence[str]:
        """Workflows that devices wait for: of sessions that are watched and of which no run is followed."""
        followed = {session for session, _ in self._followers}
        wanted: dict[str, None] = {}
        waited_for = [session for session in self._hub.sessions() if session not in followed]
        if len(waited_for) > _WANTED:
            waited_for = random.sample(waited_for, _WANTED)  # the others have their turn later
        for session in waited_for:
            if len(wanted) < _WANTED:
                runs = [run for run in await self._runs.of(session) if run.namespace == self._finder.named(connection)]
                wanted |= dict.fromkeys([session, *(run.workflow_id for run in runs[-10:])])
        return list(wanted)

    async def _found(self, connection: Connection, info: WorkflowExecutionInfo, rule: Follow | None) -> None:
        """A sweep has found a workflow that is to be followed."""
        workflow_id, run_id = info.execution.workflow_id, info.execution.run_id
        try:
            if rule is not None:
                named = await session_of(info, connection.converter)
                session = check_session_name(named or session_by_rule(rule, info))
                # Each sweep lists again what the one before has listed, and the first one what was found before a restart.
                if not any(run_id in (run.run, run.run_id) for run in await self._runs.of(session)):
                    found = await self._finder.find(connection, workflow_id, run_id)
                    await self._enter(session, found, result=rule.result)
                return
            found = await self._finder.find(connection, workflow_id, run_id)
            for session in [session for session in self._hub.sessions() if found.session in (None, session)]:
                runs = await self._runs.of(session)
                if session == workflow_id or any(run.workflow_id == workflow_id for run in runs):
                    await self._enter(session, found)
        except UnavailableError:
            raise
        except WakelineError as error:
            _log.warning("a workflow that was found is not followed", workflow_id=workflow_id, error=error.message)


def _before(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Those of a session's runs that have something to say before this one's first event."""
    of_workflow = [r for r in runs if (r.namespace, r.workflow_id) == (run.namespace, run.workflow_id) and r.open]
    earlier = [r.run for r in of_workflow if (r.started_at, r.run) < (run.started_at, run.run)]
    return [r for r in runs if r.run != run.run and (r.owed or r.run in earlier)]
