"""Emptying a spool: every source's events to the gateway, in order, each exactly once."""

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
    """A channel that is waited for: one frame, one answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answer: asyncio.Future[int] | None = None
        self._connected = asyncio.Event()
        self._is_open = False
        self._error: WakelineError | None = None
        self.awaiting_since: float | None = None
        self.epoch: str | None = None
        """The session's, as the last `opened` said it."""
        self.number = connection.attach(self)
        if connection.is_open:
            self._connected.set()

    async def ask(self, frame: bytes, *, opens: bool = False) -> int:
        """Send a frame; returns the `next_sequence` of its answer.

        Args:
            frame: The frame.
            opens: It is the one that opens the channel; any other is for the connection on which the channel was opened.

        Raises:
            UnavailableError: That connection is gone, or none can be had.
        """
        loop = asyncio.get_running_loop()
        while not self._connected.is_set():
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._answer = loop.create_future()
            await self._answer
        if not opens and not self._is_open:
            # While nobody was asking it broke, and there is another one: it would take the frame for a mistake of ours.
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
        self._tell(0)

    def opened(self, frame: Opened) -> None:
        self._is_open = True
        self.epoch = frame.epoch
        self._tell(frame.next_sequence)

    def appended(self, frame: AppendedFrame) -> None:
        self._tell(frame.next_sequence)

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

    def _tell(self, sequence: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(sequence)


async def drain_source(
    spool: Spool,
    connection: Connection,
    identity: Identity,
    refused: list[PublishDroppedError],
    progress: Callable[[int], None] | None = None,
) -> int | None:
    """Send what waits of one source; returns the attempt's next sequence, None if nothing waited.

    Args:
        spool: The file.
        connection: The way to the gateway.
        identity: The source.
        refused: Gets each event that the gateway refuses and that is put aside in the file, whatever comes after it.
        progress: Told how many events more the gateway has.

    Raises:
        UnavailableError: The gateway cannot be reached; what it has not acknowledged stays in the file.
        PublishDroppedError: It takes nothing more of the source; what waited is put aside in the file.
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
                # Somebody else may send the source, too: whoever is first says so, and what is left now counts.
                await spool.do(spool.set_base, identity, reached - page.position)
                is_new = False
                continue
            first = page.base + page.position
            if reached < first and not is_new:
                is_open = False  # somebody else has sent what came before: ask again where the attempt stands
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
    """Send what waits of all sources, by session, publisher and attempt.

    Args:
        spool: The file.
        connection: The way to the gateway.
        refused: Gets what the gateway refuses, also where an error is raised afterwards: it is in no later attempt.
        progress: Told how many events more the gateway has.
        but: A source that somebody else sees to.

    Raises:
        UnavailableError: The gateway cannot be reached; what it has not acknowledged stays in the file.
        RefusedError: It refuses to open a source; its events stay in the file.
    """
    for identity in await spool.do(spool.sources):
        if but is None or not identity.is_same(but):
            try:
                await drain_source(spool, connection, identity, refused, progress)
            except PublishDroppedError as error:
                refused.append(error)
