"""The log's ports on a PostgreSQL database that gateways share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar
from zlib import crc32

import structlog
from msgspec import UNSET, UnsetType

from wakeline.gateway.log.engines.postgres import appends as appending
from wakeline.gateway.log.engines.postgres import changes, portable, queries
from wakeline.gateway.log.engines.postgres.connections import check_connections
from wakeline.gateway.log.engines.postgres.eraser import Eraser
from wakeline.gateway.log.engines.postgres.published import published
from wakeline.gateway.log.engines.postgres.readers import Readers
from wakeline.gateway.log.engines.postgres.renewal import renew
from wakeline.gateway.log.engines.postgres.schema import MIGRATIONS, check_rights, migrate, version_of
from wakeline.gateway.log.engines.postgres.statements import FORGET_WRITERS
from wakeline.gateway.log.engines.postgres.stretches import Stretches
from wakeline.gateway.log.engines.postgres.target import FAILURES, Target
from wakeline.gateway.log.engines.postgres.transaction import Life, News, Transaction
from wakeline.gateway.log.engines.postgres.wakeups import Wakeups
from wakeline.gateway.log.engines.postgres.watches import Watches
from wakeline.gateway.log.engines.postgres.writer import Operation, Writer
from wakeline.gateway.log.feed import Listener
from wakeline.gateway.log.names import name_ranges
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
    check_record,
)

WRITERS: Final = 2
"""Connections that append: on the disk, their commits overlap."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class PostgresEngine(Engine, Portable):
    """Stores sessions in a PostgreSQL database, which any number of gateways share.

    Its tables are in the schema `wakeline`.

    Args:
        address: `postgres://USER@HOST:PORT/DATABASE`; see `Target`.
    """

    shared = True

    def __init__(self, address: str) -> None:
        super().__init__()
        self._target = Target(address)
        self.name = self._target.name
        self._readers = Readers(self._target)
        self._watches = Watches(self._readers, self.feed)
        self._wakeups = Wakeups(self._target, self._readers, self._watches, self.feed)
        self._writers = [Writer(self._target, self._committed, self.counts) for _ in range(WRITERS)]
        # Leases and other records do not wait for a large transaction of appends.
        self._recorder = Writer(self._target, self._committed, self.counts)
        self._eraser = Eraser(self._target)
        self._stretches = Stretches()
        self._tasks: set[asyncio.Task[list[Outcome]]] = set()

    async def open(self) -> None:
        connection = await self._target.open()
        try:
            await migrate(connection, self._target)
            await check_rights(connection, self._target)
            await connection.execute(FORGET_WRITERS)
            await check_connections(self._target, connection)
            if await connection.fetchval("SHOW fsync") == "off":
                _log.warning("fsync is off in PostgreSQL: a power cut may lose acknowledged events, or all of them")
        except FAILURES as error:
            refusal = await self._target.refusal(error, connection)
            connection.terminate()
            raise refusal from None
        except BaseException:
            connection.terminate()
            raise
        await self._wakeups.start(connection)
        self._watches.start()
        for writer in (*self._writers, self._recorder):
            writer.start()
        self._eraser.start()

    async def migrate(self, *, check: bool) -> tuple[int, int]:
        """Bring the tables to this program's schema, without opening the store.

        Args:
            check: Change nothing.

        Returns:
            The version that the tables had, 0 without tables, and this program's.
        """
        connection = await self._target.open()
        try:
            found = await version_of(connection)
            if not check:
                await migrate(connection, self._target)
        except FAILURES as error:
            raise await self._target.refusal(error, connection) from None
        finally:
            connection.terminate()
        return found, len(MIGRATIONS)

    async def renew(self, carry: Carry) -> int:
        """Give every session a new epoch; return how many there are. The store is not opened."""
        connection = await self._target.open()
        try:
            await migrate(connection, self._target)
            await check_rights(connection, self._target)
            return await renew(connection, carry)
        except FAILURES as error:
            raise await self._target.refusal(error, connection) from None
        finally:
            connection.terminate()

    async def close(self) -> None:
        await self._eraser.stop()
        await asyncio.gather(*(writer.stop() for writer in (*self._writers, self._recorder)))
        await self._watches.stop()
        await self._wakeups.stop()
        await self._readers.close()

    def health(self) -> str:
        if self._target.is_full:
            return "full: PostgreSQL has no space on a disk; appends are refused until it has"
        return "ok" if self._wakeups.works else "ok, but notifications do not arrive: watched sessions are polled"

    def erasure_pending(self) -> float:
        return self._eraser.pending

    def subscribe(self, session: str, listener: Listener) -> Callable[[], None]:
        return self._watches.subscribe(session, listener)

    def _committed(self, news: Mapping[Life, News]) -> None:
        self._wakeups.tell(news)
        self._watches.committed(news)

    async def append(self, append: Append) -> Appended:
        return await self._submit([append.session], lambda transaction: appending.append(transaction, append), [append])

    def append_each(self, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        return in_parts(appends, self._writer, self._append_some, self._tasks)

    def _append_some(self, _: Writer, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
        names = [append.session for append in appends]
        return self._submit(names, partial(appending.append_each, appends=appends), appends)

    async def open_attempt(self, session: str, publication: Publication, *, epoch: str | None = None) -> Opened:
        return await self._submit(
            [session],
            lambda transaction: appending.open_attempt(transaction, session, publication, epoch),
            [Append(session, (), publication)],
        )

    def _writer(self, session: str) -> Writer:
        return self._writers[crc32(session.encode()) % WRITERS]

    def _submit(
        self, names: Sequence[str], work: Callable[[Transaction], Awaitable[T]], appends: Sequence[Append] = ()
    ) -> asyncio.Future[T]:
        """Run work on sessions, all of which have one writer, in its next transaction."""
        publishers = [(one.session, one.publication.publisher) for one in appends if one.publication is not None]
        size = sum(len(event.body) for one in appends for event in one.events)
        operation = Operation(work, names, publishers, size=size)
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

    async def newest(
        self, *, before: tuple[str, str] | None, limit: int, within: Sequence[str], contains: str
    ) -> list[SessionState]:
        return await queries.newest(self._readers, before, limit, name_ranges(within), contains)

    async def create_session(self, new: NewSession) -> tuple[SessionState, bool]:
        work = partial(changes.create_session, new=new)
        return await self._submit([new.session], work)

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
            return await self._submit([session], work)
        finally:  # even if the caller was cancelled, the session is deleted
            self._eraser.wake()

    async def forget_publisher(self, session: str, publisher: str, *, epoch: str) -> None:
        work = partial(changes.forget_publisher, name=session, publisher=publisher, epoch=epoch)
        await self._submit([session], work)

    async def trim(self, session: str, before: int, *, epoch: str, limit: int = 200) -> int:
        work = partial(changes.trim, stretches=self._stretches, name=session, before=before, epoch=epoch, limit=limit)
        return await self._submit([session], work)

    async def offset_within(self, session: str, size: int, *, epoch: str) -> int:
        return await queries.halve(self._readers, queries.OFFSET_WITHIN, session, size, epoch)

    async def offset_at(self, session: str, moment: int, *, epoch: str) -> int:
        return await queries.halve(self._readers, queries.OFFSET_AT, session, moment, epoch)

    async def published(self, session: str, offset: int, *, epoch: str) -> Published | None:
        return await published(self._readers, session, offset, epoch)

    async def get_records(self, keys: Sequence[str]) -> dict[str, Record]:
        rows = await self._readers.fetch(queries.GET_RECORDS, list(set(keys)))
        return {row[0]: Record(*row) for row in rows}

    async def records_after(self, key: str, *, prefix: str = "", limit: int | None = 100) -> list[Record]:
        return await queries.records_after(self._readers, key, prefix, limit)

    async def count_records(self, prefix: str) -> tuple[int, int]:
        return await queries.count_records(self._readers, prefix)

    async def publishers(self, session: str, *, epoch: str, after: str = "", limit: int = 100) -> list[StoredPublisher]:
        return await portable.publishers(self._readers, session, epoch, after, limit)

    async def order(self, session: str, *, epoch: str) -> str:
        return await portable.order(self._readers, session, epoch)

    async def add_publishers(self, session: str, publishers: Sequence[StoredPublisher], *, epoch: str) -> None:
        work = partial(portable.add_publishers, session=session, added=publishers, epoch=epoch)
        await self._submit([session], work)

    async def adopt(self, session: str, state: SessionState, order: str, *, epoch: str) -> None:
        work = partial(portable.adopt, session=session, state=state, its_order=order, epoch=epoch)
        await self._submit([session], work)

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        check_record(key, value)
        operation = Operation(
            lambda transaction: transaction.records.change(key, value, revision), keys=[key], size=len(value or b"")
        )
        return int(await self._recorder.submit(operation))
