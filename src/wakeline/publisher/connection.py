"""The one WebSocket that all publishers of an event loop share.

It stays open, joins frames into messages, and dispatches each answer to the publisher that it concerns.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Final, Protocol

import aiohttp
import msgspec

from wakeline.background import cancel_all, supervised
from wakeline.client.errors import refusal
from wakeline.client.http import LOST
from wakeline.errors import UnavailableError, WakelineError
from wakeline.logs import get_logger
from wakeline.outages import Outage
from wakeline.publisher.dial import Dial
from wakeline.publisher.frames import AppendedFrame, ErrorFrame, Opened, WarningFrame, close_frame, decode
from wakeline.retry import Backoff

logger = get_logger(__name__)

MOST_CHANNELS: Final = 900  # the gateway accepts 1,000
MAX_MESSAGE_BYTES: Final = 7 * 1024 * 1024
_LONGEST_PAUSE: Final = 1.0  # one attempt a second for a whole process is a small load, and a restart is soon noticed
_ANSWER_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 10.0  # open without channels, so that a worker's next activity need not connect again
_MOST_HINTS: Final = 1_000
_UNWELCOME_SECONDS: Final = 5.0
_TOKEN_OVER: Final = 4401
_TOO_MANY: Final = 4429
_TOO_MANY_PAUSE: Final = 10.0
_NOT_UNDERSTOOD: Final = frozenset({1002, 1003, 1007, 1009, 4400})


class Channel(Protocol):
    """The callbacks of one user of a connection. None of them may wait or raise."""

    awaiting_since: float | None
    """When the frame that awaits an answer was sent, by the loop's clock; None if no answer is due."""

    def connected(self) -> None:
        """React to a new connection, on which no channel is open yet."""

    def opened(self, frame: Opened) -> None:
        """React to the opened channel."""

    def appended(self, frame: AppendedFrame) -> None:
        """React to events that are durable now."""

    def refused(self, error: WakelineError) -> None:
        """React to the refusal of a frame of this channel, or of the whole connection."""

    def lost(self, error: UnavailableError) -> None:
        """React to a broken connection; the next attempt to connect follows at once."""

    def unreachable(self, error: UnavailableError) -> None:
        """React to a failed attempt to connect; further attempts follow until one succeeds."""


class Connection:
    """A WebSocket to the gateway, open for as long as there are channels, and a little longer.

    One background task connects, reads and reconnects; all methods run in its event loop.

    Args:
        dial: Opens a WebSocket.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._channels: dict[int, Channel] = {}
        self._numbers = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._frames: list[bytes] = []
        self._hints: dict[bytes, None] = {}
        self._complaints: set[str] = set()
        self._warnings: set[str] = set()  # the hints of those that were logged, of all connections
        self._outage = Outage(logger, f"Reaching the gateway at {dial.url}")
        self._refusal: WakelineError | None = None  # with which the last connection was closed
        self._is_served = False  # the gateway accepted a frame on this connection, or none was sent
        self._unwelcome = False  # the gateway closed the last connection at once, because it had no token
        self._backoff = Backoff(longest=_LONGEST_PAUSE)
        self._something = asyncio.Event()
        self._hinted = asyncio.Event()
        self._hinted.set()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._socket is not None

    @property
    def is_kept(self) -> bool:
        """Whether its background task runs: it is open, or being opened."""
        return self._task is not None

    def attach(self, channel: Channel) -> int:
        """Add a channel and return its number; `connected` is called for later connections only."""
        self._numbers += 1
        number = self._numbers
        self._channels[number] = channel
        self._stay()
        if self._task is None:
            self._task = supervised(f"connection to {self._dial.url}", self._run)
        self.want()
        return number

    async def detach(self, number: int) -> None:
        """Remove a channel; ten seconds after the last one, close the connection."""
        if self._channels.pop(number, None) is not None and self._socket is not None:
            self.send(close_frame(number))
        if self._channels or self._task is None:
            return
        self._stay()
        if self._socket is not None:
            self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._end)
            return
        await asyncio.wait([self._end()], timeout=1.0)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> asyncio.Task[None]:
        task, self._task = self._task, None
        assert task is not None
        task.cancel()
        return task

    def send(self, frame: bytes) -> None:
        """Send a frame with the next message; it is lost if the connection breaks before that."""
        self._frames.append(frame)
        self._something.set()

    def hint(self, frame: bytes) -> None:
        """Send a frame that has no answer; equal frames that wait are sent once.

        It waits while a connection is being made. It is dropped if the attempt fails, or if 1,000 others wait.
        """
        if len(self._hints) < _MOST_HINTS or frame in self._hints:
            self._hints[frame] = None
            self._hinted.clear()
            self._something.set()

    async def hinted(self) -> None:
        """Wait until every hint was sent or dropped."""
        await self._hinted.wait()

    def _drop_hints(self) -> None:
        self._hints.clear()
        self._hinted.set()

    def want(self) -> None:
        """Connect again if the gateway refused before: there is something to send."""
        self._wanted.set()

    async def _run(self) -> None:
        try:
            while True:
                if not self._channels:
                    self._wanted.clear()
                    await self._wanted.wait()
                began = time.monotonic()
                try:
                    socket = await self._dial.open()
                except UnavailableError as error:
                    self.failed(error, began)
                    self._drop_hints()
                    for channel in list(self._channels.values()):
                        channel.unreachable(error)
                    await self._backoff.wait(float(error.details.get("retry_after", 0)))
                    continue
                except WakelineError as error:
                    self._outage.over()  # a refusal is an answer
                    self._dispatch_refusal(error)
                    await self._until_wanted()
                    continue
                heard = await self._serve(socket)
                if heard:
                    self._backoff.reset()
                if self._refusal is not None:
                    await self._until_wanted()
                elif socket.close_code == _TOO_MANY:
                    await asyncio.sleep(_TOO_MANY_PAUSE * random.uniform(1.0, 1.5))
                elif not heard:
                    await self._backoff.wait()
        finally:
            await self._dial.close()

    def failed(self, error: WakelineError, began: float | None = None) -> None:
        """Record that the gateway did not accept a frame, which is retried."""
        self._outage.failed(error.message, began)

    def _dispatch_refusal(self, error: WakelineError) -> None:
        self._wanted.clear()
        self._drop_hints()
        for channel in list(self._channels.values()):
            channel.refused(error)

    async def _until_wanted(self) -> None:
        """Wait, after a refusal, until there is something to send, and then for the next pause."""
        await self._wanted.wait()
        await self._backoff.wait()

    def _why_closed(self, code: int | None, seconds: float) -> WakelineError | None:
        """Return the refusal that a close code stands for; None if another connection may succeed."""
        if code in _NOT_UNDERSTOOD:
            message = f"the gateway closed the connection with {code}: it does not understand this client's frames"
            return refusal(400, {"message": message})
        if code != _TOKEN_OVER:
            self._unwelcome = False
            return None
        before, self._unwelcome = self._unwelcome, seconds < _UNWELCOME_SECONDS and not self._is_served
        return self._dial.token_wanted(again=before and self._unwelcome)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Serve one connection to its end; return whether the gateway sent anything."""
        began = time.monotonic()
        self._is_served, self._refusal = False, None
        self._socket = socket
        self._frames.clear()
        self._complaints.clear()
        self._something.set()  # for hints that wait
        for channel in list(self._channels.values()):
            channel.connected()
        writer = asyncio.create_task(self._write(socket))
        watcher = asyncio.create_task(self._watch(socket))
        heard = False
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                heard = True
                for line in message.data.split("\n"):
                    if line:
                        self._heard(line)
        finally:
            self._socket = None
            self._hinted.set()
            await cancel_all(writer, watcher)
            with suppress(*LOST):
                await socket.close()
            cause = socket.exception()
            error = self._dial.lost(cause or f"the connection was closed ({socket.close_code})")
            self._refusal = self._why_closed(socket.close_code, time.monotonic() - began)
            if self._refusal is not None:
                self._dispatch_refusal(self._refusal)
            elif not self._is_served:
                self.failed(error, began)
            for channel in list(self._channels.values()):
                channel.lost(error)
        return heard

    def _is_asked(self) -> bool:
        return any(channel.awaiting_since is not None for channel in self._channels.values())

    def _heard(self, line: str) -> None:
        try:
            frame = decode(line)
        except msgspec.DecodeError:
            return  # a frame of a later version
        if isinstance(frame, (AppendedFrame, Opened)) or not self._is_asked():
            self._is_served = True
            self._outage.over()
        if isinstance(frame, AppendedFrame):
            if channel := self._channels.get(frame.channel):
                channel.appended(frame)
        elif isinstance(frame, Opened):
            if channel := self._channels.get(frame.channel):
                channel.opened(frame)
        elif isinstance(frame, WarningFrame):
            self._log_warning(frame)
        elif isinstance(frame, ErrorFrame):
            error = refusal(0, frame.error)
            error.status = type(error).status  # type: ignore[misc] # a frame has no status; its code does
            if frame.channel is None:
                if error.code not in self._complaints:
                    self._complaints.add(error.code)
                    logger.warning("the gateway refused a frame: %s", error.message)
            elif channel := self._channels.get(frame.channel):
                channel.refused(error)

    def _log_warning(self, frame: WarningFrame) -> None:
        """Log a warning of the gateway, once for all publishers that it concerns."""
        if frame.hint not in self._warnings:
            self._warnings.add(frame.hint)
            logger.warning("%s. %s (Logged once.)", frame.message, frame.hint)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                while self._frames or self._hints:
                    await socket.send_frame(self._message(), aiohttp.WSMsgType.TEXT)
                self._hinted.set()
        except LOST:
            await socket.close()  # ends the task that reads

    def _message(self) -> bytes:
        """Take out all frames that wait, or as many as one message holds."""
        if self._hints:  # before the frames: hints have waited for the connection
            self._frames[:0] = self._hints
            self._hints.clear()
        size = 0
        for count, frame in enumerate(self._frames):
            size += len(frame) + 1
            if size > MAX_MESSAGE_BYTES and count:
                message, self._frames = b"\n".join(self._frames[:count]), self._frames[count:]
                return message
        frames, self._frames = self._frames, []
        return frames[0] if len(frames) == 1 else b"\n".join(frames)

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Close the connection if a frame has no answer for 30 s.

        The heartbeat of the WebSocket finds a gateway that is gone, but not one that reads frames and answers none.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ANSWER_SECONDS / 4)
            before = loop.time() - _ANSWER_SECONDS
            if any(c.awaiting_since is not None and c.awaiting_since < before for c in self._channels.values()):
                logger.warning(
                    "%s has not answered for %g s; the connection is opened again", self._dial.url, _ANSWER_SECONDS
                )
                await socket.close()
                return
