"""The one thread that writes: everything that arrived during the last commit goes into the next (group commit, no timer)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

import structlog

from wakeline.errors import StorageFailedError, StorageFullError, WakelineError
from wakeline.events import Event
from wakeline.gateway.engines.sqlite.appends import Appends, Life, News
from wakeline.gateway.log import Change

_MAX_GROUP: Final = 5_000

Operation: TypeAlias = Callable[[sqlite3.Connection, Appends], Any]
Tell: TypeAlias = Callable[[str, str, Sequence[Event], Sequence[Change]], None]
_Pending: TypeAlias = tuple[Operation, "asyncio.Future[Any]", bool]
_log = structlog.get_logger(__name__)


class Writer:
    """Runs operations on the file in the order they were submitted, many to a transaction.

    An operation raises a `WakelineError` only before it has changed anything; any other error takes the whole
    transaction back and fails everything in it.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], tell: Tell) -> None:
        self._connect = connect
        self._tell = tell
        self._queue: SimpleQueue[_Pending | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wakeline-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    def start(self) -> None:
        """Open the file (errors are raised here) and start the thread."""
        self._loop = asyncio.get_running_loop()
        self._connection = self._connect()
        self._appends = Appends(self._connection)
        self._thread.start()

    async def stop(self) -> None:
        """Commit what was submitted, then close the file."""
        self._stopping = True
        self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def submit(self, operation: Operation, *, alone: bool = False) -> Any:
        """Run `operation` in the next transaction, or `alone` after it; return its result when that is durable.

        An operation that runs alone is in no transaction, and has undone what it did when it raises a `WakelineError`.
        """
        if self._loop is None or self._stopping:
            raise StorageFailedError("expected an open store, it is closing")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((operation, future, alone))
        return await future

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Pending] = []
            item = self._queue.get()
            with suppress(Empty):
                while item is not None and len(group) < _MAX_GROUP:
                    group.append(item)
                    item = self._queue.get_nowait()
                if item is not None:
                    group.append(item)
            stopping = item is None
            if grouped := [pending for pending in group if not pending[2]]:
                self._commit(grouped)
            for operation, future, alone in group:
                if alone:
                    self._run_alone(operation, future)
        self._connection.close()

    def _commit(self, group: list[_Pending]) -> None:
        outcomes: list[tuple[asyncio.Future[Any], Any]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for operation, future, _ in group:
                try:
                    outcomes.append((future, operation(self._connection, self._appends)))
                except WakelineError as refusal:
                    outcomes.append((future, refusal))
            self._appends.flush()
            self._connection.execute("COMMIT")
            news = self._appends.take_news()
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiter must hear of it and the thread must live
            failure = self._recover(error)
            outcomes, news = [(future, failure) for _, future, _ in group], {}
        self._answer(outcomes, news)

    def _run_alone(self, operation: Operation, future: asyncio.Future[Any]) -> None:
        outcome: Any
        try:
            outcome = operation(self._connection, self._appends)
        except WakelineError as refusal:
            outcome = refusal
        except Exception as error:  # noqa: BLE001 - as in `_commit`
            outcome = self._recover(error)
        self._answer([(future, outcome)], {})

    def _answer(self, outcomes: list[tuple[asyncio.Future[Any], Any]], news: dict[Life, News]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is gone: nobody is left to tell
            self._loop.call_soon_threadsafe(self._deliver, outcomes, news)

    def _recover(self, error: Exception) -> WakelineError:
        """Undo the transaction and say what happened; a file that failed otherwise than by being full is opened anew."""
        self._appends.forget()
        _log.error("append failed", error=str(error))
        full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        if full and self._rolled_back():
            return StorageFullError(f"the disk is full: {error}")
        # After a failed fsync the kernel may have dropped the pages: only what the file says now is true.
        try:
            self._connection.close()
            self._connection = self._connect()
            self._appends = Appends(self._connection)
        except Exception as again:  # noqa: BLE001 - the next commit fails too, comes here, and tries again
            _log.error("the store cannot be opened again", error=str(again))
        return StorageFailedError(f"the store failed: {error}")

    def _rolled_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _deliver(self, outcomes: list[tuple[asyncio.Future[Any], Any]], news: dict[Life, News]) -> None:
        # Acknowledge first: a publisher must not wait for the fan-out of what it published.
        for future, outcome in outcomes:
            if future.done():
                continue  # whoever waited was cancelled; what was appended stays appended
            if isinstance(outcome, WakelineError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        for (session, epoch), told in news.items():
            self._tell(session, epoch, told.events, told.changes)
