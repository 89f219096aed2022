"""The follower: the one reader that pulls a workflow's own stream into its session and tells how the run ended.

Its publisher's sequence is the upstream offset, and each of Wakeline's own events has a publisher of its own. So whatever
stops a follower at whatever moment, the next one appends the same things again and the log keeps one copy.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from temporalio.api.sdk.v1 import WorkflowMetadata

from wakeline.background import cancel_all
from wakeline.errors import SessionClosedError, UnavailableError
from wakeline.events import (
    INPUT_UNDONE,
    RUN_CLOSED,
    RUN_CONTINUED,
    RUN_STARTED,
    SESSION_SETTLED,
    compose,
    timestamp,
)
from wakeline.gateway.following.copying import told
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import NoStreamError, NotNowError, StreamReader
from wakeline.gateway.following.draining import Drainer
from wakeline.gateway.following.following import Following
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching.endings import Ending
from wakeline.gateway.following.watching.resets import send_again, supersede_undone, undone_inputs
from wakeline.gateway.following.watching.state import METADATA_QUERY, StateWatch, over
from wakeline.gateway.following.watching.watch import Attention, RunWatch
from wakeline.gateway.sessions import Run, RunState, Telling

_NO_STREAM_SECONDS: Final = 2.0
_NO_STREAM_MOST: Final = 300.0
# While the history tells of everything, the stream is read without being told only to be sure.
_BE_SURE: Final = 120.0
_SWEPT_MOST: Final = 300.0
# An answer that is under way when a run ends is waited for so long.
_LAST_ANSWER_SECONDS: Final = 2.0
# What went wrong as nobody thought may go wrong again.
_LOOK_AGAIN: Final = 30.0
# Activities of that many Temporal runs before the latest may still publish.
_EARLIER: Final = 10
_RESULT_BYTES: Final = 16 * 1024
# The latest event of these tells whether the session is settled.
_STANDING: Final = frozenset({RUN_STARTED, RUN_CLOSED, SESSION_SETTLED})
_log = structlog.get_logger(__name__)


class Follower:
    """Follows one run, through everything it continues as, to its end.

    Args:
        session: Where its output goes.
        run: What is known of the run, from its record.
        parts: What followers share.

    Attributes:
        attention: How closely it is watched.
    """

    def __init__(self, session: str, run: Run, parts: Following) -> None:
        self.session = session
        self.attention = Attention()
        self._parts = parts
        self._teller = Teller(session, run.run, parts.accept)
        self._copy = StreamCopy(run, self._teller, parts.accept, parts.runs)
        self._watch: RunWatch | None = None
        self._state: StateWatch | None = None
        self._telling: Telling | None = None
        self._drainer = Drainer(parts, self._copy, self._look_at)

    @property
    def telling(self) -> Telling | None:
        """What is being told of the run: who has read it is not told anything else, and who has not is not told it before."""
        return self._telling

    @property
    def run(self) -> Run:
        """The run, as it stands."""
        return self._copy.run

    @property
    def state(self) -> RunState:
        """What the run is doing, as far as is known."""
        if self._state is not None:
            return self._state.state
        return RunState(waiting=self.run.waiting) if self._watch is None else RunState()  # not looked at yet, or over

    def nudge(self) -> None:
        """Somebody says that the workflow has something."""
        if self._watch is not None:
            self._watch.nudge()

    async def tell_result(self) -> None:
        """Tell what the run completes with; what was being written down of it meanwhile may not know that this is wanted."""
        await self._copy.change(result=True)

    async def follow(self) -> None:
        """Go on until the run's end is in the log; an outage on the way is waited out.

        In a session that was closed nothing can be told any more: then only the record learns of the end.

        Raises:
            EpochChangedError: The session was deleted.
        """
        if not await self._teller.told(f"started:{self.run.run}"):
            await self._parts.earlier(self.session, self.run)
        await self.announce()
        if self.run.chain:
            earlier = [run for run in await self._parts.runs.of(self.session) if run.first_run_id == self.run.chain]
            for before in [run for run in earlier if not run.open][-1:]:
                await self._undo(before, self.run.run)
        await self._copy.begin()
        while self.run.open:
            ending, drained = await self._follow_one()
            if ending.follows_by == "reset" and await self._teller.told(f"closed:{self.run.run}"):
                # The record does not have that end yet; what goes on after it is another run.
                ending = msgspec.structs.replace(ending, status=ending.without_reset)
            if ending.status is None:
                await self._continue(ending, drained)
            else:
                await self._close(ending, drained)

    async def announce(self) -> None:
        """Say that the run has begun. Said by whoever follows it; the log keeps one copy, before everything else of the run."""
        run = self.run
        data = {
            "workflow_id": run.workflow_id,
            "workflow_type": run.workflow_type,
            "run_id": run.run_id,
            "started_at": run.started_at,
        }
        if run.namespace:
            data["namespace"] = run.namespace
        if run.chain:
            data["reset_of"] = run.chain
        await self._teller.tell(f"started:{run.run}", self._teller.event(RUN_STARTED, data))

    async def _follow_one(self) -> tuple[Ending, bool]:
        """Follow one Temporal run to its end and read what it said to the last event; False if that could not be read."""
        parts = self._parts
        reader = StreamReader(parts.connection, self.run.workflow_id, self.run.run_id)
        watch = self._watch = self._watch_of(self.run)
        self._state = self._state_of(self.run, watch, reader)
        ended = asyncio.create_task(watch.ended())
        reading = asyncio.create_task(self._read_on(reader, watch))
        tasks = [ended, reading, asyncio.create_task(self._look_on(self._state))]
        try:
            await asyncio.wait([ended, reading], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()  # who can read no more is followed anew, from the record
            ending = await ended
            # The query that is under way may be the last that a worker answers; cut off, it makes its worker warn.
            await asyncio.wait([reading], timeout=min(parts.settings.drain_grace, _LAST_ANSWER_SECONDS))
        finally:
            reader.stop()
            await cancel_all(*tasks)
            self._state = None
        return ending, await self._drainer.drain(reader, ending, read_whole=watch.read_whole)

    def _watch_of(self, run: Run) -> RunWatch:
        parts = self._parts
        child = partial(parts.child, parts.connection.namespace)
        return RunWatch(parts.connection, run, self.attention, parts.looks, child)

    def _state_of(self, run: Run, watch: RunWatch, reader: StreamReader) -> StateWatch:
        parts = self._parts
        return StateWatch(
            run,
            watch,
            self._teller,
            explain=lambda failure: told.failure(parts.connection.converter_of(run.workflow_id), failure),
            metadata=lambda: self._metadata(reader),
            watched=lambda: parts.watched(self.session),
            note=self._copy.change,
            turn=self.run.run_id,
        )

    async def _read_on(self, reader: StreamReader, watch: RunWatch) -> None:
        """Read the stream for as long as the run is open: when it is told of, quickly while events come, slowly otherwise."""
        settings = self._parts.settings
        interval, no_stream = settings.poll_fastest, _NO_STREAM_SECONDS
        while not watch.over.is_set():
            happened, task = watch.happened, watch.history.scheduled
            try:
                async with self._parts.reads if not self.attention.closely else nullcontext():
                    news = await self._copy.read(reader)
                watch.unanswered = False
                if not reader.by_update:
                    watch.read = task
            except SessionClosedError:
                return
            except NoStreamError:
                # It may be told of as often as it likes: there is nothing to read.
                await watch.pause(no_stream)
                no_stream = min(no_stream * 2, _NO_STREAM_MOST)
                continue
            except (NotNowError, UnavailableError) as error:
                _log.debug("cannot read a stream now", workflow_id=self.run.workflow_id, error=str(error))
                interval, watch.unanswered = min(interval * 2, settings.poll_slowest), True
                await watch.news(happened, interval)
                continue
            slowest = settings.poll_slowest if self.attention.closely else _SWEPT_MOST
            interval = max(interval / 2, settings.poll_fastest) if news else min(interval * 1.3, slowest)
            if reader.by_update:
                await watch.pause(reader.pause(watch.history.updates))
            else:
                await watch.news(happened, _BE_SURE if watch.tells else interval)

    async def _look_on(self, state: StateWatch) -> None:
        """Look what the run is doing, for as long as it is watched closely."""
        while True:
            if not self.attention.closely:
                await self.attention.changed()
                continue
            try:
                await self.attention.while_so(state.follow())
            except Exception:  # noqa: BLE001 - what a run is doing is worth less than what it says
                _log.exception("what a run is doing cannot be told", workflow_id=self.run.workflow_id)
                await asyncio.sleep(_LOOK_AGAIN)

    async def _metadata(self, reader: StreamReader) -> WorkflowMetadata | None:
        try:
            return await reader.ask(METADATA_QUERY, WorkflowMetadata)
        except (NoStreamError, NotNowError):
            return None

    async def _look_at(self, run_id: str) -> None:
        """Tell what a later run of the chain is doing than the one whose output has its turn."""
        run = msgspec.structs.replace(self.run, run_id=run_id)
        reader = StreamReader(self._parts.connection, run.workflow_id, run_id)
        self._state = self._state_of(run, self._watch_of(run), reader)
        try:
            await self._look_on(self._state)
        finally:
            self._state = None

    async def _continue(self, ending: Ending, drained: bool) -> None:
        """The chain goes on as another Temporal run. Only continue-as-new can carry the stream over."""
        data = {
            "workflow_id": self.run.workflow_id,
            "run_id": ending.next_run_id,
            "previous_run_id": self.run.run_id,
            "reason": ending.follows_by,
            # The next run has the stream that it was given, even if this one can no longer be queried.
            "drained": drained or ending.carries is True,
        }
        changed: dict[str, Any] = {
            "run_id": ending.next_run_id,
            "earlier": (*self.run.earlier, self.run.run_id)[-_EARLIER:],
            "given_whole": drained,
            "waiting": None,
            "retrying": {},
            "failed": {},
            "paused": {},
        }
        name = f"continued:{ending.next_run_id}"
        self._telling = Telling(name, msgspec.structs.replace(self.run, **changed))
        events = [self._teller.event(RUN_CONTINUED, data), *over(self._teller, self.run)]
        await self._teller.tell(name, *events)
        if ending.follows_by == "reset":
            client, accept = self._parts.connection.client, self._parts.accept
            with suppress(SessionClosedError):
                await supersede_undone(client, accept, self.session, self.run, ending.next_run_id)
            await self._undo(self.run, ending.next_run_id)
            # The stream is made anew from what is left of the history: what was said before is said again, or void.
            changed["stream_attempt"] = self.run.stream_attempt + 1
        elif ending.carries is False:
            await self._copy.begin_further(ending.next_run_id, ending.given)
            changed |= {"stream": ending.next_run_id, "stream_attempt": 1}
        await self._copy.change(**changed)
        self._telling = None

    async def _undo(self, before: Run, run_id: str) -> None:
        """Send again or report the session's inputs that a run had before a reset began `run_id`, which lacks them."""
        client, resend = self._parts.connection.client, self._parts.settings.inputs.after_reset == "send"
        data: list[dict[str, str]] = []
        for key, signal in (await undone_inputs(client, before, run_id)).items():
            if not await self._parts.intents.find(self.session, key):
                continue  # an input of another session
            if not (resend and signal is not None and await send_again(client, before, run_id, key, signal)):
                data.append({"id": key, "run_id": run_id})
        if data:
            await self._teller.tell(f"undone:{run_id}", *(self._teller.event(INPUT_UNDONE, each) for each in data))

    async def _close(self, ending: Ending, drained: bool) -> None:
        assert ending.status is not None
        run = self.run
        data = {
            "status": ending.status,
            "workflow_id": run.workflow_id,
            "run_id": run.run_id,
            "closed_at": timestamp(ending.closed_at),
            "drained": drained and not run.unread,
        }
        converter = self._parts.connection.converter_of(run.workflow_id)
        if ending.status == "unknown":
            data |= {"workflow_type": run.workflow_type, "started_at": run.started_at}
        if ending.reason or ending.status == "terminated":
            data["reason"] = told.cut(ending.reason)
        if ending.failure is not None:
            data["failure"] = await told.failure(converter, ending.failure)
        if ending.result is not None and await self._wants_result():
            data |= await told.result(converter, ending.result, _RESULT_BYTES)
        events = [self._teller.event(RUN_CLOSED, data)]
        async with self._parts.runs.lock(self.session):
            others = [o for o in await self._parts.runs.of(self.session) if o.run != run.run and o.open]
            name = f"closed:{run.run}"
            told_before = await self._teller.told(name)
            owed = not (drained and not run.unread) and ending.status != "unknown"
            if told_before:
                owed = run.owed  # what was told then still holds, whatever could be read now
            elif owed:
                await self._copy.change(owed=True)
            changed: dict[str, Any] = {
                "status": ending.status,
                "owed": owed,
                "waiting": None,
                "retrying": {},
                "failed": {},
                "paused": {},
            }
            self._telling = Telling(name, msgspec.structs.replace(self.run, **changed))
            settles = await self._have_ended(others)
            if not told_before:
                if settles:
                    events.append(compose(SESSION_SETTLED, b"{}", time=timestamp()))
                await self._teller.tell(name, *events)
            if not settles or told_before:
                await self._settle_late(others)
            await self._copy.change(**changed)
        if not others:
            self._parts.settled(self.session)

    async def _wants_result(self) -> bool:
        """Return whether the result is to be reported; another gateway may have written that into the record."""
        recorded = None if self.run.result else await self._parts.runs.latest(self.session, self.run.run)
        return self.run.result or (recorded is not None and recorded.result)

    async def _settle_late(self, others: list[Run]) -> None:
        """Report that the session is settled, if its runs have ended at once and each end was appended before the others'.

        Two gateways may follow them. Each checks again after its own append, and names the event by the end that came last:
        however many of them see that all have ended, the log has the event once.
        """
        if not await self._have_ended(others):
            return
        latest = await self._parts.accept.latest(self.session, _STANDING)
        if latest is not None and latest[1] == RUN_CLOSED:
            await self._teller.tell(f"closed:at-{latest[0]}", compose(SESSION_SETTLED, b"{}", time=timestamp()))

    async def _have_ended(self, others: list[Run]) -> bool:
        """Whether the end of each is told, even if its record does not have it yet: each sees those that were told before it."""
        for other in others:
            if await self._parts.accept.position(self.session, f"closed:{other.run}") is None:
                return False
        return True
