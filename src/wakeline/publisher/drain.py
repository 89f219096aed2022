"""Empties a spool: sends every source's events to the gateway, in order, each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from wakeline.errors import (
    InternalError,
    LimitReachedError,
    RequestError,
    SequenceGapError,
    UnavailableError,
    WakelineError,
)
from wakeline.publisher.connection import Connection
from wakeline.publisher.errors import ENDS, PublishDroppedError
from wakeline.publisher.frames import AppendedFrame, Identity, Opened, append_frame, open_frame
from wakeline.publisher.spool import Spool
from wakeline.retry import Backoff

_NOT_FOR_ONE_EVENT: Final = frozenset({401, 404})


class _Line:
    """A channel for one frame at a time, whose answer is awaited."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answer: asyncio.Future[int] | None = None
        self._connected = asyncio.Event()
        self._is_open = False
        self._error: WakelineError | None = None
        self.awaiting_since: float | None = None
        self.epoch: str | None = None
        """The session's epoch, from the last `opened` frame."""
        self.number = connection.attach(self)
        if connection.is_open:
            self._connected.set()

    async def ask(self, frame: bytes, *, opens: bool = False) -> int:
        """Send a frame and return the `next_sequence` of its answer.

        Args:
            frame: The frame.
            opens: Whether it opens the channel; other frames need the connection on which the channel was opened.

        Raises:
            UnavailableError: That connection broke, or none can be made.
        """
        loop = asyncio.get_running_loop()
        while not self._connected.is_set():
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._answer = loop.create_future()
            await self._answer
        if not opens and not self._is_open:
            # The connection broke between two frames and was made again; the channel is not open on the new one.
            raise UnavailableError("the connection to the gateway broke, and the channel with it")
        self._answer, self.awaiting_since = loop.create_future(), loop.time()
        self._connection.send(frame)
        try:
            return await self._answer
        finally:
            self._answer, self.awaiting_since = None, None

    async def close(self) -> None:
        await self._connection.detach(self.number)

    def connected(self) -> None:
        self._connected.set()
        self._answer_with(0)

    def opened(self, frame: Opened) -> None:
        self._is_open = True
        self.epoch = frame.epoch
        self._answer_with(frame.next_sequence)

    def appended(self, frame: AppendedFrame) -> None:
        self._answer_with(frame.next_sequence)

    def refused(self, error: WakelineError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif not self._connected.is_set():
            self._error = error

    def lost(self, error: UnavailableError) -> None:
        self._connected.clear()
        self._is_open = False
        self.refused(error)

    def unreachable(self, error: UnavailableError) -> None:
        self.refused(error)

    def _answer_with(self, sequence: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(sequence)


async def drain_source(
    spool: Spool,
    connection: Connection,
    identity: Identity,
    refused: list[PublishDroppedError],
    progress: Callable[[int], None] | None = None,
) -> int | None:
    """Send the events of one source; return the attempt's next sequence number.

    Args:
        spool: The file.
        connection: The connection to the gateway.
        identity: The source.
        refused: Receives an error for each event that the gateway refuses and that is put aside in the file.
        progress: Called with the number of events that the gateway has newly acknowledged.

    Returns:
        The next sequence number; None if the source has no events.

    Raises:
        UnavailableError: The gateway cannot be reached; unacknowledged events stay in the file.
        PublishDroppedError: The gateway accepts no more events of the source; they are put aside in the file.
    """
    if await spool.do(spool.page, identity) is None:
        return None
    line = _Line(connection)
    try:
        return await _send(spool, line, identity, refused, progress or (lambda _: None))
    finally:
        await line.close()


async def _send(
    spool: Spool,
    line: _Line,
    identity: Identity,
    refused: list[PublishDroppedError],
    progress: Callable[[int], None],
) -> int | None:
    backoff = Backoff()
    reached: int | None = None
    is_open = is_new = False
    most = 1 << 30
    while (page := await spool.do(spool.page, identity)) is not None:
        bodies = page.bodies[:most]
        try:
            if not is_open:
                reached = await line.ask(open_frame(line.number, identity), opens=True)
                is_open = is_new = True
                identity = msgspec.structs.replace(identity, epoch=line.epoch)
                await spool.do(spool.set_identity, identity)
            assert reached is not None
            if page.base is None:
                # Another process may send this source too. The first one stores the base; read the page again.
                await spool.do(spool.set_base, identity, reached - page.position)
                is_new = False
                continue
            first = page.base + page.position
            if reached < first and not is_new:
                is_open = False  # another process has sent the events before: open again for the next sequence number
                continue
            is_new = False
            if reached < first:
                said = f"expected {first} events of this attempt in the session, it has {reached}"
                raise SequenceGapError(said, expected=reached)
            arrived = min(reached - first, len(bodies))
            if arrived == 0:
                reached = await line.ask(append_frame(line.number, first, bodies))
                arrived = len(bodies)
            await spool.do(spool.remove, identity, page.position + arrived)
            progress(arrived)
            backoff.reset()
            most = most * 2 if most < (1 << 30) else most
        except (LimitReachedError, InternalError) as error:
            is_open = False
            await backoff.wait(float(error.details.get("retry_after", 0)))
        except (*ENDS, SequenceGapError) as error:
            raise await _refuse(spool, identity, None, error) from error
        except RequestError as error:
            if not is_open or error.status in _NOT_FOR_ONE_EVENT:
                raise
            is_open = False
            if len(bodies) > 1:
                most = max(1, len(bodies) // 2)
            else:
                refused.append(await _refuse(spool, identity, page.position + 1, error))
                most = 2
    return reached


async def _refuse(spool: Spool, identity: Identity, before: int | None, error: WakelineError) -> PublishDroppedError:
    bodies = await spool.do(spool.refuse, identity, before, error)
    said = f"{len(bodies)} spooled events of session {identity.session!r} were refused and put aside"
    said += f" (publisher {identity.publisher!r}, attempt {identity.attempt})"
    return PublishDroppedError.because_of(error, said, bodies)


async def drain(
    spool: Spool,
    connection: Connection,
    refused: list[PublishDroppedError],
    progress: Callable[[int], None] | None = None,
    *,
    but: Identity | None = None,
) -> None:
    """Send the events of all sources, by session, publisher and attempt.

    Args:
        spool: The file.
        connection: The connection to the gateway.
        refused: Receives an error for the events that the gateway refuses, also if this call raises afterwards: a later
            call does not report them again.
        progress: Called with the number of events that the gateway has newly acknowledged.
        but: A source to leave out, which its own publisher sends.

    Raises:
        UnavailableError: The gateway cannot be reached; unacknowledged events stay in the file.
        RefusedError: The gateway refuses to open a source; its events stay in the file.
    """
    for identity in await spool.do(spool.sources):
        if but is None or identity.key != but.key:
            try:
                await drain_source(spool, connection, identity, refused, progress)
            except PublishDroppedError as error:
                refused.append(error)
