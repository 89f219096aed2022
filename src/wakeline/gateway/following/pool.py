"""The followers of all runs: at most one for each, restarted after errors."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container, Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog
from temporalio.service import RPCError

from wakeline.background import cancel_all
from wakeline.errors import AttemptFencedError, EpochChangedError, RecordConflictError
from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following.audience import Audience
from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Child, Following, Limits
from wakeline.gateway.following.life.order import before
from wakeline.gateway.following.resuming import Resuming
from wakeline.gateway.following.roster import Key, Roster
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.turns import Turns
from wakeline.gateway.following.watching.attention import Attention, keep_assigning
from wakeline.gateway.log import Commit, Engine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Namespaces
from wakeline.gateway.runtime import log_failure, supervised
from wakeline.gateway.sessions import Followed, Intents, Run, Runs
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff

_LONGEST_PAUSE: Final = 60.0
_FAILED: Final = "following failed; it goes on from the record"
_log = structlog.get_logger(__name__)


class FollowerPool:
    """A follower for each open run of this gateway, and for each ended one with an unread rest.

    Args:
        namespaces: Temporal.
        engine: The log.
        accept: The way into it.
        runs: The record of each session's runs.
        settings: How often a run is polled, and how many are watched closely.
        hub: Knows on which sessions devices are.
        ownership: Decides which workflows this gateway follows.
        child: Has a child that says where it speaks followed.
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
        child: Child,
    ) -> None:
        self._namespaces = namespaces
        self._engine = engine
        self._runs = runs
        self._settings = settings
        self._audience = Audience(hub, runs, ownership)
        self._ownership = ownership
        ownership.listen(self._leased)
        self._roster = Roster()
        self._followers = self._roster.followers
        self._rests: dict[Key, Follower] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        turns = Turns(engine, runs, ownership, self._parts_of, self._followers, self._rests, self._tasks)
        shared = partial(
            Following,
            accept=accept,
            runs=runs,
            intents=Intents(engine),
            settings=settings,
            settled=hub.settle,
            watched=self._audience.watches,
            child=child,
            earlier=turns.come,
            limits=Limits(),
        )
        self._parts = {connection.namespace: shared(connection=connection) for connection in namespaces}
        self._keeping: list[asyncio.Task[None]] = []
        self._to_assign = asyncio.Event()
        self._resuming = Resuming(namespaces, engine, runs, ownership, self._start)
        engine.feed.listen(self._committed)
        self._audience.listen(self._to_assign.set)

    async def start(self) -> None:
        """Resume every run that was open when the gateway stopped."""
        await self._resuming.resume(None)
        most = self._settings.close_watches
        self._keeping = [
            supervised("close watching", partial(keep_assigning, self._to_assign, self._attentions, most)),
            supervised("resuming runs", self._resuming.run),
            supervised("audience", self._audience.run),
        ]

    async def stop(self) -> None:
        """Stop following; the next gateway goes on where the log ends."""
        await cancel_all(*self._keeping)
        while self._tasks:  # a task that ends may have begun another
            await cancel_all(*self._tasks.values())

    def count(self) -> int:
        """How many runs are followed now."""
        return len(self._followers)

    def workflows(self) -> int:
        """How many of them are runs of workflows rather than standalone activities."""
        return self._roster.workflows()

    def closely(self) -> int:
        """How many of them are watched closely."""
        return sum(follower.attention.closely for follower in self._followers.values())

    def followed(self, session: str) -> dict[str, Followed]:
        """Those of a session's runs that are followed now, by name."""
        followers = self._roster.of_session(session).items()
        return {run: Followed(follower.run, follower.state, follower.telling) for run, follower in followers}

    def sessions(self) -> Collection[str]:
        """Return the sessions of which a workflow's run is followed now."""
        return self._roster.sessions.keys()

    async def serves(self, session: str) -> bool:
        """Return whether a workflow's run of a session is followed here, and the session is there.

        A standalone activity does not count: the workflow of the session may still have to be found.
        Another gateway may have deleted it a moment ago: then its runs are no longer followed here.
        """
        if not self._ownership.shared or not self._roster.of_session(session):
            return session in self._roster.sessions
        state = await self._engine.state(session)
        for key in [key for key in self._tasks if key[0] == session]:
            if state is None or self._life_of(key) not in (None, state.epoch):
                self._end(key)
        return session in self._roster.sessions

    def follows(self, namespace: str, workflow_id: str) -> bool:
        """Whether a run of this workflow is followed now; the main namespace has no name here."""
        return bool(self._roster.of_workflow(namespace, workflow_id))

    def nudge(self, namespace: str, workflow_id: str) -> None:
        """Check the followed runs of a workflow at once."""
        for key in self._roster.of_workflow(namespace, workflow_id):
            self._followers[key].nudge()

    def tasks(self, namespace: str, workflow_id: str) -> list[asyncio.Task[None]]:
        """Return the tasks that follow a workflow's runs; each ends when the run's end is reported."""
        return [self._tasks[key] for key in self._roster.of_workflow(namespace, workflow_id)]

    def ended(self, run_ids: Container[str]) -> None:
        """Check those of these Temporal runs that are followed now: they have ended."""
        for follower in self._followers.values():
            if follower.run.run_id in run_ids:
                follower.nudge()

    async def take(self, session: str, run: Run, life: str) -> None:
        """Follow a recorded run, if it is open and ours; the session's runs are locked meanwhile.

        Args:
            session: The session's name.
            run: The run, as its record has it.
            life: The epoch of the session.

        Raises:
            EpochChangedError: The session was deleted meanwhile.
        """
        follower = self._followers.get((session, run.run))
        if follower is not None and follower.life in (None, life) and run.result and not follower.run.result:
            await follower.tell_result()
        if run.open:
            if not before(run, await self._runs.of(session)):  # else they come first
                await Follower(session, run, self._parts_of(run), life).announce()
            if self._ownership.owns(run.workflow_id):
                self._start(session, run, life)
            else:
                self._ownership.wakeups.wake("run", run.workflow_id, session)

    def _parts_of(self, run: Run) -> Following:
        return self._parts[run.namespace or self._namespaces.main.namespace]

    def _leased(self) -> None:
        """Follow what is ours now, and no longer what is not."""
        for key, follower in [*self._followers.items(), *self._rests.items()]:
            if not self._ownership.owns(follower.run.workflow_id):
                self._end(key)
        self._resuming.all()

    def _start(self, session: str, run: Run, life: str | None = None) -> None:
        key = (session, run.run)
        if key in self._tasks:
            if life is None or self._life_of(key) in (None, life):
                return
            self._end(key)  # it follows the run into a life that another gateway has ended
        if run.open:
            self._roster.add(self._make(session, run, life))
            self._tasks[key] = self._task(key, self._follow(key))
            self._to_assign.set()
        elif run.owed:
            rest = self._rests[key] = Follower(session, run, self._parts_of(run), life)
            self._tasks[key] = self._task(key, rest.follow())

    def _life_of(self, key: Key) -> str | None:
        """Return the life of the session that a run is followed into; None if that is not known yet."""
        return follower.life if (follower := self._followers.get(key) or self._rests.get(key)) else None

    def _make(self, session: str, run: Run, life: str | None) -> Follower:
        follower = Follower(session, run, self._parts_of(run), life)
        follower.attention.set(closely=not run.activity and self.workflows() < self._settings.close_watches)
        return follower

    def _task(self, key: Key, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is task:
                follower = self._followers.get(key)
                self._end(key)
                if follower is not None and follower.run.owed and not task.cancelled():
                    self._start(key[0], follower.run, follower.life)

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    def _end(self, key: Key) -> None:
        """Stop following a run."""
        self._tasks.pop(key).cancel()
        self._rests.pop(key, None)
        if self._roster.remove(key) is not None:
            self._to_assign.set()

    async def _follow(self, key: Key) -> None:
        """Follow a run; start again from its record after any error."""
        session, backoff, anew = key[0], Backoff(RETRY_SECONDS, _LONGEST_PAUSE), False
        while True:
            began = monotonic()
            try:
                if anew:
                    run = await self._runs.latest(session, key[1]) or self._followers[key].run
                    self._followers[key] = self._make(session, run, self._followers[key].life)
                    self._to_assign.set()
                anew = True
                await self._followers[key].follow()
            except EpochChangedError:
                return  # that life of the session is over, and its record with it
            except (AttemptFencedError, RecordConflictError):
                _log.info("another gateway has come further; it goes on from the record", session=session, run=key[1])
                # Both hold the run until a lease has moved: without a pause they would take turns as fast as they can.
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - one bad run must not stop being followed
                if isinstance(error, RPCError):  # no defect: a traceback would say nothing
                    _log.warning(_FAILED, error=error.message, session=session, run=key[1])
                else:
                    log_failure(_log, _FAILED, error, session=session, run=key[1])
                # After enough time without an error, the first pause is short again.
                if monotonic() - began >= _LONGEST_PAUSE:
                    backoff.reset()
                await backoff.wait()
            else:
                return

    def _committed(self, commits: Sequence[Commit]) -> None:
        # Follow nothing into a session that was deleted: further events would create it again.
        for commit in commits:
            if "deleted" in commit.changes:
                self._end_all(commit.session)
                if self._ownership.shared:  # the news may be late: a run may be registered in the next life already
                    self._resuming.soon(commit.session)

    def _end_all(self, session: str) -> None:
        for key in [key for key in self._tasks if key[0] == session]:
            self._end(key)

    def _attentions(self) -> list[tuple[bool, Attention]]:
        workflows = [follower for follower in self._followers.values() if not follower.run.activity]
        return [(self._audience.watches(follower.session), follower.attention) for follower in workflows]
