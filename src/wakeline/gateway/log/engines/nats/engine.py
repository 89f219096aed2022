"""The log's ports on a NATS JetStream cluster that gateways share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Container, Sequence
from functools import partial
from typing import Final

import structlog
from msgspec import UNSET, UnsetType

from wakeline.background import cancel_all
from wakeline.errors import StorageFailedError
from wakeline.events import NewEvent
from wakeline.gateway.log.engines.nats import appends as appending
from wakeline.gateway.log.engines.nats import portable
from wakeline.gateway.log.engines.nats.eraser import Eraser
from wakeline.gateway.log.engines.nats.health import HealthLog, health
from wakeline.gateway.log.engines.nats.held import Held
from wakeline.gateway.log.engines.nats.index import Index
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.live import Live
from wakeline.gateway.log.engines.nats.messages import Message, decode
from wakeline.gateway.log.engines.nats.pages import Pages
from wakeline.gateway.log.engines.nats.records import RecordStore
from wakeline.gateway.log.engines.nats.renewal import carry_over
from wakeline.gateway.log.engines.nats.streams import Stream, Streams
from wakeline.gateway.log.engines.nats.tail import Tail
from wakeline.gateway.log.engines.nats.target import Target
from wakeline.gateway.log.engines.nats.writer import Writers
from wakeline.gateway.log.outcomes import in_parts
from wakeline.gateway.log.portable import Portable, StoredPublisher
from wakeline.gateway.log.ports import Engine
from wakeline.gateway.log.store import Carry
from wakeline.gateway.log.values import (
    Append,
    Appended,
    NewSession,
    Opened,
    Outcome,
    Page,
    Publication,
    Published,
    Record,
    SessionState,
)

_LOAD_TRIES: Final = 5
_TOGETHER: Final = 100
_PER_EVENT: Final = 32  # the size of an event in a message, without its body
_log = structlog.get_logger(__name__)


class NatsEngine(Engine, Portable):
    """Stores sessions in NATS JetStream, which any number of gateways share.

    Args:
        address: `nats://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?…`; docs/operate/nats.md has the options.
        sync_unchecked: Do not check that the servers write to their disks before they acknowledge.
    """

    shared = True

    def __init__(self, address: str, *, sync_unchecked: bool = False) -> None:
        super().__init__()
        self._target = Target.parse(address)
        self.name = self._target.name
        self._sync_unchecked = sync_unchecked
        self._link = Link(self._target)
        self._streams = Streams(self._target)
        self._index = Index()
        self._pages = Pages(self._link, self._streams, self._index, self._fresh)
        gateway = secrets.token_hex(6)
        self._writers = Writers(self._link, self._streams, self, self.counts, gateway)
        self._records = RecordStore(self._link, self._streams.records)
        self._lives = {
            stream.name: Live(self._index, self.feed, self._writers.foreign, gateway) for stream in self._streams.shards
        }
        self._tails = {
            stream.name: Tail(
                self._link, stream, self._lives[stream.name].follow, self._learn, partial(self._settle, stream)
            )
            for stream in self._streams.shards
        }
        self._eraser = Eraser(self._link, self._streams, self._index, self._records)
        self._health_log = HealthLog(self._link, self.health)
        self._tasks: set[asyncio.Task[list[Outcome]]] = set()

    async def open(self) -> None:
        await self._link.open()
        try:
            nodes = 0
            if self._sync_unchecked:
                _log.warning("whether NATS writes to its disks before it acknowledges is not checked")
            else:
                nodes = await self._target.check_sync()
            await self._streams.open(self._link, self._target.replicas or self._link.most_replicas(nodes))
            await self._follow()
            await self._streams.check_permissions(self._link)
        except StorageFailedError as error:
            await self._leave()
            raise self._target.unfit(
                f"that it can be read, got: {error.message}", "Read the servers' log for the reason."
            ) from error
        except BaseException:
            await self._leave()
            raise
        self._eraser.start()
        self._health_log.start()

    async def _follow(self) -> None:
        """Follow every stream; if one cannot be read, begin no other."""
        starting = [asyncio.create_task(tail.start()) for tail in (self._records.tail, *self._tails.values())]
        try:
            await asyncio.gather(*starting)
        finally:
            await cancel_all(*starting)

    async def _leave(self) -> None:
        await asyncio.gather(self._records.tail.stop(), *(tail.stop() for tail in self._tails.values()))
        await self._link.close()

    async def close(self) -> None:
        await self._health_log.stop()
        await self._writers.stop()
        await self._eraser.stop()
        await self._leave()

    def health(self) -> str:
        return health(self._link, self._records.tail, list(self._tails.values()))

    def erasure_pending(self) -> float:
        return self._eraser.pending

    async def load(self, name: str) -> Held:
        """Return a session's present state, for its writer."""
        for _ in range(_LOAD_TRIES):
            last, message = await self._pages.last(name)
            held = Held()
            if message is None:
                return held
            if not message.summary.alive or message.snapshot is not None:
                held.go_on(last, message)
                return held
            async for seq, one in self._pages.messages(message.summary, message.summary.snapshot_at, last):
                if seq == message.summary.snapshot_at or held.seq:
                    held.go_on(seq, one)
            if held.seq == last:
                return held
        raise StorageFailedError(f"expected the messages of {name[:64]!r} since its last snapshot, some are not there")

    async def is_fresh(self, name: str, held: Held) -> bool:
        """Return whether a state is the session's present one, for its writer."""
        await self._fresh(name)
        return self._index.seq(name) == held.seq or (not held.alive and self._index.get(name) is None)

    async def _fresh(self, name: str) -> None:
        await self._tails[self._streams.of(name).name].fresh()

    def committed(self, name: str, seq: int, message: Message) -> None:
        """Take in a message of this gateway's writer: publishers receive their answers first."""
        known = self._index.seq(name)
        before = self._index.apply(seq, message.summary)
        stream = self._streams.of(name).name
        if not message.summary.alive:
            self._eraser.remove(name, seq, deleted=True)
        elif (
            before is None and message.summary.prev >= known
        ):  # a life begins: the gateway that ended another one may be gone
            self._eraser.remove(name, message.summary.prev)
        report = partial(self._lives[stream].acknowledged, seq, message)
        asyncio.get_running_loop().call_soon(lambda: report(self._tails[stream].seen))

    def _learn(self, seq: int, payload: bytes) -> None:
        """Take in the last message of a session when the gateway starts."""
        self._index.apply(seq, decode(payload).summary)

    def _settle(self, stream: Stream, last: set[int], end: int) -> None:
        """Forget the sessions of a stream whose last messages are gone."""
        for name in self._index.unknown_to(
            lambda name, seq: seq > end or seq in last or self._streams.of(name) is not stream
        ):
            self._lives[stream.name].settle(name)

    async def append(self, append: Append) -> Appended:
        work = partial(appending.append, append=append)
        return await self._writers.submit(append.session, work, _size(append.events))

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        return in_parts(appends, lambda session: session, self._append_some, self._tasks)

    def _append_some(self, session: str, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        size = sum(_size(append.events) for append in appends)
        return self._writers.submit(session, partial(appending.append_each, appends=appends), size)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        work = partial(appending.open_attempt, publication=publication, epoch=epoch)
        return await self._writers.submit(session, work)

    async def read(
        self,
        session: str,
        offset: int,
        *,
        before: int,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._pages.read(session, offset, before, limit, topics, epoch)

    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await self._pages.read_back(session, before, limit, topics, epoch)

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        if publisher is not None:
            return await self._writers.submit(session, lambda now: now.held.state(publisher))
        await self._fresh(session)
        summary = self._index.get(session)
        return None if summary is None or summary.draft else summary.state()

    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        return self._index.sessions(after, limit, within)

    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        return self._index.newest(before, limit, within, contains)

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        work = partial(appending.create_session, new=new)
        return await self._writers.submit(new.session, work, _size(new.events))

    async def configure(
        self,
        session: str,
        *,
        epoch: str,
        config: bytes | UnsetType = UNSET,
        deadline: float | UnsetType | None = UNSET,
        finish: bool = False,
    ) -> None:
        work = partial(appending.configure, epoch=epoch, config=config, deadline=deadline, finish=finish)
        await self._writers.submit(session, work)

    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        return self._index.due(now, limit)

    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        return await self._writers.submit(session, partial(appending.delete_session, epoch=epoch, draft=draft))

    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        work = partial(appending.forget_publisher, publisher=publisher, epoch=epoch)
        await self._writers.submit(session, work)

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        last, now = await self._pages.summary(session, epoch)
        end = min(before, now.first_offset + limit, now.next_offset)
        if end <= now.first_offset:
            return now.first_offset
        size, keep = 0, 0
        async for seq, message in self._pages.from_first(now, last):
            inside = [event for event in message.in_log() if now.first_offset <= event.offset < end]
            size += sum(len(event.body) for event in inside)
            keep = seq + 1 if message.summary.next_offset <= end else seq
            if message.summary.next_offset >= end:
                break
        work = partial(appending.trim, epoch=epoch, begin=now.first_offset, offset=end, size=size, keep=keep)
        kept = await self._writers.submit(session, work)
        if kept == end:
            self._eraser.remove(session, keep)
        return kept

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        last, now = await self._pages.summary(session, epoch)
        target = now.bytes_end - size
        if target <= now.bytes_begin:
            return now.first_offset
        found = await self._pages.find(now, last, lambda one: one.bytes_end >= target)
        if found is None:
            return now.next_offset
        message = found[1]
        events = message.in_log()
        at = message.summary.bytes_end - sum(len(event.body) for event in events)
        for event in events:
            if at >= target:
                return event.offset
            at += len(event.body)
        return message.summary.next_offset

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        last, now = await self._pages.summary(session, epoch)
        found = await self._pages.find(now, last, lambda one: one.latest >= moment)
        if found is None:
            return now.next_offset
        message, offset = found[1], found[1].first
        latest = message.latest_before
        for _, _, time in message.decoded():
            latest = max(latest, time)
            if latest >= moment:
                break
            offset += 1
        return max(offset, now.first_offset)

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        return await self._writers.submit(session, partial(appending.published, offset=offset, epoch=epoch))

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        return await self._records.get(keys)

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        return await self._records.listed(prefix, key, limit)

    async def count_records(self, prefix: str) -> tuple[int, int]:
        return await self._records.count(prefix)

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        # The stream keeps the last message of a key only: earlier values are erased with each change.
        return await self._records.change(key, value, revision)

    async def publishers(self, session: str, *, epoch: str, after: str = "", limit: int = 100) -> list[StoredPublisher]:
        work = partial(portable.publishers, epoch=epoch, after=after, limit=limit)
        return await self._writers.submit(session, work)

    async def order(self, session: str, *, epoch: str) -> str:
        return await self._writers.submit(session, partial(portable.order, epoch=epoch))

    async def add_publishers(self, session: str, publishers: Sequence[StoredPublisher], *, epoch: str) -> None:
        await self._writers.submit(session, partial(portable.add_publishers, added=publishers, epoch=epoch))

    async def adopt(self, session: str, state: SessionState, order: str, *, epoch: str) -> None:
        await self._writers.submit(session, partial(portable.adopt, state=state, its_order=order, epoch=epoch))

    async def renew(self, carry: Carry) -> int:
        """Give every session a new epoch, carry the records over, and return the number of sessions.

        No gateway may use the store. A call that was interrupted is repeated.
        """
        names = [summary.session for summary in self._index.alive()]
        for at in range(0, len(names), _TOGETHER):
            some = names[at : at + _TOGETHER]
            await asyncio.gather(*(self._writers.submit(name, portable.renew) for name in some))
        await carry_over(self._records, carry, self._index.alive())
        return len(names)


def _size(events: Sequence[NewEvent]) -> int:
    return sum(len(event.body) + _PER_EVENT + len(event.topic) for event in events)
