"""Publishing from threads without an event loop, such as `def` activities and scripts."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, cast, overload

from wakeline.blocking import LoopThread
from wakeline.client.http import Token
from wakeline.client.structs import InputRequest, RequestOutcome
from wakeline.publisher.errors import PublisherMisusedError
from wakeline.publisher.options import PublisherOptions
from wakeline.publisher.publisher import SessionPublisher
from wakeline.publisher.requests import AskedRequest, Asking
from wakeline.publisher.topics import Append, Message, Topic

T = TypeVar("T")

sending = LoopThread("wakeline-publisher")


class SyncSessionPublisher:
    """A `SessionPublisher` for threads: the same methods without `await`, and `with`.

        with SyncSessionPublisher.from_within_activity() as session:
            session.topic("status").publish({"state": "packed"})

    Any number of threads may publish. One thread sends the events of all such publishers in the process, over one
    connection. A forked process cannot use publishers that were opened before the fork; it opens its own.

    Args:
        url: As for `SessionPublisher`.
        token: As for `SessionPublisher`; a function is called in the sending thread.
        session: The session's name.
        options: As for `SessionPublisher`; `on_dropped` is called in the sending thread.
    """

    def __init__(
        self, url: str | None = None, token: Token | None = None, *, session: str, **options: Unpack[PublisherOptions]
    ) -> None:
        self._wrap(SessionPublisher(url, token, session=session, **options))

    @classmethod
    def from_within_activity(
        cls,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: str | None = None,
        **options: Unpack[PublisherOptions],
    ) -> Self:
        """Return a publisher for the current activity, see `SessionPublisher.from_within_activity`.

        A `def` activity has access neither to the worker's client nor to its codec: pass `temporal_client` and
        `data_converter` if you need them.
        """
        made = cls.__new__(cls)
        made._wrap(SessionPublisher.from_within_activity(url, token, session=session, **options))
        return made

    def _wrap(self, publisher: SessionPublisher) -> None:
        self._publisher = publisher
        self._handover = _Handover(publisher)

    @overload
    def topic(self, name: str, *, append: Append | None = ..., keyed: bool = ...) -> SyncTopic[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T], append: Append | None = ..., keyed: bool = ...) -> SyncTopic[T]: ...

    def topic(
        self, name: str, *, type: type[T] | None = None, append: Append | None = None, keyed: bool = False
    ) -> SyncTopic[Any]:
        """See `SessionPublisher.topic`."""
        made = self._publisher.topic(name, type=cast(Any, type), append=append, keyed=keyed)
        return SyncTopic(made, self._handover)

    @property
    def acknowledged(self) -> int:
        """See `SessionPublisher.acknowledged`."""
        return self._publisher.acknowledged

    @property
    def resumed(self) -> int:
        """See `SessionPublisher.resumed`."""
        return self._publisher.resumed

    def request(self, reason: str, **asking: Unpack[Asking]) -> SyncAskedRequest:
        """See `SessionPublisher.request`."""
        return SyncAskedRequest(self._handover.call(self._publisher.request(reason, **asking)), self._handover)

    def flush(self) -> None:
        """See `SessionPublisher.flush`."""
        self._handover.call(self._publisher.flush())

    def heartbeat_every(self, interval: timedelta) -> None:
        """See `SessionPublisher.heartbeat_every`."""
        self._handover.call(_do(lambda: self._publisher.heartbeat_every(interval)))

    def heartbeat(self, *details: Any) -> None:
        """See `SessionPublisher.heartbeat`."""
        self._publisher.heartbeat(*details)

    def close(self) -> None:
        """See `SessionPublisher.aclose`; in a process forked after it was opened, do nothing."""
        if not self._handover.is_elsewhere:
            self._handover.call(self._publisher.aclose())

    def __enter__(self) -> Self:
        """See `SessionPublisher.__aenter__`."""
        self._handover.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `SessionPublisher.__aexit__` and `close`."""
        if not self._handover.is_elsewhere:
            self._handover.call(self._publisher.__aexit__(kind, error, traceback))


class SyncAskedRequest:
    """A request for input, with the methods of `AskedRequest`."""

    def __init__(self, asked: AskedRequest, handover: _Handover) -> None:
        """See `SyncSessionPublisher.request`."""
        self._asked = asked
        self._handover = handover

    @property
    def request(self) -> InputRequest:
        """The request as the gateway answered last."""
        return self._asked.request

    @property
    def id(self) -> str:
        """The request's key."""
        return self._asked.id

    def outcome(self, *, wait: timedelta | None = None) -> RequestOutcome | None:
        """See `AskedRequest.outcome`."""
        return self._handover.call(self._asked.outcome(wait=wait))

    def cancel(self) -> None:
        """See `AskedRequest.cancel`."""
        self._handover.call(self._asked.cancel())


class SyncTopic(Generic[T]):
    """One topic of a `SyncSessionPublisher`, with the methods of `Topic`."""

    def __init__(self, topic: Topic[T], handover: _Handover) -> None:
        """See `SyncSessionPublisher.topic`."""
        self._topic = topic
        self._handover = handover

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._topic.name

    def publish(self, value: T, *, key: str | None = None, notify: Mapping[str, Any] | None = None) -> None:
        """See `Topic.publish`."""
        if key is not None or notify is not None or not self._handover.is_quick():
            self._handover.call(self._topic.publish(value, key=key, notify=notify))
        else:
            self._handover.hand_over(self._topic.encode(value))

    def message(self, id: str) -> SyncMessage[T]:
        """See `Topic.message`."""
        return SyncMessage(self._topic.message(id), self._handover)


class SyncMessage(Generic[T]):
    """A message that grows, with the methods of `Message`."""

    def __init__(self, message: Message[T], handover: _Handover) -> None:
        """See `SyncTopic.message`."""
        self._message = message
        self._handover = handover

    @property
    def id(self) -> str:
        """Its name within the topic."""
        return self._message.id

    def append(self, piece: Any) -> None:
        """See `Message.append`."""
        if not self._handover.is_quick():
            self._handover.call(self._message.append(piece))
        elif (body := self._message.encode(piece)) is not None:
            self._handover.hand_over(body)

    def complete(self, final: Any = None) -> None:
        """See `Message.complete`."""
        self._handover.call(self._message.complete(final))


class _Handover:
    """Passes events to the sending thread, many at a time and in each thread's order.

    A call into that thread that awaits its result costs as much as a hundred events. Hence an event is only appended to
    a list, as long as the buffer has room and no report is pending.
    """

    def __init__(self, publisher: SessionPublisher) -> None:
        self._publisher = publisher
        self._intake = publisher.intake
        self._left: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._coming = False
        self._process: int | None = None  # the process in which it was opened
        self._leaving: asyncio.Task[None] | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was opened before this process was forked; it cannot be used here."""
        return self._intake.sender is not None and self._process is not None and self._process != os.getpid()

    def enter(self) -> None:
        """Open the publisher."""
        is_open = False

        async def entering() -> None:
            nonlocal is_open
            await self._publisher.__aenter__()
            is_open = True

        def leave() -> None:
            if is_open:
                self._leaving = asyncio.create_task(self._publisher.aclose())

        try:
            self.call(entering())
        except BaseException:
            # An exception may interrupt this thread just after the publisher was opened: no other code would close it.
            sending.loop().call_soon_threadsafe(leave)
            raise
        self._process = os.getpid()

    def is_quick(self) -> bool:
        """Return whether `hand_over` may pass an event."""
        return self._intake.is_quick(len(self._left)) and not self.is_elsewhere

    def hand_over(self, body: bytes) -> None:
        """Pass an event without waiting."""
        with self._lock:
            self._left.append(body)
            if not self._coming:
                # In this order: if an exception interrupts this thread in between, a later event still schedules the call.
                sending.loop().call_soon_threadsafe(self._take_all)
                self._coming = True

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work in the sending thread after the events passed so far, and return its result."""
        if self.is_elsewhere:
            work.close()
            raise PublisherMisusedError(
                "expected a publisher of this process, got one that was opened before the fork: open another one"
            )
        return sending.call(self._after(work))

    async def _after(self, work: Coroutine[Any, Any, T]) -> T:
        self._take_all()
        return await work

    def _take_all(self) -> None:
        with self._lock:
            self._coming = False
            bodies = list(self._left)
            self._left.clear()
        for body in bodies:
            self._intake.take_anyway(body)


async def _do(work: Any) -> None:
    work()
