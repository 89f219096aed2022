"""Every event of a session, once, in order, through any disconnect."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import aiohttp

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
_LASTING_SECONDS: Final = 5.0  # a connection that was there so long did not fail, even if the session was silent
_BROKEN_MOST: Final = 3
_DECODED_MOST: Final = 100


class EventStream(AsyncIterator[SessionEvent[T]], Generic[T]):
    """An open reading of a session; `Session.events` makes one.

        async with session.events(until="settled") as events:
            async for event in events:
                ...

    It has no task of its own: it reads while it is awaited, and what is not read waits at the gateway. So an await may be
    cancelled (by a time-out, for one) at any time, and the next one goes on where it was. `async with`, or `aclose`,
    gives the connection back at once; without, it goes when the stream is dropped.
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
        """Nothing is asked before the first event is awaited; see `Session.events`."""
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

    def __aiter__(self) -> Self:
        """It is its own iterator."""
        return self

    async def __anext__(self) -> SessionEvent[T]:
        """The next event.

        Raises:
            StopAsyncIteration: Nothing more will come.
            EventDataError: This event's data is not what was asked for; the next call goes on after it.
            RefusedError: The gateway refuses, for good.
            StreamBrokenError: What comes cannot be the session.
        """
        if not await self.wait():
            raise StopAsyncIteration
        return self.take()

    async def wait(self) -> bool:
        """Wait until there is something to take; False when nothing more will come.

        Raises:
            RuntimeError: Somebody else is waiting already.
        """
        if self._waited_for:
            raise RuntimeError("expected one reader of a stream at a time; open another one for another reader")
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
        """The next of what `wait` has brought.

        Raises:
            EventDataError: Its data is not what was asked for.
        """
        event = self._ready.popleft()
        if isinstance(event, EventDataError):
            raise event
        return event

    @property
    def waiting(self) -> int:
        """How many events are here to be taken without waiting."""
        return len(self._ready)

    def drop(self) -> None:
        """End it, and give the connection back. Who awaits an event in another task is told that nothing more will come."""
        self._ended = True
        self._dropped.set()
        self._ready.clear()
        self._disconnect()

    async def aclose(self) -> None:
        """The same, for `aclosing` and its like."""
        self.drop()

    async def __aenter__(self) -> Self:
        """Nothing: the connection is made when the first event is awaited."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    def __del__(self) -> None:
        """A stream that was left in the middle must not hold its connection."""
        if getattr(self, "_answer", None) is not None:
            self._disconnect()

    async def _decode_arrived(self) -> None:
        """Make ready what has arrived. Events leave `_arrived` when they are ready: a cancellation loses none."""
        # A codec may take a while, so it is asked for many at once; but what is ready need not wait for all the rest.
        some = list(islice(self._arrived, _DECODED_MOST))
        events = await self._values.events(some)
        for event in events if not self._ended else ():
            self._ready.append(event)
            self._arrived.popleft()

    async def _read_on(self) -> None:
        """Connect, or read what has come. After a failure that may pass, pause; the next call tries again."""
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
            self._broken = _BROKEN_MOST  # asking again would bring the same
            message = f"expected text/event-stream, got {answer.status} with {answer.content_type}"
            raise StreamBrokenError(message, hint=NOT_A_GATEWAY)

    async def _receive(self, answer: aiohttp.ClientResponse) -> None:
        try:
            piece = await answer.content.readany()
        except LOST as error:
            raise self._http.lost(error) from None
        if not piece:
            # Settled, closed, deleted, or the gateway stops: asking again tells which. One that ends at once, again
            # and again, is not asked without a pause.
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
        with suppress(TimeoutError):
            async with asyncio.timeout(least + self._backoff.pause()):
                await self._dropped.wait()

    def _end(self, error: WakelineError) -> None:
        """Nothing more will come, for this reason; unless it was closed meanwhile, and nobody wants to know."""
        closed = self._ended
        self.drop()
        if not closed:
            raise error

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
