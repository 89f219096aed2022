"""One connection that writes: operations that arrive during a commit form the next one.

This is group commit without a timer. An engine has a few writers; the name of a session determines its writer, so that a
gateway's appends to one session stay in order. A transaction that certainly did not commit is repeated: after a deadlock, a
lock time-out, a collision, or a lost connection. Each transaction leaves its token in a row of its writer. If the connection is
lost during COMMIT, the writer reads the token back: an append is reported as failed only if it is not there, or if the server
cannot be asked in time. PostgreSQL's own numbers of transactions do not serve for this: after a crash or a failover the server
may give the number of a transaction that has not committed to another one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog

from wakeline.errors import StorageFailedError, StorageFullError, WakelineError
from wakeline.gateway.log.counts import Counts
from wakeline.gateway.log.engines.postgres import statements as sql
from wakeline.gateway.log.engines.postgres.target import FAILURES, Connection, Link, Target, passes
from wakeline.gateway.log.engines.postgres.transaction import Life, Memory, News, RepeatError, Transaction
from wakeline.gateway.log.outcomes import answer
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff

_MOST_OPERATIONS: Final = 5_000
_MOST_BYTES: Final = 16 * 1024 * 1024
_LOST_SECONDS: Final = 2.0
"""Seconds for which a transaction is repeated on new connections; later ones fail at once until there is a connection."""
_PASSING_SECONDS: Final = 7.0
_UNKNOWN_SECONDS: Final = 20.0
_COMMIT_SECONDS: Final = 86_400.0
_log = structlog.get_logger(__name__)

Work: TypeAlias = Callable[[Transaction], Awaitable[Any]]


@dataclass(slots=True)
class Operation:
    """A change, and what it needs.

    Attributes:
        work: Makes the change; called again if the transaction is repeated. It may raise a `WakelineError` only before it has
            changed anything.
        names: The sessions that it reads or changes.
        publishers: Their publishers, each with its session.
        keys: The records that it changes.
        size: The bytes that it adds.
        future: Its result, once it is durable.
    """

    work: Work
    names: Sequence[str] = ()
    publishers: Sequence[tuple[str, str]] = ()
    keys: Sequence[str] = ()
    size: int = 0
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Writer:
    """Runs operations in the order of their submission, many in one transaction.

    Args:
        target: The database.
        committed: Called with the news of each commit, after its callers were answered.
        counts: Called with the events, publishers and merged rows of each commit.
    """

    def __init__(self, target: Target, committed: Callable[[Mapping[Life, News]], None], counts: Counts) -> None:
        self._target = target
        self._committed = committed
        self._counts = counts
        self._link = Link(target)
        self._memory = Memory()
        self._queue: deque[Operation] = deque()
        self._any = asyncio.Event()
        self._stopping = False
        self._away = False  # the server could not be reached for a while
        self._passing = False  # the last failure was one that passes
        self._name = secrets.token_hex(8)
        self._token = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task."""
        self._task = supervised("writer", self._run)

    async def stop(self) -> None:
        """Commit the submitted operations, then close the connection."""
        self._stopping = True
        self._any.set()
        if self._task is not None:
            await self._task
        await self._link.close()

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """Run an operation in the next transaction; return its future."""
        if self._stopping or self._task is None:
            raise StorageFailedError("expected an open store, it is closing")
        self._queue.append(operation)
        self._any.set()
        return operation.future

    async def _run(self) -> None:
        while True:
            while not self._queue:
                if self._stopping:
                    return
                self._any.clear()
                await self._any.wait()
            await self._commit(self._next_group())

    def _next_group(self) -> list[Operation]:
        group = [self._queue.popleft()]
        size = group[0].size
        while self._queue and len(group) < _MOST_OPERATIONS and size + self._queue[0].size <= _MOST_BYTES:
            group.append(self._queue.popleft())
            size += group[-1].size
        return group

    async def _commit(self, group: list[Operation]) -> None:
        failure = await self._transact(group)
        if failure is None:
            return
        parts: dict[object, list[Operation]] = {}
        for place, operation in enumerate(group):
            # Those on a session that is locked for long fail together; each waiting in turn would keep the others for long.
            alone = 0 if self._passing else place
            parts.setdefault((alone, *operation.names, *operation.keys), []).append(operation)
        if len(parts) > 1 and self._link.is_open and not isinstance(failure, StorageFullError):
            for part in parts.values():  # the server refuses one of them: the others must not fail with it
                await self._commit(part)
        else:
            _fail(group, failure)

    async def _transact(self, group: Sequence[Operation]) -> WakelineError | None:
        """Run operations in one transaction and answer their callers, or return the failure."""
        began, backoff = time.monotonic(), Backoff(0.01, 0.5)
        while True:
            try:
                outcomes, transaction = await self._attempt(group)
            except WakelineError as error:  # the outcome is unknown: repeated, an append could be there twice
                self._memory.forget()
                _fail(group, error)
                return None
            except (RepeatError, *FAILURES) as error:
                self._memory.forget()
                self._passing = isinstance(error, RepeatError) or passes(error)
                if isinstance(error, TimeoutError):
                    self._link.drop()
                lost = not self._link.is_open
                patience = _PASSING_SECONDS if self._passing else _LOST_SECONDS if lost and not self._away else 0.0
                if time.monotonic() - began >= patience:
                    self._away = not self._link.is_open
                    return self._target.failure(error)
                await backoff.wait()
            except Exception:  # noqa: BLE001 - every waiting caller must receive the error
                _log.exception("a transaction failed")
                self._memory.forget()
                self._passing = False
                return StorageFailedError.of_outage("the transaction failed")
            else:
                break
        self._away = False
        self._target.outage.works()
        # Acknowledge first: a publisher must not wait for the fan-out of what it published.
        for operation, outcome in outcomes:
            answer(operation.future, outcome)
        if transaction.added:
            self._counts.publishers(transaction.added)
        if transaction.merged:
            self._counts.merged(transaction.merged)
        if transaction.news:
            self._counts.events(sum(len(new.events) for new in transaction.news.values()))
            self._committed(transaction.news)
        return None

    async def _attempt(self, group: Sequence[Operation]) -> tuple[list[tuple[Operation, Any]], Transaction]:
        """Run operations in one transaction; return the outcome of each once it has committed."""
        if not self._link.is_open:
            self._memory.forget()
        connection = await self._link.get()
        self._token += 1
        transaction = Transaction(connection, self._memory)
        outcomes: list[tuple[Operation, Any]] = []
        try:
            await connection.execute(sql.BEGIN)
            await transaction.lock(
                [name for operation in group for name in operation.names],
                [pair for operation in group for pair in operation.publishers],
                [key for operation in group for key in operation.keys],
                writer=self._name,
                token=self._token,
            )
            for operation in group:
                try:
                    outcomes.append((operation, await operation.work(transaction)))
                except WakelineError as refusal:
                    outcomes.append((operation, refusal))
            await transaction.flush()
            await transaction.records.flush()
        except BaseException:
            await self._roll_back(connection)
            raise
        await self._end(connection)
        transaction.committed()
        return outcomes, transaction

    async def _end(self, connection: Connection) -> None:
        """Commit; if the answer is lost, find out whether the transaction has committed.

        Raises:
            RepeatError: It has not committed.
            StorageFailedError: It is unknown whether it has.
        """
        try:
            # No time limit: asyncpg would cancel the commit, and a server that waits for its standbys would report success.
            answer = await connection.execute("COMMIT", timeout=_COMMIT_SECONDS)
        except FAILURES as error:
            if not connection.is_closed() and not isinstance(error, TimeoutError):
                raise
            self._link.drop()
            _log.info("the answer to a commit was lost; its outcome is read back", error=repr(error))
            if not await self._has_committed():
                raise RepeatError("the connection was lost before the commit") from error
        else:
            if answer != "COMMIT":
                raise StorageFailedError(f"expected a commit, the server answered {answer}")

    async def _has_committed(self) -> bool:
        """Return whether the last transaction has committed.

        Raises:
            StorageFailedError: The server cannot be asked in time.
        """
        began, backoff = time.monotonic(), Backoff(0.02, 1.0)
        while True:
            try:
                connection = await self._link.get()
                return bool(await connection.fetchval(sql.LAST_TOKEN, self._name) == self._token)
            except FAILURES as error:
                self._link.drop()
                if time.monotonic() - began > _UNKNOWN_SECONDS:
                    _log.warning("the outcome of a commit is unknown", error=repr(error))
                    raise StorageFailedError.of_outage(
                        "the connection was lost during a commit, and its outcome is unknown"
                    ) from error
            await backoff.wait()

    async def _roll_back(self, connection: Connection) -> None:
        if connection.is_closed():
            return
        try:
            await connection.execute("ROLLBACK")
        except FAILURES:
            self._link.drop()


def _fail(group: Sequence[Operation], failure: WakelineError) -> None:
    for operation in group:
        answer(operation.future, failure)
