"""Reads the events of sessions, and finds the messages that hold them.

Messages are read from any replica, which may be behind. The state that the stream's leader has names the last message, so that a
reader knows when something is missing, and then asks the leader.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import Final

from wakeline.errors import SessionNotFoundError, StorageFailedError
from wakeline.events import Event
from wakeline.gateway.log.engines.nats.index import Index
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.messages import Message, Stored, Summary, decode
from wakeline.gateway.log.engines.nats.streams import Stream, Streams
from wakeline.gateway.log.names import check_epoch
from wakeline.gateway.log.values import PAGE_BYTES, Page
from wakeline.retry import Backoff

_BATCH: Final = 256
_PLACES: Final = 50_000
_RECENT: Final = 128
_STALE_TRIES: Final = 10


class Pages:
    """Reads sessions.

    Args:
        link: The connection.
        streams: The streams.
        index: The catalog, which no answer may be behind.
        fresh: Waits until the catalog has everything of a session that was stored before.
    """

    def __init__(self, link: Link, streams: Streams, index: Index, fresh: Callable[[str], Awaitable[None]]) -> None:
        self._link = link
        self._streams = streams
        self._index = index
        self._fresh = fresh
        self._recent: OrderedDict[tuple[str, int], Message] = (
            OrderedDict()
        )  # by stream and sequence: pages end within them
        self._places: OrderedDict[tuple[str, int], int] = OrderedDict()  # (epoch, offset) to a sequence at or before it

    async def last(self, name: str) -> tuple[int, Message | None]:
        """Return a session's last message and its sequence; 0 and None if there is none.

        Raises:
            StorageFailedError: The leader does not answer, or does not know what this gateway has seen already.
        """
        stream, backoff = self._streams.of(name), Backoff(0.02, 0.5)
        while True:
            known = self._index.seq(name)
            found = await self._link.last(stream.name, stream.subject(name))
            seq, message = (found[0], decode(found[1])) if found is not None else (0, None)
            if seq >= known or (message is None and name in self._index.ended):
                return seq, message
            if backoff.failures >= _STALE_TRIES:
                if message is None:
                    return 0, None  # it was deleted and removed while this gateway was away
                raise StorageFailedError(f"expected message {known} of {name[:64]!r}, the stream's leader has {seq}")
            await backoff.wait()  # a new leader, which has not caught up

    async def summary(self, name: str, epoch: str | None) -> tuple[int, Summary]:
        """Return a session's state and the sequence of its last message.

        Raises:
            SessionNotFoundError: There is no such session.
            EpochChangedError: It lives in another epoch.
        """
        await self._fresh(name)
        summary = self._index.get(name)
        if summary is None or (summary.draft and epoch != summary.epoch):
            raise SessionNotFoundError(f"there is no session {name!r}")
        check_epoch(name, summary.epoch, epoch)
        return self._index.seq(name), summary

    async def read(
        self, name: str, offset: int, before: int, limit: int, topics: Container[str] | None, epoch: str | None
    ) -> Page:
        """Return a page from an offset on; see `Log.read`."""
        last, now = await self.summary(name, epoch)
        end = min(before, now.next_offset)
        began = max(offset, min(now.first_offset, before))
        taken: list[Event] = []
        size = 0
        if began < end:
            async for event in self.events(now, last, began, min(end, began + limit)):
                if size >= PAGE_BYTES:
                    break
                size += len(event.body)
                taken.append(event)
        after = taken[-1].offset + 1 if taken else began
        return Page([e for e in taken if topics is None or e.topic in topics], after, began)

    async def read_back(
        self, name: str, before: int, limit: int, topics: Container[str] | None, epoch: str | None
    ) -> Page:
        """Return the last events below an offset; see `Log.read_back`."""
        last, now = await self.summary(name, epoch)
        taken: list[Event] = []
        began = at = max(now.first_offset, min(before, now.next_offset)) if before > now.first_offset else before
        size = 0
        mean = max(1, (now.bytes_end - now.bytes_begin) // max(1, now.next_offset - now.first_offset))
        step = max(1, min(limit, PAGE_BYTES // mean))
        while at > now.first_offset and len(taken) < limit and size < PAGE_BYTES:
            start = max(now.first_offset, at - step)
            window = [event async for event in self.events(now, last, start, at)]
            for event in reversed(window):
                if len(taken) >= limit or size >= PAGE_BYTES:
                    break
                size += len(event.body)
                began = event.offset
                if topics is None or event.topic in topics:
                    taken.append(event)
            at = start
        return Page(taken[::-1], before, began if size or taken else before)

    async def events(self, now: Summary, last: int, offset: int, before: int | None = None) -> AsyncIterator[Event]:
        """Yield a session's events from an offset on, which it has, up to its end."""
        end = now.next_offset if before is None else before
        seq = self._places.get((now.epoch, offset)) or await self._find(now, last, lambda one: one.next_offset > offset)
        async for at, message in self.messages(now, seq, last, most=min(_BATCH, end - offset + 1)):
            for event in message.in_log():
                if event.offset >= end:
                    return
                if event.offset >= offset:
                    self._place(now.epoch, event.offset + 1, at)
                    yield event

    async def from_first(self, now: Summary, last: int) -> AsyncIterator[tuple[int, Message]]:
        """Yield the messages from the one with the oldest kept event on."""
        seq = await self._find(now, last, lambda one: one.next_offset > now.first_offset)
        async for one in self.messages(now, seq, last):
            yield one

    def _place(self, epoch: str, offset: int, seq: int) -> None:
        self._places[epoch, offset] = seq
        self._places.pop((epoch, offset - 1), None)  # the next page begins after the last event that was read
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)

    async def messages(
        self, now: Summary, seq: int, last: int, *, most: int = _BATCH
    ) -> AsyncIterator[tuple[int, Message]]:
        """Yield the messages of a session's life from `seq` to `last`.

        Args:
            now: The session's state.
            seq: The first sequence.
            last: The sequence of its last message.
            most: The most messages that are read together.

        Raises:
            SessionNotFoundError: Its messages have been removed.
            StorageFailedError: They cannot be read.
        """
        stream = self._streams.of(now.session)
        prev = 0
        if (recent := self._recent.get((stream.name, seq))) is not None and now.has(recent.summary.epoch):
            yield seq, recent
            prev, seq = seq, seq + 1
        while seq <= last:
            found = await self._link.batch(
                stream.name, seq=seq, next_by_subj=stream.subject(now.session), batch=most, max_bytes=2 * PAGE_BYTES
            )
            if not found:  # this replica does not have them yet, or they were removed
                one = await self._next(stream, now.session, seq)
                if one is None:
                    raise SessionNotFoundError(f"there is no session {now.session!r}")
                found = [one]
            for at, payload in found:
                if at > last:
                    return
                message = decode(payload)
                seq = at + 1
                if not now.has(message.summary.epoch):
                    continue
                if prev and message.summary.prev != prev:
                    raise StorageFailedError(
                        f"expected message {prev} of {now.session[:64]!r} before message {at}, that is not there"
                    )
                prev = at
                self._keep(stream.name, at, message, len(payload))
                yield at, message

    def _keep(self, stream: str, seq: int, message: Message, size: int) -> None:
        if size <= PAGE_BYTES:
            self._recent[stream, seq] = message
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    async def find(self, now: Summary, last: int, above: Callable[[Summary], bool]) -> tuple[int, Message] | None:
        """Return the first message of which `above` holds; it holds of all later ones."""
        low, high = 0, last + 1  # all messages up to `low` are below; those from `high` on are above, or not there
        best: tuple[int, Message] | None = None
        probe = 1
        stream = self._streams.of(now.session)
        while low + 1 < high:
            found = await self._next(stream, now.session, probe)
            if found is None or found[0] >= high:
                high = probe
            else:
                message = decode(found[1])
                if now.has(message.summary.epoch) and above(message.summary):
                    best, high = (found[0], message), probe
                else:
                    low = found[0]
            probe = (low + high) // 2
        return best

    async def _find(self, now: Summary, last: int, above: Callable[[Summary], bool]) -> int:
        found = await self.find(now, last, above)
        if found is None:
            raise SessionNotFoundError(f"there is no session {now.session!r}")
        return found[0]

    async def _next(self, stream: Stream, name: str, seq: int) -> Stored | None:
        """Return a session's first message from `seq` on, as the stream's leader has it."""
        return await self._link.get(stream.name, seq=seq, next_by_subj=stream.subject(name))
