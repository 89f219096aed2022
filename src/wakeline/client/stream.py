"""`EventStream`: every event of a session, once, in order, across disconnects."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Final, Generic, TypeVar

import aiohttp

from wakeline.background import wait_at_most
from wakeline.client.closing import Closing
from wakeline.client.errors import NOT_A_GATEWAY, EventDataError, StreamBrokenError
from wakeline.client.http import LOST, Http
from wakeline.client.sse import FrameParser
from wakeline.client.structs import SessionEvent
from wakeline.client.values import Values
from wakeline.client.view import View, WireEvent
from wakeline.errors import LimitReachedError, UnavailableError, WakelineError
from wakeline.retry import Backoff

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0
_LASTING_SECONDS: Final = 5.0  # a connection that lasted so long did not fail, even if the session was silent
_BROKEN_MOST: Final = 3
_DECODED_MOST: Final = 100


class EventStream(AsyncIterator[SessionEvent[T]], Closing, Generic[T]):
    """An iterator of a session's events; `Session.events` returns one.

        async with session.events(until="settled") as events:
            async for event in events:
                ...

    It has no task of its own: it reads while it is awaited, and unread events wait at the gateway. An await may be cancelled
    at any time, for example by a time-out; the next one continues at the same event. The end of the `async with` block, or
    `aclose`, releases the connection at once; otherwise the garbage collector does.
    """

    def __init__(
        self,
        http: Http,
        path: str,
        query: Mapping[str, str],
        *,
        view: View,
        values: Values,
        on_lost: Callable[[WakelineError], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
    ) -> None:
        """See `Session.events`; the first request is sent when the first event is awaited."""
        self._http = http
        self._path = path
        self._query = query
        self._view = view
        self._values = values
        self._on_lost = on_lost
        self._on_resumed = on_resumed
        self._answer: aiohttp.ClientResponse | None = None
        self._frames = FrameParser(bare=view.bare)
        self._arrived: deque[tuple[WireEvent, str, bytes]] = deque()
        self._ready: deque[SessionEvent[T] | EventDataError] = deque()
        self._waited_for = False
        self._ended = False
        self._dropped = asyncio.Event()
        self._lost = False
        self._backoff = Backoff(_FIRST_PAUSE, _LAST_PAUSE)
        self._connected_at: float | None = None
        self._broken = 0
        self._began_at: str | None = None

    async def __anext__(self) -> SessionEvent[T]:
        """Return the next event.

        Raises:
            StopAsyncIteration: The session has ended, or the stream was closed.
            EventDataError: This event's data is not of the requested type; the next call continues after it.
            RefusedError: The gateway refuses to serve the session.
            StreamBrokenError: The answer is not the session's event stream.
        """
        if not await self.wait():
            raise StopAsyncIteration
        return self.take()

    async def wait(self) -> bool:
        """Wait until `take` can return an event; return False if the stream has ended.

        Raises:
            RuntimeError: Another task is waiting already.
        """
        if self._waited_for:
            raise RuntimeError(
                "expected one reader of a stream at a time, got a second one: open another stream for it"
            )
        self._waited_for = True
        try:
            while not self._ready and not self._ended:
                if self._arrived:
                    await self._decode_arrived()
                else:
                    await self._read_on()
        finally:
            self._waited_for = False
        return bool(self._ready)

    def take(self) -> SessionEvent[T]:
        """Return the next event that has arrived; call `wait` before.

        Raises:
            EventDataError: Its data is not of the requested type.
        """
        event = self._ready.popleft()
        if isinstance(event, EventDataError):
            raise event
        return event

    @property
    def waiting(self) -> int:
        """The number of events that `take` can return without waiting."""
        return len(self._ready)

    def drop(self) -> None:
        """End the stream and release its connection; iteration in another task stops."""
        self._ended = True
        self._dropped.set()
        self._ready.clear()
        self._disconnect()

    async def aclose(self) -> None:
        """End the stream, see `drop`; for `contextlib.aclosing`."""
        self.drop()

    def __del__(self) -> None:
        """Release the connection of a stream that was abandoned in the middle."""
        if getattr(self, "_answer", None) is not None:
            self._disconnect()

    async def _decode_arrived(self) -> None:
        """Decode events that have arrived; a cancellation loses none of `_arrived`."""
        # Many at once, since a codec may be slow; but not all, so that the first ones need not wait for the last.
        some = list(islice(self._arrived, _DECODED_MOST))
        events = await self._values.events(some)
        for event in events if not self._ended else ():
            self._ready.append(event)
            self._arrived.popleft()

    async def _read_on(self) -> None:
        """Connect, or read once; after a temporary failure pause, and let the next call retry."""
        self._http.require_open()
        began = time.monotonic()
        try:
            if self._answer is None:
                await self._connect()
            else:
                await self._receive(self._answer)
        except (UnavailableError, LimitReachedError) as error:
            await self._try_later(error, began)
        except StreamBrokenError as error:
            self._broken += 1
            if self._broken >= _BROKEN_MOST:
                self._end(error)
            await self._try_later(error, began)
        except WakelineError as error:
            self._end(error)

    async def _connect(self) -> None:
        self._began_at = self._view.position
        query = {"from": self._began_at, **self._query}
        answer = await self._http.open("GET", self._path, query=query, headers={"Accept": "text/event-stream"})
        if self._ended:  # closed meanwhile
            answer.close()
            return
        self._answer, self._frames = answer, FrameParser(bare=self._view.bare)
        self._connected_at = asyncio.get_running_loop().time()
        self._view.filtered = self._view.filtered or self._http.may_filter()
        self._http.outage.over()
        if self._lost:
            self._lost = False
            if self._on_resumed:
                self._on_resumed()
        if answer.status == 204:
            self.drop()
        elif answer.content_type != "text/event-stream":
            self._broken = _BROKEN_MOST  # a retry would get the same answer
            message = f"expected text/event-stream, got {answer.status} with {answer.content_type}"
            raise StreamBrokenError(message, hint=NOT_A_GATEWAY)

    async def _receive(self, answer: aiohttp.ClientResponse) -> None:
        try:
            piece = await answer.content.readany()
        except LOST as error:
            raise self._http.lost(error) from None
        if not piece:
            # The session is settled, closed or deleted, or the gateway stops: the next request shows which. Pause if the
            # stream brought nothing, so that one that ends at once is not requested in a loop.
            self._disconnect()
            if self._view.position == self._began_at:
                await self._sleep()
            return
        for frame in self._frames.feed(piece):
            event = self._view.accept(frame)
            if event is not None:
                self._arrived.append((event, frame.cursor, frame.data))
                self._broken = 0
                self._backoff.reset()

    async def _try_later(self, error: WakelineError, began: float) -> None:
        self._disconnect()
        if self._ended:
            return
        self._http.require_open()
        if self._on_lost is None:
            self._http.outage.failed(error.message, began)
        elif not self._lost:
            self._on_lost(error)
        self._lost = True
        await self._sleep(float(error.details.get("retry_after", 0)))

    async def _sleep(self, least: float = 0.0) -> None:
        since, self._connected_at = self._connected_at, None
        if since is not None and asyncio.get_running_loop().time() - since > _LASTING_SECONDS:
            self._backoff.reset()
        await wait_at_most(least + self._backoff.pause(), self._dropped.wait())

    def _end(self, error: WakelineError) -> None:
        """End the stream and raise the error, unless the stream was closed meanwhile."""
        closed = self._ended
        self.drop()
        if not closed:
            raise error

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
