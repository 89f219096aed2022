"""Accepts a publisher's batch, or refuses it with a reason, and appends it to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import msgspec

from wakeline.errors import BodyInvalidError, RequestInvalidError, SessionNotFoundError
from wakeline.events import (
    NewEvent,
    check_session_name,
    timestamp,
)
from wakeline.gateway.delivery.composing import Composer, Incoming
from wakeline.gateway.delivery.counting import check_batch, too_many
from wakeline.gateway.log import Append, Appended, Engine, Opened, Outcome, Position, Publication, SessionState
from wakeline.gateway.runtime import Slice, read_whole_in_slices

_HINT: Final = (
    'Send {"events": [{"topic": "…", "data": …}]} as application/json, or one event a line as application/x-ndjson.'
)
OWN_PUBLISHERS: Final = (
    *("stream:", "started:", "continued:", "closed:", "drained:", "undone:", "producer:"),
    *("run.waiting:", "activity.retrying:", "activity.paused:", "activity.stalled:"),
    *("input:", "request:", "channel:"),
)
"""Prefixes of the names under which Wakeline itself appends.

They are refused to publishers: an append under such a name would prevent the report of a run's end as a duplicate.
"""

Ask: TypeAlias = Callable[[str, str | None, str, bytes], Awaitable[bool]]
"""Called with a session, its epoch, the run that asks, and the JSON of the request; returns False if that is none."""

_SLICE_BYTES: Final = 16 * 1024  # composed between two checks of whether the event loop must run other tasks


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[Incoming]


_batch = msgspec.json.Decoder(_Batch)
_line = msgspec.json.Decoder(Incoming)


async def decode_json(body: bytes, most: int) -> list[Incoming]:
    """Return the events of a body `{"events": [...]}`, at most `most`.

    Raises:
        BodyInvalidError: The body does not have this form.
        BatchTooLargeError: There are more events.
    """
    check_batch(body, most)
    try:
        return (await read_whole_in_slices(_batch.decode, body)).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(f'expected {{"events": [...]}}, got: {error}', hint=_HINT) from None


async def decode_ndjson(body: bytes, most: int) -> list[Incoming]:
    """Return the events of a body with one per line, at most `most`; empty lines are skipped.

    Raises:
        BodyInvalidError: A line is not an event; the message names it.
        BatchTooLargeError: There are more events, or more than twice as many line breaks.
    """
    events: list[Incoming] = []
    work = Slice()
    lines = body.split(b"\n", 2 * most + 1)
    if len(lines) > 2 * most + 1:
        raise too_many(most)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(events) == most:
            raise too_many(most)
        try:
            events.append(await read_whole_in_slices(_line.decode, line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(f"expected an event in line {number}, got: {error}", hint=_HINT) from None
        if work.over():
            await work.rest()
    return events


def check_publisher(publisher: str) -> str:
    """Return `publisher` if it is a name that publishers may use.

    Raises:
        RequestInvalidError: It is empty, too long, not visible ASCII, or one of Wakeline's own.
    """
    if not (1 <= len(publisher) <= 256 and publisher.isascii() and publisher.isprintable()):
        raise RequestInvalidError("expected a publisher's name of 1 to 256 visible ASCII characters")
    if publisher.startswith(OWN_PUBLISHERS):
        raise RequestInvalidError(f"expected a publisher's name that is not Wakeline's own, got {publisher[:64]!r}")
    return publisher


class Accept:
    """Checks published events, sets their time, and appends them to the log.

    Args:
        engine: The log.
        max_event_bytes: The largest `data` of one event, in bytes. Default: 1 MiB.
    """

    def __init__(self, engine: Engine, *, max_event_bytes: int = 1024 * 1024) -> None:
        self._engine = engine
        self.ask: Ask | None = None
        """Opens a request that a workflow asks for through its stream; `app` sets it before workflows are followed."""
        self._composer = Composer(max_event_bytes)

    async def publish(
        self, session: str, incoming: Sequence[Incoming], publication: Publication | None = None
    ) -> Appended:
        """Append a batch of a publisher; return when it is durable.

        Args:
            session: The session's name.
            incoming: The events, at least one.
            publication: The publisher; None for a batch without one, of which a retry may write a second copy.

        Raises:
            RequestError: The session's name, a topic or an event is invalid; nothing was appended.
            WakelineError: The errors of `Engine.append`.
        """
        check_session_name(session)
        if not incoming:
            raise BodyInvalidError("expected at least one event, got none", hint=_HINT)
        events = await self.compose(incoming, publication)
        return await self.append(session, events, publication)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        """Begin a publisher's attempt; see `Engine.open_attempt`.

        Raises:
            SessionNameInvalidError: No session can have this name.
            WakelineError: The errors of `Engine.open_attempt`.
        """
        return await self._engine.open_attempt(check_session_name(session), publication, epoch=epoch)

    async def compose(self, incoming: Sequence[Incoming], publication: Publication | None) -> tuple[NewEvent, ...]:
        """Return the events in the form that the log stores, with the present time.

        Long batches are composed in slices, so that other tasks of the event loop run in between.

        Raises:
            RequestError: An event is invalid.
        """
        if len(incoming) == 1:
            return (self._composer.event(incoming[0], timestamp(), publication),)
        time, work = timestamp(), Slice()
        events: list[NewEvent] = []
        left = _SLICE_BYTES
        for one in incoming:
            event = self._composer.event(one, time, publication)
            events.append(event)
            left -= len(event.body)
            if left < 0:
                await work.rest()
                left = _SLICE_BYTES
        return tuple(events)

    async def append(
        self,
        session: str,
        events: tuple[NewEvent, ...],
        publication: Publication | None = None,
        *,
        epoch: str | None = None,
    ) -> Appended:
        """Append composed events, such as a follower's, among which may be Wakeline's own."""
        return await self._engine.append(Append(session, events, publication, epoch=epoch))

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        """Append composed batches in their order; see `Log.append_each`."""
        return self._engine.append_each(appends)

    async def state(self, session: str, publisher: str) -> SessionState | None:
        """Return a session's state with a publisher's position; None if there is no such session."""
        return await self._engine.state(session, publisher=publisher)

    async def position(self, session: str, publisher: str) -> Position | None:
        """Return a publisher's position in a session; None if it has appended nothing there."""
        return await self._engine.position(session, publisher)

    async def latest(self, session: str, topics: Container[str]) -> tuple[int, str] | None:
        """Return the offset and topic of the latest event of these topics; None if there is none."""
        before = 1 << 62
        with suppress(SessionNotFoundError):
            while True:
                page = await self._engine.read_back(session, before, limit=1, topics=topics)
                if page.events:
                    return page.events[-1].offset, page.events[-1].topic
                if page.began == before:
                    return None
                before = page.began
        return None
