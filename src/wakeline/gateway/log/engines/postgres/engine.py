"""The log's ports on a PostgreSQL database that gateways share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from zlib import crc32

import structlog
from msgspec import UNSET, UnsetType

from wakeline.background import begin
from wakeline.errors import WakelineError
from wakeline.events import NewEvent
from wakeline.gateway.log.engines.postgres import appends as appending
from wakeline.gateway.log.engines.postgres import changes, queries
from wakeline.gateway.log.engines.postgres.eraser import Eraser
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.schema import migrate
from wakeline.gateway.log.engines.postgres.statements import FORGET_WRITERS
from wakeline.gateway.log.engines.postgres.stretches import Stretches
from wakeline.gateway.log.engines.postgres.target import FAILURES, Target
from wakeline.gateway.log.engines.postgres.transaction import Life, News, Transaction
from wakeline.gateway.log.engines.postgres.wakeups import Wakeups
from wakeline.gateway.log.engines.postgres.watches import Watches
from wakeline.gateway.log.engines.postgres.writer import Operation, Writer
from wakeline.gateway.log.feed import Listener
from wakeline.gateway.log.names import name_ranges
from wakeline.gateway.log.ports import Engine
from wakeline.gateway.log.values import (
    Append,
    Appended,
    Opened,
    Outcome,
    Page,
    Publication,
    Record,
    SessionState,
    check_record,
)

WRITERS: Final = 2
"""Connections that append: on the disk, their commits overlap."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class PostgresEngine(Engine):
    """Stores sessions in a PostgreSQL database, which any number of gateways share.

    Its tables are in the schema `wakeline`.

    Args:
        address: `postgres://USER@HOST:PORT/DATABASE`; see `Target`.
    """

    shared = True

    def __init__(self, address: str) -> None:
        super().__init__()
        self._target = Target(address)
        self._readers = Readers(self._target)
        self._watches = Watches(self._readers, self.feed)
        self._wakeups = Wakeups(self._target, self._watches, self.feed)
        self._writers = [Writer(self._target, self._committed, self.counts) for _ in range(WRITERS)]
        # Leases and other records do not wait for a large transaction of appends.
        self._recorder = Writer(self._target, self._committed, self.counts)
        self._eraser = Eraser(self._target)
        self._stretches = Stretches()
        self._tasks: set[asyncio.Task[list[Outcome]]] = set()

    async def open(self) -> None:
        connection = await self._target.open()
        try:
            await migrate(connection)
            await connection.execute(FORGET_WRITERS)
            if await connection.fetchval("SHOW fsync") == "off":
                _log.warning("fsync is off in PostgreSQL: a power cut may lose acknowledged events, or all of them")
        except FAILURES as error:
            connection.terminate()
            raise self._target.failure(error) from error
        except BaseException:
            connection.terminate()
            raise
        await self._wakeups.start(connection)
        self._watches.start()
        for writer in (*self._writers, self._recorder):
            writer.start()
        self._eraser.start()

    async def close(self) -> None:
        await self._eraser.stop()
        await asyncio.gather(*(writer.stop() for writer in (*self._writers, self._recorder)))
        await self._watches.stop()
        await self._wakeups.stop()
        await self._readers.close()

    def health(self) -> str:
        return "ok" if self._wakeups.works else "ok, but notifications do not arrive: watched sessions are polled"

    def erasure_pending(self) -> float:
        return self._eraser.pending

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        return self._watches.subscribe(session, listener)

    def _committed(self, news: Mapping[Life, News]) -> None:
        self._wakeups.tell(news)
        self._watches.committed(news)

    async def append(self, append: Append) -> Appended:
        answer: Appended = await self._submit(
            [append.session], lambda transaction: appending.append(transaction, append), [append]
        )
        return answer

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        by_writer: dict[Writer, list[int]] = {}
        for place, append in enumerate(appends):
            by_writer.setdefault(self._writer(append.session), []).append(place)
        parts = {
            tuple(places): self._submit(
                [appends[place].session for place in places],
                partial(appending.append_each, appends=[appends[place] for place in places]),
                [appends[place] for place in places],
            )
            for places in by_writer.values()
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        return begin(_joined(len(appends), parts), self._tasks)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        opened: Opened = await self._submit(
            [session],
            lambda transaction: appending.open_attempt(transaction, session, publication, epoch),
            [Append(session, (), publication)],
        )
        return opened

    def _writer(self, session: str) -> Writer:
        return self._writers[crc32(session.encode()) % WRITERS]

    def _submit(
        self, names: Sequence[str], work: Callable[[Transaction], Awaitable[Any]], appends: Sequence[Append] = ()
    ) -> asyncio.Future[Any]:
        """Run work on sessions, all of which have one writer, in its next transaction."""
        publishers = [(one.session, one.publication.publisher) for one in appends if one.publication is not None]
        size = sum(len(event.body) for one in appends for event in one.events)
        operation = Operation(lambda transaction, _: work(transaction), names, publishers, size=size)
        return self._writer(names[0]).submit(operation)

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
        return await queries.read(self._readers, session, offset, before, limit, topics, epoch)

    async def read_back(
        self,
        session: str,
        before: int,
        *,
        limit: int = 1000,
        topics: Container[str] | None = None,
        epoch: str | None = None,
    ) -> Page:
        return await queries.read_back(self._readers, session, before, limit, topics, epoch)

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        state = await queries.state(self._readers, session, publisher)
        self._watches.seen(session, state)
        return state

    async def sessions(
        self, *, after: str = "", limit: int = 100, within: Sequence[str] = ("*",)
    ) -> list[SessionState]:
        return await queries.sessions(self._readers, after, limit, name_ranges(within))

    async def create_session(
        self,
        session: str,
        *,
        config: bytes = b"",
        first_offset: int = 0,
        events: Sequence[NewEvent] = (),
        closed: bool = False,
        deadline: float | None = None,
        draft: bool = False,
    ) -> tuple[SessionState, bool]:
        work = partial(
            changes.create_session,
            name=session,
            config=config,
            first_offset=first_offset,
            events=events,
            closed=closed,
            deadline=deadline,
            draft=draft,
        )
        answer: tuple[SessionState, bool] = await self._submit([session], work)
        return answer

    async def configure(
        self,
        session: str,
        *,
        epoch: str,
        config: bytes | UnsetType = UNSET,
        deadline: float | UnsetType | None = UNSET,
        finish: bool = False,
    ) -> None:
        work = partial(changes.configure, name=session, epoch=epoch, config=config, deadline=deadline, finish=finish)
        await self._submit([session], work)

    async def due(self, now: float, *, limit: int = 100) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self._readers.fetch(queries.DUE, now, limit)]

    async def delete_session(self, session: str, *, epoch: str | None = None, draft: bool = False) -> bool:
        work = partial(changes.delete_session, name=session, epoch=epoch, draft=draft)
        try:
            deleted: bool = await self._submit([session], work)
        finally:  # even if the caller was cancelled, the session is deleted
            self._eraser.wake()
        return deleted

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        work = partial(changes.trim, stretches=self._stretches, name=session, before=before, epoch=epoch, limit=limit)
        kept: int = await self._submit([session], work)
        return kept

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        return await queries.halve(self._readers, queries.OFFSET_WITHIN, session, size, epoch)

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        return await queries.halve(self._readers, queries.OFFSET_AT, session, moment, epoch)

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        rows = await self._readers.fetch(queries.GET_RECORDS, list(set(keys)))
        return {row[0]: Record(*row) for row in rows}

    async def records(self, prefix: str) -> list[Record]:
        return await queries.records(self._readers, prefix)

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        check_record(key, value)
        operation = Operation(
            lambda _, records: records.change(key, value, revision), keys=[key], size=len(value or b"")
        )
        now: int = await self._recorder.submit(operation)
        return now


async def _joined(count: int, parts: Mapping[tuple[int, ...], asyncio.Future[list[Outcome]]]) -> list[Outcome]:
    """Return the outcomes of all parts in the order of the batches; a part fails for each batch."""
    outcomes: dict[int, Outcome] = {}
    for places, part in parts.items():
        try:
            outcomes |= zip(places, await part, strict=True)
        except WakelineError as error:
            outcomes |= dict.fromkeys(places, error)
    return [outcomes[place] for place in range(count)]
