"""The client without asyncio: the same names, plain iterators, from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Generic, Self, TypeVar, Unpack, cast, overload

from wakeline.blocking import LoopThread
from wakeline.client.client import SessionClient
from wakeline.client.http import Token
from wakeline.client.live_view import Change, LiveMessage, LiveView, Name
from wakeline.client.options import Answer, ClientOptions, ExactlyOnce, PageReading, Reading, Sending
from wakeline.client.session import Session
from wakeline.client.stream import EventStream
from wakeline.client.structs import (
    Device,
    InputOutcome,
    InputRequest,
    Page,
    Published,
    Retention,
    Run,
    SessionEvent,
    SessionState,
)

T = TypeVar("T")
Item = TypeVar("Item")


class _SyncReading(Iterator[Item], Generic[Item]):
    """An iterator of a session that another thread reads."""

    _thread: LoopThread
    _reading: EventStream[Any] | LiveView[Any]

    def close(self) -> None:
        """End it and release its connection."""
        self._thread.call(self._reading.aclose())

    def __enter__(self) -> Self:
        """Return itself; the connection is made for the first item."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def __del__(self) -> None:
        """Release the connection of a loop that was left early, in the thread that owns it."""
        self._thread.later(self._reading.drop)


class SyncEventStream(_SyncReading[SessionEvent[T]], Generic[T]):
    """An iterator of a session's events, see `EventStream`; `with` or `close` ends it."""

    def __init__(self, thread: LoopThread, stream: EventStream[T]) -> None:
        """See `SyncSession.events`."""
        self._thread = thread
        self._reading = self._stream = stream

    def __next__(self) -> SessionEvent[T]:
        """Return the next event; raises as `EventStream.__anext__`."""
        # Events that have arrived are taken in this thread: a call into the other one costs more than an event.
        if not self._stream.waiting and not self._thread.call(self._stream.wait()):
            raise StopIteration
        try:
            return self._stream.take()
        except IndexError:
            raise StopIteration from None  # another thread has closed it meanwhile


class SyncLiveView(_SyncReading[Change[T]], Generic[T]):
    """The state of a session, kept up to date, see `LiveView`; `with` or `close` ends it.

    Attributes:
        messages: The growing messages, by topic and id.
        keyed: The latest event of each topic and key.
        events: All other events that were not superseded, in order.
    """

    def __init__(self, thread: LoopThread, view: LiveView[T]) -> None:
        """See `SyncSession.view`."""
        self.messages: dict[Name, LiveMessage] = view.messages
        self.keyed: dict[Name, SessionEvent[T]] = view.keyed
        self.events: list[SessionEvent[T]] = view.events
        self._thread = thread
        self._reading = self._view = view
        self._arrived: deque[Change[T] | None] = deque()

    def __next__(self) -> Change[T]:
        """Apply and return the next change; raises as `LiveView.__anext__`."""
        view, arrived = self._view, self._arrived

        async def fetch() -> None:
            # Stored in the other thread: if this one is interrupted as a change arrives, the next call returns it.
            if not arrived:
                arrived.append(await anext(view, None))

        self._thread.call(fetch())
        change = arrived.popleft()
        if change is None:
            raise StopIteration
        return change


class SyncSession:
    """A handle on one session, with the methods of `Session`; each returns when it is done."""

    def __init__(self, thread: LoopThread, session: Session) -> None:
        """See `SyncSessionClient.session`."""
        self.name = session.name
        self._call = thread.call
        self._thread = thread
        self._session = session

    @overload
    def events(self, *, type: type[T], **how: Unpack[Reading]) -> SyncEventStream[T | dict[str, Any]]: ...
    @overload
    def events(self, *, type: object = ..., **how: Unpack[Reading]) -> SyncEventStream[Any]: ...

    def events(self, *, type: Any = None, **how: Unpack[Reading]) -> SyncEventStream[Any]:
        """See `Session.events`; `on_lost` and `on_resumed` are called in the client's thread."""
        return SyncEventStream(self._thread, self._session.events(type=type, **how))

    @overload
    def view(self, *, type: type[T], **how: Unpack[Reading]) -> SyncLiveView[T | dict[str, Any]]: ...
    @overload
    def view(self, *, type: object = ..., **how: Unpack[Reading]) -> SyncLiveView[Any]: ...

    def view(self, *, type: Any = None, **how: Unpack[Reading]) -> SyncLiveView[Any]:
        """See `Session.view`; `on_lost` and `on_resumed` are called in the client's thread."""
        return SyncLiveView(self._thread, self._session.view(type=type, **how))

    @overload
    def page(self, *, type: type[T], **how: Unpack[PageReading]) -> Page[T | dict[str, Any]]: ...
    @overload
    def page(self, *, type: object = ..., **how: Unpack[PageReading]) -> Page[Any]: ...

    def page(self, *, type: Any = None, **how: Unpack[PageReading]) -> Page[Any]:
        """See `Session.page`."""
        return self._call(self._session.page(type=type, **how))

    def publish(self, topic: str, data: Any = None, **exactly_once: Unpack[ExactlyOnce]) -> Published:
        """See `Session.publish`."""
        return self._call(self._session.publish(topic, data, **exactly_once))

    def publish_many(
        self, events: Sequence[tuple[str, Any] | Mapping[str, Any]], **exactly_once: Unpack[ExactlyOnce]
    ) -> Published:
        """See `Session.publish_many`."""
        return self._call(self._session.publish_many(events, **exactly_once))

    def send(self, name: str = "", args: Sequence[Any] = (), **how: Unpack[Sending]) -> InputOutcome:
        """See `Session.send`."""
        return self._call(self._session.send(name, args, **how))

    def requests(self) -> list[InputRequest]:
        """See `Session.requests`."""
        return self._call(self._session.requests())

    def claim(self, request: str, *, device: str, lease: timedelta = timedelta(seconds=30)) -> InputRequest:
        """See `Session.claim`."""
        return self._call(self._session.claim(request, device=device, lease=lease))

    def answer(self, request: str, payload: Any = None, **how: Unpack[Answer]) -> InputRequest:
        """See `Session.answer`."""
        return self._call(self._session.answer(request, payload, **how))

    def state(self) -> SessionState:
        """See `Session.state`."""
        return self._call(self._session.state())

    def create(self, *, retention: Retention | None = None) -> SessionState:
        """See `Session.create`."""
        return self._call(self._session.create(retention=retention))

    def close(self) -> None:
        """See `Session.close`."""
        self._call(self._session.close())

    def delete(self) -> None:
        """See `Session.delete`."""
        self._call(self._session.delete())

    def acknowledge(self, position: str | SessionEvent[Any], *, device: str, everywhere: bool = False) -> Device:
        """See `Session.acknowledge`."""
        return self._call(self._session.acknowledge(position, device=device, everywhere=everywhere))

    def devices(self) -> list[Device]:
        """See `Session.devices`."""
        return self._call(self._session.devices())

    def forget_device(self, device: str) -> None:
        """See `Session.forget_device`."""
        self._call(self._session.forget_device(device))

    def export(self, to: str | PathLike[str], *, on_progress: Callable[[int], None] | None = None) -> int:
        """See `Session.export`; `on_progress` is called in the client's thread."""
        return self._call(self._session.export(to, on_progress=on_progress))

    def import_(self, source: str | PathLike[str], *, on_progress: Callable[[int], None] | None = None) -> SessionState:
        """See `Session.import_`; `on_progress` is called in the client's thread."""
        return self._call(self._session.import_(source, on_progress=on_progress))


class SyncSessionClient:
    """A client of one gateway for programs without asyncio; the arguments are `SessionClient`'s.

        with SyncSessionClient() as client:
            for event in client.session("order-1").events(until="settled"):
                print(event.topic, event.data)

    Any number of threads may use it. It has one thread of its own, which ends with `close`. A forked process does not have
    that thread and must make its own client.
    """

    def __init__(self, url: str | None = None, token: Token | None = None, **options: Unpack[ClientOptions]) -> None:
        """See `SessionClient`; a `token` function is called in the client's thread."""
        self._client = SessionClient(url, token, **options)
        self._thread = LoopThread("wakeline-client", self._client.aclose)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return self._client.url

    def session(self, name: str) -> SyncSession:
        """See `SessionClient.session`."""
        return SyncSession(self._thread, self._client.session(name))

    def sessions(self, *, after: str = "") -> Iterator[SessionState]:
        """See `SessionClient.sessions`."""
        return self._thread.iterate(cast(AsyncGenerator[SessionState, None], self._client.sessions(after=after)))

    def register(
        self,
        workflow_id: str,
        *,
        session: str | None = None,
        namespace: str | None = None,
        result: bool = False,
        activity: bool = False,
    ) -> Run:
        """See `SessionClient.register`."""
        return self._thread.call(
            self._client.register(workflow_id, session=session, namespace=namespace, result=result, activity=activity)
        )

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._thread.close()

    def __enter__(self) -> Self:
        """Return itself; connections are made when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
