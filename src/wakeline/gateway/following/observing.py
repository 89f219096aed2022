"""Follows one Temporal run to its end: copies its stream and reports its state."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Final

import structlog

from wakeline.background import cancel_all
from wakeline.errors import RecordConflictError, SessionClosedError, UnavailableError
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.answers import Answer, Copied
from wakeline.gateway.following.life.observations import Ended
from wakeline.gateway.following.life.pace import Pace
from wakeline.gateway.following.watching.attention import Attention
from wakeline.gateway.following.watching.standalone import activity_ended
from wakeline.gateway.following.watching.state import StateWatch
from wakeline.gateway.following.watching.watch import RunWatch
from wakeline.gateway.runtime import log_failure
from wakeline.gateway.sessions import RunState

# An answer that is under way when a run ends is waited for so long.
_LAST_ANSWER_SECONDS: Final = 2.0
# Delay before the state of a run is reported again after an unexpected error.
_LOOK_AGAIN: Final = 30.0
_log = structlog.get_logger(__name__)


class Observer:
    """Follows the Temporal runs of one chain, one after the other.

    Args:
        subject: The run.

    Attributes:
        attention: How closely the run is watched.
        reader: Reads the stream of the latest Temporal run that was followed.
    """

    def __init__(self, subject: Subject) -> None:
        self.attention = Attention()
        self.reader: StreamReader | None = None
        self._subject = subject
        self._parts = subject.parts
        self._watch: RunWatch | None = None
        self._state: StateWatch | None = None
        self._later: asyncio.Task[None] | None = None

    @property
    def state(self) -> RunState:
        """The present activity of the run, as far as is known."""
        if self._state is not None:
            return self._state.state
        # Not described yet, or over.
        return RunState(waiting=self._subject.run.waiting) if self._watch is None else RunState()

    def nudge(self) -> None:
        """Check the workflow for new events soon."""
        if self._watch is not None:
            self._watch.nudge()

    async def follow(self) -> Ended:
        """Follow one Temporal run to its end, while its stream is copied and its state reported."""
        parts, run_id = self._parts, self._subject.run.run_id
        if self._subject.run.activity:
            return Ended(run_id, await activity_ended(self._subject), read_whole=True)
        await self._subject.copy.begin()
        reader = self.reader = StreamReader(self._subject.connection, self._subject.run.workflow_id, run_id)
        watch = self._watch = RunWatch(self._subject, run_id, self.attention)
        self._state = StateWatch(self._subject, run_id, watch, reader)
        ended = asyncio.create_task(watch.ended())
        reading = asyncio.create_task(self._read_on(reader, watch))
        tasks = [ended, reading, asyncio.create_task(self._look_on(self._state))]
        try:
            await asyncio.wait([ended, reading], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()  # a follower that cannot read any more ends, and the next one continues from the record
            ending = await ended
            # The query that is under way may be the last that a worker answers; cut off, it makes its worker warn.
            await asyncio.wait([reading], timeout=min(parts.settings.drain_grace, _LAST_ANSWER_SECONDS))
        finally:
            reader.stop()
            await cancel_all(*tasks)
            self._state = None
        reported = ending.follows_by == "reset" and await self._subject.teller.told(f"closed:{self._subject.run.run}")
        return Ended(run_id, ending, watch.read_whole, reported)

    async def _read_on(self, reader: StreamReader, watch: RunWatch) -> None:
        """Copy the stream for as long as the run is open."""
        settings = self._parts.settings
        pace = Pace(settings.poll_fastest, settings.poll_slowest, settings.poll_fastest)
        while not watch.over.is_set():
            happened, task = watch.happened, watch.history.scheduled
            # This takes no place among the reads, because a host without news may take 20 seconds.
            await reader.until_answered(self._subject.copy.offset)
            try:
                async with self._parts.limits.reads if not self.attention.closely else nullcontext():
                    copied = await self._subject.copy.read(reader)
            except SessionClosedError:
                return
            except UnavailableError as error:
                copied = Copied(Answer.NOBODY, reason=str(error))
            if copied.answer is Answer.READ:
                watch.unanswered = False
                watch.read = watch.read if reader.by_update else task
            elif not copied.answer.is_final:
                watch.unanswered = True
                _log.debug("cannot read a stream now", workflow_id=self._subject.run.workflow_id, error=copied.reason)
            update_pause = reader.pause(watch.history.updates) if reader.waits else None
            closely = self.attention.closely
            pace, wait = pace.after(copied, closely=closely, followed=watch.tells, update_pause=update_pause)
            await (watch.news(happened, wait.seconds) if wait.news else watch.pause(wait.seconds))

    async def report_state_of(self, run_id: str) -> None:
        """Report the state of a later run of the chain from now on; of none if `run_id` is empty."""
        await cancel_all(self._later)
        self._later = asyncio.create_task(self._look_at(run_id)) if run_id else None

    async def _look_on(self, state: StateWatch) -> None:
        """Report the state of a run for as long as it is watched closely."""
        while True:
            if not self.attention.closely:
                await self.attention.changed()
                continue
            try:
                await self.attention.while_so(state.follow())
            except RecordConflictError:
                return  # another gateway reports it
            except Exception as error:  # noqa: BLE001 - the state of a run matters less than its output
                log_failure(
                    _log, "the state of a run cannot be reported", error, workflow_id=self._subject.run.workflow_id
                )
                await asyncio.sleep(_LOOK_AGAIN)

    async def _look_at(self, run_id: str) -> None:
        """Report the state of a later run of the chain than the one whose output has its turn."""
        reader = StreamReader(self._subject.connection, self._subject.run.workflow_id, run_id)
        watch = RunWatch(self._subject, run_id, self.attention)
        self._state = StateWatch(self._subject, run_id, watch, reader)
        try:
            await self._look_on(self._state)
        finally:
            self._state = None
