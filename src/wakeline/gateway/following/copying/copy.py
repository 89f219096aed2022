"""Copies a workflow's stream; the upstream offset is the publisher's sequence."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload

from wakeline.errors import AttemptFencedError, SequenceGapError, SessionClosedError
from wakeline.events import GAP, NewEvent, check_topic, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.following.copying.detours import Group, Identity, groups
from wakeline.gateway.following.copying.reader import Item, Polled, StreamReader
from wakeline.gateway.following.life.answers import Answer, Copied
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.log import Publication
from wakeline.gateway.reaching import json_of
from wakeline.gateway.sessions import Run, Runs
from wakeline.notices import with_notice
from wakeline.payloads import as_json

# Of an item that the workflow itself has published.
_ITS_OWN: Final = Identity("", 1, 0)
_log = structlog.get_logger(__name__)


class StreamCopy:
    """The copy of one run's stream, as far as it has come.

    Args:
        run: The run, as its record has it.
        teller: Whose session it goes to.
        accept: The way into the log.
        runs: The record of the session's runs.
        recorded: What is learned of the run is written down; not of one that its chain has left behind.

    Attributes:
        run: The run, as it stands now.
    """

    def __init__(self, run: Run, teller: Teller, accept: Accept, runs: Runs, *, recorded: bool = True) -> None:
        self.run = run
        self._teller = teller
        self._accept = accept
        self._runs = runs
        self._recorded = recorded
        self._offset = 0
        self._changing = asyncio.Lock()

    @property
    def publisher(self) -> str:
        """The name under which the stream is appended."""
        return f"stream:{self.run.stream}"

    @property
    def offset(self) -> int:
        """How far the stream has been read."""
        return self._offset

    async def begin(self) -> None:
        """Go on where the log ends."""
        position = await self._accept.position(self._teller.session, self.publisher)
        goes_on = position is not None and position.attempt == self.run.stream_attempt
        self._offset = position.next_sequence if position is not None and goes_on else 0

    async def change(self, **changed: Any) -> None:
        """Change the run and its record; another stream or attempt is read from its beginning.

        Raises:
            RecordConflictError: Another gateway has come further with the run.
        """
        async with self._changing:  # two that are under way must not be written in the other order
            self.run = msgspec.structs.replace(self.run, **changed)
            if self._recorded:
                await self._runs.put(self._teller.session, self.run)
        if "stream" in changed or "stream_attempt" in changed:
            await self.begin()

    async def begin_further(self, stream: str, given: int) -> None:
        """Let another stream begin after the events that it received of this one.

        Raises:
            EpochChangedError: The session was deleted.
            UnavailableError: The log cannot be written to now.
        """
        count = min(given, self._offset)
        if not count:
            return
        passed_over = Publication(f"stream:{stream}", 1, 0, covers=count, run=self.run.run)
        with suppress(SessionClosedError):  # then nothing is copied any more
            await self._accept.append(self._teller.session, (), passed_over, epoch=self._teller.epoch)

    async def read(self, reader: StreamReader, *, closed: bool = False) -> Copied:
        """Append everything that the stream has now.

        Args:
            reader: Reads the stream.
            closed: Whether the run has ended.

        Raises:
            WakelineError: What `Accept.append` raises.
        """
        news = False
        while True:
            polled = await reader.read(self._offset, closed=closed)
            if polled.answer is Answer.TOO_LARGE:
                _log.warning(
                    "an item of a stream is too large to be read, and is reported as a gap",
                    workflow_id=self.run.workflow_id,
                    offset=self._offset,
                    error=polled.reason,
                )
                await self._append(polled._replace(next_offset=self._offset + 1))
                news = True
            elif polled.answer is not Answer.READ:
                return Copied(polled.answer, news, polled.reason)
            elif polled.next_offset < self._offset:
                await self._begin_anew()
            elif polled.next_offset == self._offset:
                if not self._offset:
                    await self._open()
                return Copied(Answer.READ, news)
            else:
                news = True
                if not (await self._append(polled) or polled.more):
                    return Copied(Answer.READ, news)

    async def _open(self) -> None:
        """Begin a later attempt at a stream that has nothing yet; an append may never do so."""
        own = self._publication(0)
        position = await self._accept.position(self._teller.session, own.publisher) if own.supersedes else None
        if position is not None and position.attempt < own.attempt:
            await self._accept.open_attempt(self._teller.session, own, epoch=self._teller.epoch)

    async def _begin_anew(self) -> None:
        """The stream ends before what we have of it: this run did not carry the earlier one's over."""
        if self.run.stream != self.run.run_id:
            await self.change(stream=self.run.run_id)
        else:
            await self.change(stream_attempt=self.run.stream_attempt + 1)

    async def _append(self, polled: Polled) -> bool:
        """Append items under their upstream offsets; return whether the log expects another offset."""
        items = polled.items
        first = items[0].offset if items else polled.next_offset
        try:
            if first > self._offset:  # the workflow has truncated what we have not read
                await self._tell_gap(first)
            for group in groups(items):
                await self._append_group(group)
                self._offset = group.items[-1].offset + 1
        except SequenceGapError as error:
            self._offset = error.expected
            return True
        return False

    async def _tell_gap(self, first: int) -> None:
        """Tell that what comes before this offset cannot be had."""
        data = {"missed": first - self._offset, "first_available": first, "source": "workflow"}
        missed = msgspec.structs.replace(self._publication(self._offset), covers=first - self._offset)
        gap = self._teller.event(GAP, data)
        await self._accept.append(self._teller.session, (gap,), missed, epoch=self._teller.epoch)
        self._offset = first

    def _publication(self, offset: int) -> Publication:
        # The output of a run after its reset supersedes the earlier output, as a later attempt of an activity does.
        return Publication(
            self.publisher,
            self.run.stream_attempt,
            offset,
            supersedes=self.run.stream_attempt > 1,
            run=self.run.run,
        )

    async def _append_group(self, group: Group) -> None:
        own = self._publication(group.items[0].offset)
        session, epoch = self._teller.session, self._teller.epoch
        if (group.identities and await self._append_for(group)) or (group.asks and await self._ask(group.items[0])):
            passed_over = msgspec.structs.replace(own, covers=len(group.items))
            await self._accept.append(session, (), passed_over, epoch=epoch)
            return
        events = tuple([_event(item, self.run.run) for item in group.items])
        await self._accept.append(session, events, own, epoch=epoch)

    async def _ask(self, item: Item) -> bool:
        """Open a request for input; False if the item is none, and is to be copied as it is."""
        payload = Payload()
        try:
            payload.ParseFromString(item.payload)
        except DecodeError:
            return False
        data = json_of(payload)
        if data is None or self._accept.ask is None:
            return False
        return await self._accept.ask(self._teller.session, self._teller.epoch, self.run.run, data)

    async def _append_for(self, group: Group) -> bool:
        """Append what a publisher sent through the workflow, as that publisher; False if that fails."""
        its = msgspec.structs.replace(group.identities[0].publication, run=self._run_of(group.identities[0]))
        both = zip(group.items, group.identities, strict=True)
        events = tuple([_event(item, self._run_of(identity), identity) for item, identity in both])
        session = self._teller.session
        try:
            await self._accept.append(session, events, its, epoch=self._teller.epoch)
        except AttemptFencedError:
            _log.info("an ended attempt's events are passed over", session=session, publisher=its.publisher)
        except SequenceGapError as error:
            # Some of it is lost upstream. The rest is kept without its identity rather than dropped.
            _log.warning("a publisher's events are missing", session=session, error=error.message)
            return False
        return True

    def _run_of(self, identity: Identity) -> str:
        return self.run.run if identity.run is None else self._runs.names.known(self._teller.session, identity.run)


def _event(item: Item, run: str, identity: Identity = _ITS_OWN) -> NewEvent:
    """Return an item as an event: JSON becomes `data`, any other payload stays as it is.

    An invalid topic is made printable, as nothing is dropped.
    """
    topic, payload = item.topic, Payload()
    try:
        check_topic(topic)
    except Exception:  # noqa: BLE001
        topic = _printable(topic)
    try:
        payload.ParseFromString(item.payload)
    except DecodeError:
        payload = Payload(metadata={"encoding": b"binary/plain"}, data=item.payload)
    data = json_of(payload)
    event = compose(
        topic,
        msgspec.json.encode(as_json(payload)) if data is None else data,
        time=timestamp(),
        payload=data is None,
        run=run,
        activity=identity.activity,
        attempt=None if identity.activity is None else identity.attempt,
        key=identity.key,
        message=None if data is None else identity.message,  # nobody here could put its pieces together
    )
    return event if identity.notify is None else with_notice(event, identity.notify)


def _printable(topic: str) -> str:
    kept = "".join(c if c.isprintable() and c != "," else "_" for c in topic).lstrip("$")
    return kept.encode()[:200].decode(errors="ignore") or "_"
