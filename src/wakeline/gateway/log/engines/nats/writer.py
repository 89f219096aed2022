"""Writers: one for each session that is being changed; it stores one message at a time.

Operations that arrive while a message is stored form the next one. A message is stored only if the one that was decided on is
still the session's last; otherwise the state is read again, and all of its operations are decided again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol, TypeVar

from wakeline.errors import BatchTooLargeError, StorageFailedError, UnavailableError, WakelineError
from wakeline.gateway.log.counts import Counts
from wakeline.gateway.log.engines.nats.composition import Composition
from wakeline.gateway.log.engines.nats.held import Held
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.messages import Message, encode
from wakeline.gateway.log.engines.nats.streams import Streams
from wakeline.gateway.log.outcomes import answer
from wakeline.retry import Backoff

_MOST_TRIES: Final = 50
_MOST_HELD: Final = 20_000
_GROUP_BYTES: Final = 512 * 1024
_MARGIN_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 1024

T = TypeVar("T")


@dataclass(slots=True)
class Operation:
    """An operation on a session, and its caller's answer."""

    work: Callable[[Composition], Any]
    size: int
    future: asyncio.Future[Any]


class Sessions(Protocol):
    """The store of sessions, as a writer uses it."""

    async def load(self, name: str) -> Held:
        """Return a session's present state."""
        ...

    async def is_fresh(self, name: str, held: Held) -> bool:
        """Return whether a state is the session's present one."""
        ...

    def committed(self, name: str, seq: int, message: Message) -> None:
        """Take in a message that is stored."""


class Writers:
    """The writers of a gateway, and the states that they have left.

    Args:
        link: The connection.
        streams: The streams.
        sessions: Loads states, and receives what is stored.
        counts: Counts what is stored.
        gateway: The beginning of the ids of this gateway's messages.
    """

    def __init__(self, link: Link, streams: Streams, sessions: Sessions, counts: Counts, gateway: str) -> None:
        self._link = link
        self._streams = streams
        self._sessions = sessions
        self._counts = counts
        self._gateway = gateway
        self._numbers = count(1)
        self._queues: dict[str, deque[Operation]] = {}
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def submit(self, name: str, work: Callable[[Composition], T], size: int = 0) -> asyncio.Future[T]:
        """Run work on a session; the future is done when its message is durable."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StorageFailedError("expected an open store, it is closed"))
            return future
        if size > self._link.client.max_payload - _MARGIN_BYTES:
            future.set_exception(self._too_large(size))
            return future
        queue = self._queues.setdefault(name, deque())
        queue.append(Operation(work, size, future))
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._run(name, queue))
        return future

    async def stop(self) -> None:
        """Finish what was accepted."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def foreign(self, seq: int, message: Message) -> None:
        """Continue with a message that this gateway learned of by following the stream."""
        name = message.summary.session
        if name in self._tasks:
            return  # its next message is refused if it is decided on an earlier state
        held = self._held.get(name)
        if held is None or held.seq >= seq:
            return
        if held.seq == message.summary.prev:
            held.go_on(seq, message)
        else:
            del self._held[name]

    async def _run(self, name: str, queue: deque[Operation]) -> None:
        try:
            while queue:
                group = [queue.popleft()]
                size = group[0].size
                while queue and size + queue[0].size <= _GROUP_BYTES:
                    size += queue[0].size
                    group.append(queue.popleft())
                try:
                    await self._write(name, group, queue)
                except Exception as error:  # noqa: BLE001 - the callers get it
                    self._held.pop(name, None)
                    for operation in group:
                        if not operation.future.done():
                            operation.future.set_exception(error)
        finally:
            del self._tasks[name]
            del self._queues[name]

    async def _write(self, name: str, group: list[Operation], queue: deque[Operation]) -> None:
        """Decide on operations, and store their message."""
        backoff = Backoff(0.005, 0.5)
        while True:
            held = self._held.pop(name, None) or await self._load(name)
            now = Composition(name, held)
            outcomes: list[Any] = []
            for operation in group:
                try:
                    outcomes.append(operation.work(now))
                except WakelineError as refusal:
                    outcomes.append(refusal)
                if now.sealed:
                    break
            queue.extendleft(reversed(group[len(outcomes) :]))
            del group[len(outcomes) :]
            if await self._store(name, now):
                self._keep(name, held)
                for operation, outcome in zip(group, outcomes, strict=True):
                    answer(operation.future, outcome)
                return
            if backoff.failures >= _MOST_TRIES:
                raise StorageFailedError(
                    f"expected to write {name[:64]!r}, other writers came first {_MOST_TRIES} times"
                )
            await backoff.wait()

    async def _store(self, name: str, now: Composition) -> bool:
        """Store the message; return False if another one came first."""
        stream = self._streams.of(name)
        if not now.touched:
            return await self._sessions.is_fresh(name, now.held)
        message = now.message(id := f"{self._gateway}{next(self._numbers):x}")
        payload = encode(message)
        if len(payload) > self._link.client.max_payload - _HEADER_BYTES:
            message = now.message(id, least=True)
            payload = encode(message)
            if len(payload) > self._link.client.max_payload - _HEADER_BYTES:
                raise self._too_large(len(payload))
        seq = await self._link.append(stream.name, stream.subject(name), payload, id=id, prev=message.summary.prev)
        if seq is None:
            return False
        now.held.reach(seq, message)
        if now.events:
            self._counts.events(now.events)
        if now.added:
            self._counts.publishers(now.added)
        self._sessions.committed(name, seq, message)
        return True

    def _too_large(self, size: int) -> BatchTooLargeError:
        return BatchTooLargeError(
            f"expected a batch of at most {self._link.client.max_payload - _MARGIN_BYTES} bytes, got {size}:"
            " NATS stores it as one message",
            hint="Send several batches, or set a larger max_payload in NATS.",
        )

    async def _load(self, name: str) -> Held:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                return await self._sessions.load(name)
            except UnavailableError:
                if backoff.failures >= 5:
                    raise
            await backoff.wait()

    def _keep(self, name: str, held: Held) -> None:
        self._held[name] = held
        if len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
