"""Starts and restarts followers: at most one for each run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog
from temporalio.service import RPCError

from wakeline.background import cancel_all
from wakeline.errors import AttemptFencedError, EpochChangedError, RecordConflictError
from wakeline.gateway.following.follower import Follower
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.life.order import before
from wakeline.gateway.following.resuming import Resuming
from wakeline.gateway.following.roster import Key, Roster
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.turns import Turns
from wakeline.gateway.following.watching.attention import Attention, keep_assigning
from wakeline.gateway.log import Commit
from wakeline.gateway.runtime import log_failure, supervised
from wakeline.gateway.sessions import Run
from wakeline.retry import Backoff

_LONGEST_PAUSE: Final = 60.0
_FAILED: Final = "following failed; it goes on from the record"
_log = structlog.get_logger(__name__)


class FollowerPool:
    """Has each open run of this gateway followed, and the rest of each ended one read.

    Args:
        parts: The parts of the gateway.

    Attributes:
        roster: The followers.
        earlier: See `Turns.come`.
    """

    def __init__(self, parts: Following) -> None:
        self.roster = Roster()
        self.earlier = Turns(parts, self.roster).come
        self._parts = parts
        self._keeping: list[asyncio.Task[None]] = []
        self._to_assign = asyncio.Event()
        self._resuming = Resuming(parts, self._start)
        parts.ownership.listen(self._leased)
        parts.engine.feed.listen(self._committed)
        parts.audience.listen(self._to_assign.set)

    async def start(self) -> None:
        """Resume every run that was open when the gateway stopped."""
        await self._resuming.resume(None)
        most = self._parts.settings.close_watches
        self._keeping = [
            supervised("close watching", partial(keep_assigning, self._to_assign, self._attentions, most)),
            supervised("resuming runs", self._resuming.run),
            supervised("audience", self._parts.audience.run),
        ]

    async def stop(self) -> None:
        """Stop following; the next gateway goes on where the log ends."""
        await cancel_all(*self._keeping)
        while self.roster.tasks:  # a task that ends may have begun another
            await cancel_all(*self.roster.tasks.values())

    async def serves(self, session: str) -> bool:
        """Return whether a workflow's run of a session is followed here, and the session is there.

        Another gateway may have deleted it a moment ago: then its runs are no longer followed here.
        """
        if self._parts.ownership.shared and any(key in self.roster.open for key in self.roster.of_session(session)):
            state = await self._parts.engine.state(session)
            for key in self.roster.of_session(session):
                if state is None or self._life_of(key) not in (None, state.epoch):
                    self._end(key)
        return self.roster.follows(session)

    async def take(self, session: str, run: Run, life: str) -> None:
        """Follow a recorded run, if it is open and ours; the session's runs are locked meanwhile.

        Args:
            session: The session's name.
            run: The run, as its record has it.
            life: The epoch of the session.

        Raises:
            EpochChangedError: The session was deleted meanwhile.
        """
        follower = self.roster.open.get((session, run.run))
        if follower is not None and follower.life in (None, life) and run.result and not follower.run.result:
            await follower.tell_result()
        if run.open:
            if not before(run, await self._parts.runs.of(session)):  # else they come first
                await Follower(session, run, self._parts, life).announce()
            if self._parts.ownership.owns(run.workflow_id):
                self._start(session, run, life)
            else:
                self._parts.ownership.wakeups.wake("run", run.workflow_id, session)

    def _leased(self) -> None:
        """Follow what is ours now, and no longer what is not."""
        for key, follower in [*self.roster.open.items(), *self.roster.rests.items()]:
            if not self._parts.ownership.owns(follower.run.workflow_id):
                self._end(key)
        self._resuming.all()

    def _start(self, session: str, run: Run, life: str | None) -> None:
        key = (session, run.run)
        if key in self.roster.tasks:
            if life is None or self._life_of(key) in (None, life):
                return
            self._end(key)  # it follows the run into a life that another gateway has ended
        if run.open:
            self.roster.add(self._make(session, run, life))
            self._begin(key, self._follow(key))
            self._to_assign.set()
        elif run.owed:
            self.roster.add(rest := Follower(session, run, self._parts, life))
            self._begin(key, rest.follow())

    def _life_of(self, key: Key) -> str | None:
        """Return the life of the session that a run is followed into; None if that is not known yet."""
        return follower.life if (follower := self.roster.get(key)) else None

    def _make(self, session: str, run: Run, life: str | None) -> Follower:
        follower = Follower(session, run, self._parts, life)
        closely = not run.activity and self.roster.workflows() < self._parts.settings.close_watches
        follower.attention.set(closely=closely)
        return follower

    def _begin(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            life_over = not task.cancelled() and isinstance(task.exception(), EpochChangedError)
            if self.roster.tasks.get(key) is task:
                follower = self.roster.open.get(key)
                self._end(key)
                if life_over:
                    self._resume_next_life(key[0])
                elif follower is not None and follower.run.owed and not task.cancelled():
                    self._start(key[0], follower.run, follower.life)

        self.roster.tasks[key] = asyncio.create_task(work)
        self.roster.tasks[key].add_done_callback(done)

    def _end(self, key: Key) -> None:
        """Stop following a run."""
        self.roster.remove(key)
        self._to_assign.set()

    async def _follow(self, key: Key) -> None:
        """Follow a run; start again from its record after any error.

        Raises:
            EpochChangedError: The session was deleted.
        """
        session, backoff, anew = key[0], Backoff(RETRY_SECONDS, _LONGEST_PAUSE), False
        followers = self.roster.open
        while True:
            began = monotonic()
            try:
                if anew:
                    run = await self._parts.runs.latest(session, key[1]) or followers[key].run
                    followers[key] = self._make(session, run, followers[key].life)
                    self._to_assign.set()
                anew = True
                await followers[key].follow()
            except EpochChangedError:
                raise  # that life of the session is over, and its record with it
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
                for key in self.roster.of_session(commit.session):
                    self._end(key)
                self._resume_next_life(commit.session)

    def _resume_next_life(self, session: str) -> None:
        # The news may be late: another gateway may have registered a run in the next life already.
        if self._parts.ownership.shared:
            self._resuming.soon(session)

    def _attentions(self) -> list[tuple[bool, Attention]]:
        workflows = [follower for follower in self.roster.open.values() if not follower.run.activity]
        return [(self._parts.audience.watches(each.session), each.attention) for each in workflows]
