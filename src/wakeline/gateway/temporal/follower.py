"""The follower: the one reader that pulls a workflow's own stream into its session and tells how the run ended.

Its publisher's sequence is the upstream offset, and each of Wakeline's own events has a publisher of its own. So whatever
stops a follower at whatever moment, the next one appends the same things again and the log keeps one copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors import AttemptFencedError, SequenceGapError, SessionClosedError, UnavailableError
from wakeline.events import (
    GAP,
    RUN_CLOSED,
    RUN_CONTINUED,
    RUN_STARTED,
    SESSION_SETTLED,
    NewEvent,
    check_topic,
    compose,
    timestamp,
)
from wakeline.gateway.accept import Accept
from wakeline.gateway.log import Publication
from wakeline.gateway.runs import Run, Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.temporal.connection import Connection
from wakeline.gateway.temporal.detours import Group, groups
from wakeline.gateway.temporal.endings import Ending, forgotten, is_forgotten, wait_for_end
from wakeline.gateway.temporal.reader import Item, NoStreamError, NotNowError, StreamReader, Stretch, to_event

_NO_STREAM_SECONDS: Final = 2.0
_NO_STREAM_MOST: Final = 60.0
_RETRY_SECONDS: Final = 1.0
_UNKNOWN_TIMES: Final = 3
_log = structlog.get_logger(__name__)


class Follower:
    """Follows one run, through everything it continues as, to its end.

    Args:
        session: Where its output goes.
        run: What is known of the run, from its record.
        connection: Temporal.
        accept: The way into the log.
        runs: The record of the session's runs.
        settings: How often to read, how long to wait for a worker at the end.
        settled: Called with the session when its record says that no run is open.
    """

    def __init__(
        self,
        session: str,
        run: Run,
        connection: Connection,
        accept: Accept,
        runs: Runs,
        settings: Settings,
        settled: Callable[[str], None],
    ) -> None:
        self.session = session
        self.run = run
        self._connection = connection
        self._accept = accept
        self._runs = runs
        self._settings = settings
        self._settled = settled
        self._offset = 0
        self._epoch: str | None = None

    async def follow(self) -> None:
        """Go on until the run's end is in the log; an outage on the way is waited out.

        In a session that was closed nothing can be told any more: then only the record learns of the end.

        Raises:
            EpochChangedError: The session was deleted.
        """
        await self.announce()
        position = await self._accept.position(self.session, self._publisher)
        self._offset = position.next_sequence if position else 0
        while self.run.status == "running":
            ending, drained = await self._follow_one()
            if ending.status is None:
                await self._continue(ending, drained)
            else:
                await self._close(ending, drained)

    async def announce(self) -> None:
        """Say that the run has begun. Said by whoever follows it; the log keeps one copy, before everything else of the run."""
        data = {
            "workflow_id": self.run.workflow_id,
            "workflow_type": self.run.workflow_type,
            "run_id": self.run.run_id,
            "started_at": self.run.started_at,
        }
        await self._tell(f"started:{self.run.run}", self._own(RUN_STARTED, data))

    @property
    def _publisher(self) -> str:
        return f"stream:{self.run.stream}"

    async def _follow_one(self) -> tuple[Ending, bool]:
        """Follow one Temporal run to its end and read what it said to the last event; False if that could not be read."""
        reader = StreamReader(self._connection, self.run.workflow_id, self.run.run_id)
        reading = asyncio.create_task(self._read_on(reader))
        try:
            ending = await self._wait_for_end()
        finally:
            reading.cancel()
            reader.stop()
            with suppress(asyncio.CancelledError):
                await reading
        return ending, await self._drain(reader)

    async def _wait_for_end(self) -> Ending:
        unknown = 0
        while True:
            try:
                converter = self._connection.converter_of(self.run.workflow_id)
                return await wait_for_end(self._connection.client, self.run.workflow_id, self.run.run_id, converter)
            except RPCError as error:
                if error.status == RPCStatusCode.UNAVAILABLE:
                    self._connection.failed(error)
                elif error.status != RPCStatusCode.DEADLINE_EXCEEDED:
                    _log.warning("cannot watch a run", workflow_id=self.run.workflow_id, error=error.message)
                unknown = unknown + 1 if is_forgotten(error) else 0
                if unknown == _UNKNOWN_TIMES:
                    return forgotten()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read_on(self, reader: StreamReader) -> None:
        """Read the stream for as long as the run is open: quickly while events come, slowly when nothing does."""
        fastest, slowest = self._settings.poll_fastest, self._settings.poll_slowest
        interval = fastest
        no_stream = _NO_STREAM_SECONDS
        while True:
            try:
                news = await self._read(reader)
            except SessionClosedError:
                return
            except NoStreamError:
                interval = no_stream = min(no_stream * 2, _NO_STREAM_MOST)
            except (NotNowError, UnavailableError) as error:
                _log.debug("cannot read a stream now", workflow_id=self.run.workflow_id, error=str(error))
                interval = min(interval * 2, slowest)
            else:
                interval = max(interval / 2, fastest) if news else min(interval * 1.3, slowest)
            await asyncio.sleep(interval)

    async def _drain(self, reader: StreamReader) -> bool:
        """Read what a closed run still has to say; False if nobody answered within the grace."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_grace
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._read(reader, closed=True)
                    return True
            except NoStreamError:
                return not reader.by_update
            except (TimeoutError, SessionClosedError):
                return False
            except (NotNowError, UnavailableError):
                if loop.time() + _RETRY_SECONDS > deadline:
                    return False
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self, reader: StreamReader, *, closed: bool = False) -> bool:
        """Append everything the stream has now; True if there was something."""
        news = more = False
        while more or not news:
            stretch = await reader.read(self._offset, closed=closed)
            if stretch.next_offset < self._offset:
                await self._begin_anew()
                continue
            if stretch.next_offset == self._offset:
                return news
            more = await self._append(stretch) or stretch.more
            news = True
        return news

    async def _begin_anew(self) -> None:
        """The stream ends before what we have of it: this run did not carry the earlier one's over."""
        self.run = msgspec.structs.replace(self.run, stream=self.run.run_id)
        await self._runs.put(self.session, self.run)
        self._offset = 0

    async def _append(self, stretch: Stretch) -> bool:
        """Append items under their upstream offset as sequence; True if the log wants to be told from another offset."""
        items = stretch.items
        first = items[0].offset if items else stretch.next_offset
        try:
            if first > self._offset:  # the workflow has truncated what we have not read
                data = {"missed": first - self._offset, "first_available": first, "source": "workflow"}
                publication = Publication(self._publisher, 1, self._offset, covers=first - self._offset)
                await self._accept.append(self.session, (self._own(GAP, data),), publication, epoch=self._epoch)
                self._offset = first
            for group in groups(items):
                await self._append_group(group)
                self._offset = group.items[-1].offset + 1
        except SequenceGapError as error:
            self._offset = error.expected
            return True
        return False

    async def _append_group(self, group: Group) -> None:
        own = Publication(self._publisher, 1, group.items[0].offset)
        if group.identities and await self._append_for(group):
            passed_over = msgspec.structs.replace(own, covers=len(group.items))
            await self._accept.append(self.session, (), passed_over, epoch=self._epoch)
            return
        events = tuple([_event(item, self.run.run) for item in group.items])
        await self._accept.append(self.session, events, own, epoch=self._epoch)

    async def _append_for(self, group: Group) -> bool:
        """Append what a publisher sent through the workflow, as that publisher; False if the log cannot have it so."""
        its = group.identities[0].publication
        events = tuple(
            [
                _event(
                    item,
                    identity.run or self.run.run,
                    activity=identity.activity,
                    attempt=None if identity.activity is None else identity.attempt,
                    key=identity.key,
                    message=identity.message,
                )
                for item, identity in zip(group.items, group.identities, strict=True)
            ]
        )
        try:
            await self._accept.append(self.session, events, its, epoch=self._epoch)
        except AttemptFencedError:
            _log.info("an ended attempt's events are passed over", session=self.session, publisher=its.publisher)
        except SequenceGapError as error:
            # Some of it is lost upstream. What is left is better kept without its identity than not at all.
            _log.warning("a publisher's events are missing", session=self.session, error=error.message)
            return False
        return True

    async def _continue(self, ending: Ending, drained: bool) -> None:
        """The chain goes on as another Temporal run. Only continue-as-new can carry the stream over."""
        data = {
            "workflow_id": self.run.workflow_id,
            "run_id": ending.next_run_id,
            "previous_run_id": self.run.run_id,
            "reason": ending.reason,
            "drained": drained,
        }
        await self._tell(f"continued:{ending.next_run_id}", self._own(RUN_CONTINUED, data))
        stream = self.run.stream
        if ending.reason != "continue_as_new":
            stream, self._offset = ending.next_run_id, 0
        self.run = msgspec.structs.replace(self.run, run_id=ending.next_run_id, stream=stream)
        await self._runs.put(self.session, self.run)

    async def _close(self, ending: Ending, drained: bool) -> None:
        assert ending.status is not None
        data = {
            "status": ending.status,
            "workflow_id": self.run.workflow_id,
            "run_id": self.run.run_id,
            "closed_at": timestamp(ending.closed_at),
            "drained": drained,
            **ending.details,
        }
        events = [self._own(RUN_CLOSED, data)]
        async with self._runs.lock(self.session):
            others = [run for run in await self._runs.of(self.session) if run.run != self.run.run]
            if settled := all(run.status != "running" for run in others):
                events.append(compose(SESSION_SETTLED, b"{}", time=timestamp()))
            await self._tell(f"closed:{self.run.run}", *events)
            self.run = msgspec.structs.replace(self.run, status=ending.status)
            await self._runs.put(self.session, self.run)
        if settled:
            self._settled(self.session)

    async def _tell(self, publisher: str, *events: NewEvent) -> None:
        """Append Wakeline's own events, once, however often it is tried; none to a session that was closed."""
        while True:
            try:
                told = await self._accept.append(self.session, events, Publication(publisher), epoch=self._epoch)
            except UnavailableError as error:
                _log.warning("cannot write to the log now", session=self.session, error=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
            except SessionClosedError:
                return
            else:
                self._epoch = told.epoch  # what follows belongs to this life of the session
                return

    def _own(self, topic: str, data: dict[str, Any]) -> NewEvent:
        return compose(topic, msgspec.json.encode(data), time=timestamp(), run=self.run.run)


def _event(item: Item, run: str, **more: Any) -> NewEvent:
    """An item as an event. A topic that a session cannot have is kept, made printable: nothing upstream is dropped."""
    try:
        check_topic(item.topic)
    except Exception:  # noqa: BLE001
        item = msgspec.structs.replace(item, topic=_printable(item.topic))
    return to_event(item, run, **more)


def _printable(topic: str) -> str:
    kept = "".join(c if c.isprintable() and c != "," else "_" for c in topic).lstrip("$")
    return kept.encode()[:200].decode(errors="ignore") or "_"
