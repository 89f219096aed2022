"""Many publishers on one WebSocket, each on its own channel (PROTOCOL.md §3).

A channel's appends are committed in their order. The appends of one message are handed to the log together and answered
together: the frames of one turn of the event loop share a message, in both directions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import ReferenceType, ref

import msgspec
import structlog
from aiohttp import web

from wakeline.background import cancel_all
from wakeline.errors import (
    BatchTooLargeError,
    EpochChangedError,
    InternalError,
    LimitReachedError,
    RequestInvalidError,
    SessionDeletedError,
    WakelineError,
)
from wakeline.events import NewEvent, check_session_name
from wakeline.gateway.access import NOBODY, Grant
from wakeline.gateway.delivery import Incoming, check_batch, check_publisher
from wakeline.gateway.log import Append, Outcome, Publication
from wakeline.gateway.runtime import Slice, read_whole_in_slices
from wakeline.gateway.sessions import NamedWorkflow, Registrations, UnfollowedWorkflow, named_workflow
from wakeline.gateway.transports import feed_frames
from wakeline.gateway.transports import publish_frames as frames
from wakeline.gateway.transports.conversation import SETTLE_SECONDS, Conversation
from wakeline.gateway.transports.feed import Source
from wakeline.gateway.transports.feed_socket import NOT_OURS, TOKEN, Allowance, Closing

MAX_CHANNELS: Final = 1000

_MOST_BYTES: Final = 16 * 1024 * 1024  # of unfinished appends on one connection
_EVENT_BYTES: Final = 512  # the memory that an event takes in addition to its data
_MESSAGE_BYTES: Final = 64 * 1024
_MOST_APPENDS: Final = 2_000
_CHANNEL_RETRY: Final = 5

_LINES: Final = re.compile(r"\n*+([^\n]*)")  # skips millions of empty lines in one step

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Channel:
    number: int
    session: str
    publication: Publication
    workflow: NamedWorkflow | None
    epoch: str | None = None
    """The epoch of `opened`, the only one to which the channel appends; None until it is open."""
    held: list[_Unfinished] = field(default_factory=list)
    """The appends that wait until the channel is open, in their order."""
    broken: bool = False
    warned: bool = False


class _Unfinished(NamedTuple):
    """An append that is not answered yet, and the memory that it takes."""

    channel: _Channel
    publication: Publication
    events: tuple[NewEvent, ...]
    size: int


class PublishConnection(Conversation):
    """One connection of publishers.

    The connection's task reads frames and collects the appends of a message, which it hands to the log at its end. Each
    `open` continues in a task of its own; the channel's appends wait for it.

    Args:
        request: The request for the upgrade.
        source: The parts of the gateway.
        grant: The client's permissions.
        registrations: Registers the workflows that publishers name.
        tell: Called with a workflow that may have new events; None if the gateway follows none.
    """

    __slots__ = (
        "__weakref__",
        "_allowance",
        "_appends",
        "_batch",
        "_bytes",
        "_channels",
        "_outbox",
        "_registrations",
        "_tell",
        "_under_way",
    )

    def __init__(
        self,
        request: web.Request,
        source: Source,
        grant: Grant,
        registrations: Registrations,
        tell: Callable[[str, str | None], None] | None,
    ) -> None:
        super().__init__(request, source, grant, source.settings.max_body_bytes)
        self._registrations = registrations
        self._tell = tell
        self._channels: dict[int, _Channel] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self._batch: list[_Unfinished] = []
        self._appends = self._bytes = 0  # of all unfinished appends
        self._allowance = Allowance()
        self._outbox: list[bytes] = []

    async def _serve(self, text: str) -> None:
        work = Slice()
        try:
            for line in _LINES.finditer(text):
                if line[1]:
                    await self._serve_line(line[1])
                if self._refusal is not None:
                    return
                if work.over():
                    self._hand_over()
                    await work.rest()
                    await self._connection.drained()
        finally:
            self._hand_over()

    async def _serve_line(self, line: str) -> None:
        try:
            check_batch(line, self._source.settings.max_batch_events)
            data = line.encode()
            try:
                frame = frames.decode(data)
            except ValueError:  # perhaps half an emoji, which can be replaced
                frame = await read_whole_in_slices(frames.decode, data)
        except (msgspec.DecodeError, RecursionError, BatchTooLargeError) as error:
            self._refuse_unread(line, error)
            return
        if self._grant is NOBODY and not isinstance(frame, feed_frames.Token):
            raise Closing(TOKEN, "expected a token first")
        try:
            await self._serve_one(frame, len(line))
        except WakelineError as error:
            self._fail(getattr(frame, "channel", None), error)

    async def _serve_one(self, frame: frames.ClientFrame, size: int) -> None:
        if isinstance(frame, frames.Append):
            await self._append(frame, size)
            return
        self._hand_over()  # before a frame that may follow it on the same channel
        match frame:
            case frames.Open():
                await self._room(0)
                await self._open(frame)
            case frames.Close():
                self._channels.pop(frame.channel, None)
            case frames.Nudge():
                self._nudge(frame)
            case feed_frames.Token():
                self._allowance.take()
                await self._token(frame)
            case feed_frames.Ping():
                self._allowance.take()
                await self._ping(frame)

    def _refuse_unread(self, line: str, error: Exception) -> None:
        """Refuse an unreadable frame, on its own channel if possible, so that others continue."""
        if self._grant is NOBODY:
            raise Closing(TOKEN, "expected a token first")
        self._allowance.take()
        try:
            channel = frames.addressed(line)
        except msgspec.DecodeError:
            raise Closing(NOT_OURS, f"expected a frame: {error}") from None
        refusal = error if isinstance(error, WakelineError) else RequestInvalidError(f"expected a frame, got: {error}")
        self._fail(channel, refusal)

    async def _open(self, frame: frames.Open) -> None:
        self._grant.check("publish", frame.session)
        check_session_name(frame.session)
        run = await self._registrations.run_of(frame.session, frame.run)
        if frame.channel not in self._channels and len(self._channels) >= MAX_CHANNELS:
            raise LimitReachedError(
                f"expected at most {MAX_CHANNELS} channels on one connection", retry_after=_CHANNEL_RETRY
            )
        workflow = named_workflow(frame.workflow, frame.namespace)
        publication = Publication.of_attempt(
            check_publisher(frame.publisher),
            frame.attempt,
            owner=self._grant.owner_of(frame.publisher),
            run=run,
            activity=frame.activity,
            supersede=frame.supersede,
        )
        self._source.limits.publish(self._request, self._grant, 1)
        channel = self._channels[frame.channel] = _Channel(frame.channel, frame.session, publication, workflow)
        opening = asyncio.create_task(self._opened(channel, frame.epoch))
        self._under_way.add(opening)
        opening.add_done_callback(self._under_way.discard)

    async def _opened(self, channel: _Channel, epoch: str | None) -> None:
        try:
            opened = await self._source.accept.open_attempt(channel.session, channel.publication, epoch=epoch)
        except Exception as error:  # noqa: BLE001 - a defect is answered in the same format as other errors
            self._refuse(channel, error)
        else:
            channel.epoch = opened.epoch
            if not channel.broken:
                its = (opened.attempt, opened.next_sequence, opened.earlier_events, opened.epoch)
                self._answer(frames.Opened(channel.number, *its))
            self._register(channel, opened.epoch)
            self._batch += channel.held
            self._hand_over()
        finally:
            if channel.epoch is None:
                self._finished(channel.held)
            channel.held = []

    async def _append(self, frame: frames.Append, size: int) -> None:
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise RequestInvalidError(f"expected an open channel, got {frame.channel}")
        if channel.broken:
            return
        if not frame.events:
            raise RequestInvalidError("expected at least one event, got none")
        check_topics(self._grant, frame.events)
        self._source.limits.publish(self._request, self._grant, len(frame.events))
        publication = msgspec.structs.replace(channel.publication, sequence=frame.sequence)
        events = await self._source.accept.compose(frame.events, publication)
        size += _EVENT_BYTES * len(events)
        await self._room(size)
        if not self._takes(frame.channel, channel):
            return
        self._appends += 1
        self._bytes += size
        waiting = self._batch if channel.epoch is not None else channel.held
        waiting.append(_Unfinished(channel, publication, events, size))

    def _takes(self, number: int, channel: _Channel) -> bool:
        """Return whether a channel still accepts appends: one may have failed during a wait."""
        return self._channels.get(number) is channel and not channel.broken

    async def _room(self, size: int) -> None:
        """Wait until the unfinished appends leave room for one of this size."""
        while self._appends and (self._bytes + size > _MOST_BYTES or self._appends > _MOST_APPENDS):
            self._hand_over()
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def _hand_over(self) -> None:
        """Append the collected batches."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        appending = self._source.accept.append_each(
            [Append(one.channel.session, one.events, one.publication, epoch=one.channel.epoch) for one in batch]
        )
        self._under_way.add(appending)
        appending.add_done_callback(partial(self._appended, batch, monotonic()))

    def _appended(self, batch: list[_Unfinished], began: float, appending: asyncio.Future[list[Outcome]]) -> None:
        """Answer batches that were appended or refused."""
        self._under_way.discard(appending)
        self._finished(batch)
        if appending.cancelled():
            return
        self._source.metrics.append_seconds.observe(monotonic() - began)
        failed = appending.exception()
        for one, outcome in zip(batch, repeat(failed) if failed is not None else appending.result(), strict=False):
            if isinstance(outcome, BaseException):
                self._refuse(one.channel, outcome)
                continue
            self._register(one.channel, outcome.epoch)
            if not one.channel.broken:
                below = one.publication.sequence + len(one.events)
                self._answer(frames.Appended(one.channel.number, below, outcome.next_offset))

    def _finished(self, batch: list[_Unfinished]) -> None:
        self._appends -= len(batch)
        for one in batch:
            self._bytes -= one.size

    def _register(self, channel: _Channel, life: str) -> None:
        if channel.workflow is None:  # this is called for each append
            return
        # Not itself: while Temporal is away, the lookup may outlive the connection for long.
        warn = partial(_warn, ref(self), channel)
        self._registrations.tell(channel.session, channel.workflow, channel.publication.run, self._grant, life, warn)

    def _nudge(self, frame: frames.Nudge) -> None:
        self._grant.check("publish")
        workflow = NamedWorkflow(frame.workflow_id, frame.namespace).checked()
        self._source.limits.publish(self._request, self._grant, 1)
        if self._tell is not None:
            self._tell(workflow.workflow_id, workflow.namespace)

    def _refuse(self, channel: _Channel, error: BaseException) -> None:
        """Report the error of an `open` or an append, unless the channel was closed or replaced."""
        if isinstance(error, EpochChangedError):
            error = SessionDeletedError(error.message)
        elif not isinstance(error, WakelineError):
            _log.error("an append failed", session=channel.session, exc_info=error)
            error = InternalError("the server failed; this is a defect")
        if self._channels.get(channel.number) is channel:
            self._fail(channel.number, error)

    def _fail(self, number: int | None, error: WakelineError) -> None:
        """Report an error; its channel ignores appends until it is opened again."""
        channel = self._channels.get(number) if number is not None else None
        if channel is not None:
            if channel.broken:
                return
            channel.broken = True
        self._source.metrics.refused.labels(error.code).inc()
        self._answer(frames.Error(error.wire()["error"], number))

    async def _regrant(self, grant: Grant) -> None:
        for number, channel in self._channels.items():
            try:
                grant.check("publish", channel.session)
            except WakelineError as error:
                self._fail(number, error)
            owner = grant.owner_of(channel.publication.publisher)
            channel.publication = msgspec.structs.replace(channel.publication, owner=owner)

    def _answer(self, frame: feed_frames.ServerFrame) -> None:
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(msgspec.json.encode(frame))

    def _flush(self) -> None:
        answers, self._outbox = self._outbox, []
        if not answers:
            return  # `_settle` has sent them
        try:
            for part in _parts(answers):
                self._connection.write(feed_frames.text(b"\n".join(part)))
        except ConnectionError:
            return  # the connection's own task notices it

    async def _settle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while self._under_way:  # a channel that has opened appends what it held
                    await asyncio.wait(self._under_way)
        if self._outbox:
            self._flush()

    async def _end(self) -> None:
        """Cancel unfinished appends; the next `opened` reports which of them are in the log."""
        await cancel_all(*self._under_way)


def _parts(answers: list[bytes]) -> Iterator[list[bytes]]:
    """Split answers into messages of about `_MESSAGE_BYTES`."""
    part: list[bytes] = []
    size = 0
    for answer in answers:
        if part and size + len(answer) > _MESSAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(answer)
        size += len(answer) + 1
    yield part


def _warn(connection: ReferenceType[PublishConnection], channel: _Channel, warning: UnfollowedWorkflow) -> None:
    """Send a warning about a channel's workflow, once; the connection may be gone."""
    if not channel.warned and (its := connection()) is not None:
        channel.warned = True
        its._answer(frames.Warning(channel.number, warning.message, warning.hint))


def check_topics(grant: Grant, incoming: Sequence[Incoming]) -> None:
    """Check that the grant allows the topic of every event.

    Raises:
        NotAllowedError: It does not allow one of them.
    """
    if grant.topics is None:
        return
    for topic in {event.topic for event in incoming}:
        grant.check_topic(topic)
