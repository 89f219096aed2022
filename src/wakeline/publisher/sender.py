"""Sends one publisher's events: one append at a time, each event under its sequence number.

The sender has no task. The publisher, the connection and timers call it in the event loop, and no call waits.

    DOWN ──connected──▶ OPENING ──opened──▶ OPEN ──▶ append, appended, append, …
      ▲                    ▲                  │
      └──lost, unreachable─┴──after a pause───┘ refused
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from typing import Literal

import msgspec

from wakeline.buffer import Buffer
from wakeline.durations import seconds_of
from wakeline.errors import (
    InternalError,
    LimitReachedError,
    RequestError,
    SequenceGapError,
    UnavailableError,
    WakelineError,
)
from wakeline.logs import get_logger
from wakeline.publisher.connection import Connection
from wakeline.publisher.detour import Detour, OnDetour
from wakeline.publisher.errors import ENDS, PublishReports
from wakeline.publisher.frames import AppendedFrame, Identity, Opened, append_frame, open_frame
from wakeline.publisher.outbox import Batch, Outbox
from wakeline.publisher.route import Route
from wakeline.publisher.timers import Timers
from wakeline.retry import Backoff

logger = get_logger(__name__)

_NOT_FOR_ONE_EVENT = frozenset({401, 404})


class _State(enum.Enum):
    DOWN = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    PAUSED = enum.auto()
    ENDED = enum.auto()


class Sender:
    """Sends what a buffer holds; a `Channel` of its connection.

    Args:
        identity: The publisher.
        connection: The connection to the gateway.
        buffer: The events to send.
        reports: Reports the events that cannot be delivered.
        route: How events are batched and retried.
        detour: Another way for events while the gateway is away.
        assumed: The attempt's next sequence number before the gateway has returned it; None if it is unknown.
    """

    def __init__(
        self,
        identity: Identity,
        connection: Connection,
        buffer: Buffer[bytes],
        reports: PublishReports,
        route: Route,
        *,
        detour: Detour | None = None,
        assumed: int | None = None,
    ) -> None:
        self._identity = identity
        self._connection = connection
        self._buffer = buffer
        self._reports = reports
        self._route = route
        self._linger = seconds_of(route.linger, "linger")
        self._detour = detour
        self._assumed = assumed
        self._loop = asyncio.get_running_loop()
        self._channel = 0
        self._state = _State.DOWN
        self._outbox = Outbox(buffer)
        self._backoff = Backoff()
        self._trouble: WakelineError | None = None
        self._dormant = False  # refused; opens again for the next event
        self._timers: Timers[Literal["abandon", "open", "linger"]] = Timers(self._loop)
        self._trip: OnDetour | None = None
        self.awaiting_since: float | None = None
        self.away: UnavailableError | None = None
        """The error of the gateway's outage; None while it is reached."""
        self.first: asyncio.Future[WakelineError | None] = self._loop.create_future()
        """The result of the first attempt to open: None if it succeeded, else its error."""
        self.earlier_events: int | None = None
        self.acknowledged = 0

    # Calls of the publisher

    def start(self) -> None:
        """Attach to the connection and open the channel."""
        self._channel = self._connection.attach(self)
        if self._connection.is_open:
            self.connected()

    def kick(self) -> None:
        """Send if possible: the buffer has another event."""
        if self._state is _State.OPEN:
            if self._outbox.batch is None and self._trip is None:
                self._go()
        elif self._trip is None:
            self.arm()
            self._connection.want()
            if self._dormant and self._connection.is_open:
                self._open()
        if self._trip is not None:
            self._trip.kick()
            self.arm()

    async def flush(self) -> None:
        """Wait until every event that is in the buffer now is durable or was reported."""
        waiter = self._outbox.flushed()
        if waiter is not None:
            self.kick()
            await waiter

    def note_dropped(self, count: int) -> None:
        """Count events that were dropped from the front of the buffer and reported."""
        self._outbox.dropped(count)

    def abandon(self, reason: WakelineError, what: str = "were abandoned") -> None:
        """Report all events that wait or are under way, with the reason; they are not sent any more."""
        unknown = self._outbox.batch is not None
        bodies = self._outbox.take_all()
        if bodies:
            self._reports.add(bodies, what, reason)
        if unknown:
            self._outbox.sequence = None  # the gateway returns how many have arrived
            if self._state is _State.OPEN:
                self._open()
        self._timers.cancel("abandon")

    async def close(self) -> None:
        """Stop; the caller reports the events that `leave` returns."""
        self._state = _State.ENDED
        self._timers.cancel_all()
        try:
            if self._trip is not None:
                await self._trip.close()
        finally:
            if not self.first.done():
                self.first.cancel()
            await self._connection.detach(self._channel)

    def leave(self) -> list[bytes]:
        """Take out the undelivered events."""
        left = self._outbox.take_all()
        self._buffer.wake()
        return left

    @property
    def sequence(self) -> int | None:
        """The next event's sequence number; None if it is unknown."""
        return self._outbox.sequence

    # Callbacks of the connection

    def connected(self) -> None:
        """Open the channel."""
        if self._state is not _State.ENDED:
            self._open()

    def lost(self, error: UnavailableError) -> None:
        """Wait for `opened`, which reports whether the batch under way has arrived."""
        self.awaiting_since = None
        if self._state is not _State.ENDED:
            self._state = _State.DOWN
            self._trouble = error
            self._timers.cancel("open")
            if self._trip is not None:
                self._trip.lost()
            self.arm()

    def unreachable(self, error: UnavailableError) -> None:
        """Wait, abandon events or start the detour, by the publisher's policy."""
        if self._state is _State.ENDED:
            return
        self.away = self._trouble = error
        self._settle_first(error)
        self._without_gateway(error)

    def opened(self, frame: Opened) -> None:
        """Continue from the sequence number that the gateway returned."""
        if self._state is not _State.OPENING:
            return
        self._state = _State.OPEN
        self.awaiting_since = None
        self.away = None
        self.acknowledged = frame.next_sequence
        self._identity = msgspec.structs.replace(self._identity, epoch=frame.epoch)
        if self._detour is not None:
            self._detour.identity = self._identity
        if self.earlier_events is None:
            self.earlier_events = frame.earlier_events
        if not self.first.done():
            self._settle_first(None)
            self._start_detour()  # the spool may have events of an earlier process
        self._assumed = None  # only valid before the first answer
        if self._trip is not None:
            self._trip.opened(frame.next_sequence)
            return
        self._catch_up(frame.next_sequence)
        self._go_on()

    def appended(self, frame: AppendedFrame) -> None:
        """Send the next batch: one is durable."""
        self.acknowledged = max(self.acknowledged, frame.next_sequence)
        batch = self._outbox.batch
        if self._state is not _State.OPEN or batch is None or batch.sequence is None or self._trip is not None:
            return
        self.awaiting_since = None
        if frame.next_sequence == batch.sequence + len(batch.bodies):
            self._outbox.finish()
        else:
            self._catch_up(frame.next_sequence)
        self._backoff.reset()
        self._trouble = None
        self._go_on()

    def refused(self, error: WakelineError) -> None:
        """End, pause or split the batch under way, by the kind of the refusal."""
        self.awaiting_since = None
        if self._state is _State.ENDED:
            return
        appending = self._state is _State.OPEN and self._outbox.batch is not None
        if isinstance(error, ENDS):
            self.end(error)
        elif self._trip is not None or isinstance(error, (LimitReachedError, UnavailableError, InternalError)):
            self._later(error)
        elif isinstance(error, SequenceGapError):
            self.abandon(error, "were refused, because events before them are missing")
            self._outbox.sequence = None
            self._open()
        elif appending and isinstance(error, RequestError) and error.status not in _NOT_FOR_ONE_EVENT:
            self._cut_out(error)
        else:
            self._state, self._dormant = _State.PAUSED, True
            self.away = None  # a refusal is an answer; the next event opens again
            self._settle_first(error)
            self.abandon(error, "were refused")

    def end(self, error: WakelineError) -> None:
        """End: the gateway accepts no more events of this attempt."""
        self._state = _State.ENDED
        self._timers.cancel_all()
        self._settle_first(error)
        if self._trip is not None:
            self._trip.ended(error)
        else:
            self.report_end(error, ())

    def report_end(self, error: WakelineError, before: Sequence[bytes]) -> None:
        """Report the end of the attempt, with the events `before` those that wait."""
        self._reports.end(error, [*before, *self._outbox.take_all()])
        self._buffer.wake()

    # Steps

    def _open(self) -> None:
        self._state, self._dormant = _State.OPENING, False
        self._timers.cancel("open")
        self.awaiting_since = self._loop.time()
        self._connection.send(open_frame(self._channel, self._identity))

    def _catch_up(self, reached: int) -> None:
        """Compare the events under way with the gateway's, and report those that are in doubt."""
        doubtful = self._outbox.catch_up(reached)
        if doubtful is not None:
            self._reports.add(doubtful[0], "may not be in the session", doubtful[1])

    def _go_on(self) -> None:
        """Send the rest of the batch under way again, or the next batch."""
        if self._outbox.batch is not None:
            self._send(self._outbox.batch)
        else:
            self._timers.cancel("abandon")
            self._go()

    def _go(self) -> None:
        """Send the next batch, if there is one and it need not linger."""
        if not self._outbox.has_more():
            return
        if self._linger and self._outbox.may_wait(self._route.max_batch):
            self._timers.start("linger", self._linger, self._lingered)
            return
        self._timers.cancel("linger")
        self._send(self._outbox.cut(self._route.max_batch))

    def _lingered(self) -> None:
        if self._state is _State.OPEN and self._outbox.batch is None and self._trip is None and self._outbox.has_more():
            self._send(self._outbox.cut(self._route.max_batch))

    def _send(self, batch: Batch) -> None:
        assert batch.sequence is not None
        self.awaiting_since = self._loop.time()
        self._connection.send(append_frame(self._channel, batch.sequence, batch.bodies))

    def _cut_out(self, error: WakelineError) -> None:
        """Find the one event for which a batch was refused: send halves until it is alone."""
        alone = self._outbox.divide()
        if alone:
            self._reports.add(alone, "were refused", error)
        self._open()

    def _later(self, error: WakelineError) -> None:
        """Open again after a pause: the gateway is reached but unavailable."""
        self._state, self._trouble = _State.PAUSED, error
        self._connection.failed(error)
        least = float(error.details.get("retry_after", 0))
        self._timers.start("open", least + self._backoff.pause(), self._reopen)
        if isinstance(error, LimitReachedError):
            self.arm()
        else:
            self._settle_first(error)
            self._without_gateway(error)

    def _reopen(self) -> None:
        if self._state is _State.PAUSED and self._connection.is_open:
            self._open()
        elif self._state is _State.PAUSED:
            self._connection.want()

    def _without_gateway(self, error: WakelineError) -> None:
        if self._detour is not None:
            self._start_detour()
        elif not self._route.is_patient:
            self.abandon(error, "could not be delivered")
        self.arm()

    def arm(self) -> None:
        """Start the timer that abandons the events that wait, unless it runs."""
        if not self._trip_goes_on and self._outbox.has_something():
            self._timers.start("abandon", self._route.retry_seconds, self._too_late)

    def _too_late(self) -> None:
        if not self._trip_goes_on:
            self.abandon(
                self._trouble or UnavailableError(f"nothing could be delivered for {self._route.retry_seconds:g} s")
            )

    def _settle_first(self, outcome: WakelineError | None) -> None:
        if not self.first.done():
            self.first.set_result(outcome)

    # The detour

    def _start_detour(self) -> None:
        if self._trip is not None or self._detour is None:
            return
        if self._outbox.sequence is None and self._outbox.batch is None:
            self._outbox.sequence, self._assumed = self._assumed, None
        if self._detour.needs_sequence and self._outbox.sequence is None:
            return  # starts once the gateway has returned the sequence number
        self._timers.cancel("abandon")
        self._trip = OnDetour(self._detour, self._outbox, self._reports, self)

    @property
    def _trip_goes_on(self) -> bool:
        return self._trip is not None and not self._trip.is_stuck

    def ask(self) -> None:
        """Ask the gateway for the next sequence number, which `opened` receives."""
        if self._state is _State.OPEN:
            self._open()

    def detour_over(self) -> None:
        """Continue with the gateway, which has every event of the detour."""
        self._trip = None
        self._backoff.reset()
        if self._state is not _State.OPEN:
            return
        if self._outbox.sequence is None:
            self._open()
        else:
            self.acknowledged = self._outbox.sequence
            self._go_on()
