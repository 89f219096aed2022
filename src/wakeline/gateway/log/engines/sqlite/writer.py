"""The one writing thread: operations that arrive during a commit form the next one.

Where many publish at once, a commit also waits for as many operations as the last ones had, until 2 ms after the last one
began (docs/decisions/0044-a-commit-waits-for-its-crowd.md). A lone publisher never waits.

Once a second, between two commits or while idle, the thread checks the store (`upkeep.py`). An unexpected error fails the
waiting callers, and the thread continues after a pause: without it the queue would fill and every caller would wait for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import structlog

from wakeline.errors import StorageFailedError, StorageFullError, StorageLostError, WakelineError
from wakeline.gateway.log.counts import Counts
from wakeline.gateway.log.engines.sqlite.appends import Appends
from wakeline.gateway.log.engines.sqlite.upkeep import Upkeep, is_full
from wakeline.gateway.log.feed import Commit
from wakeline.gateway.log.outcomes import answer
from wakeline.retry import Backoff

_MAX_GROUP: Final = 5_000
_CHECK_SECONDS: Final = 1.0
_GATHER_SECONDS: Final = 0.002
_LAST_GROUPS: Final = 8
_LONGEST_PAUSE: Final = 10.0
_STOPPED: Final = "the writer has stopped"

T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection, Appends], T]
Notify: TypeAlias = Callable[[Sequence[Commit]], None]
_Outcomes: TypeAlias = list[tuple[asyncio.Future[Any], Any]]
_log = structlog.get_logger(__name__)


class _Pending(NamedTuple):
    operation: Operation[Any]
    future: asyncio.Future[Any]
    grows: bool
    alone: bool = False


class Writer:
    """Runs operations on the file in the order of their submission, many in one transaction.

    An operation may raise a `WakelineError` only before it has changed anything. Any other error rolls the whole transaction
    back and fails all of its operations.

    Args:
        connect: Opens the file.
        upkeep: Checks the file and its disk.
        notify: Called in the event loop with what has become durable.
        lost: Called in the event loop when the files are lost.
        counts: Called with the publishers and merged rows of each commit.
        gather: Seconds after the beginning of a commit within which the next one waits for as many operations as the last
            ones had. Default: 2 ms.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        upkeep: Upkeep,
        notify: Notify,
        lost: Callable[[WakelineError], None],
        counts: Counts,
        *,
        gather: float = _GATHER_SECONDS,
    ) -> None:
        self._connect = connect
        self._upkeep = upkeep
        self._notify = notify
        self._notify_lost = lost
        self._counts = counts
        self._gather = gather
        self._queue: deque[_Pending | None] = deque()
        self._wanted = 1  # as many operations in the queue wake the thread
        self._bell = threading.Lock()  # unlocked: rung; an `Event` takes several times as long
        self._sizes: deque[int] = deque([1], maxlen=_LAST_GROUPS)  # of the last groups
        self._began = float("-inf")
        self._thread = threading.Thread(target=self._run, name="wakeline-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._checked = float("-inf")
        self._group: list[_Pending] = []
        self._posted: deque[tuple[_Outcomes, Sequence[Commit]]] = deque()  # for the event loop
        self._woken = False  # the event loop will run `_deliver`
        self._failed: str | None = None
        self._lost: StorageLostError | None = None

    def start(self) -> None:
        """Open the file and start the thread.

        Raises:
            StartupError: The file was written by a newer version.
            StorageFailedError: The file cannot be opened.
            StorageFullError: There is not enough space to open it.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._upkeep.open()
            try:
                self._open()
            except StorageFailedError as error:
                if not is_full(error.__cause__) or not self._upkeep.make_room():
                    raise
                self._open()
            self._upkeep.generation.open(self._connection)
        except (OSError, sqlite3.Error, StorageFailedError) as error:
            if is_full(cause := error.__cause__ or error):
                raise self._upkeep.no_room(cause) from cause
            if isinstance(error, StorageFailedError):
                raise
            raise StorageFailedError(f"expected a data directory that can be written, got: {error}") from error
        self._thread.start()

    async def stop(self) -> None:
        """Commit the submitted operations, then close the file."""
        self._stopping = True
        self._queue.append(None)
        self._ring()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def submit(self, operation: Operation[T], *, grows: bool = False, alone: bool = False) -> asyncio.Future[T]:
        """Run an operation in the next transaction; the future is done once it is durable.

        Args:
            operation: The operation.
            grows: The operation only adds data. On a full disk it may use only the space of deleted rows. Default: False.
            alone: Run it after the transaction, outside of one; if it raises a `WakelineError`, it has undone its changes.
                Default: False.
        """
        if self._loop is None or self._stopping:
            raise StorageFailedError("expected an open store, it is closing")
        if not self._thread.is_alive():
            raise StorageFailedError(_STOPPED)  # nothing in the queue would ever be answered
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Pending(operation, future, grows, alone))
        if len(self._queue) >= self._wanted:
            self._ring()
        return future

    def health(self) -> str:
        """Return `ok`, or the problem: `full: …`, `failed: …` or `lost: …`."""
        if self._lost is not None:
            return f"lost: {self._lost.message}"
        if self._failed is not None:
            return f"failed: {self._failed}"
        if self._upkeep.short:
            return (
                "full: the disk is full, or was within the last minute; appends are refused while they have no space: "
                "free some, or delete sessions"
            )
        return "ok" if self._thread.is_alive() else f"failed: {_STOPPED}"

    def _run(self) -> None:
        backoff, going_on = Backoff(0.2, _LONGEST_PAUSE), True
        while going_on:
            try:
                going_on = self._turn()
                backoff.reset()
            except Exception as error:  # noqa: BLE001 - without this thread every append would wait for ever
                pause = backoff.pause()
                self._note_failed(error)
                _log.exception("the writer failed and continues", seconds=pause)
                self._fail(self._group, StorageFailedError.of_outage(f"the store failed: {error}"))
                time.sleep(pause)
        self._close()

    def _turn(self) -> bool:
        """Commit the waiting operations, and check the store if it is time; False to stop."""
        self._group, going_on = self._next_group()
        now = time.monotonic()
        if now - self._checked >= _CHECK_SECONDS or (self._upkeep.full and self._group):
            self._checked = now
            self._check_store()
        if grouped := [pending for pending in self._group if not pending.alone]:
            self._commit(grouped)
        for pending in self._group:
            if pending.alone:
                self._run_alone(pending)
        self._group = []
        return going_on

    def _next_group(self) -> tuple[list[_Pending], bool]:
        """Return the operations of the next transaction, and False with the last ones."""
        left = self._began + self._gather - time.monotonic()
        if left > 0:
            self._wait(max(self._sizes), left)
        if not self._queue and not self._wait(1, _CHECK_SECONDS):
            return [], True
        self._began = time.monotonic()
        group: list[_Pending] = []
        while self._queue and len(group) < _MAX_GROUP:
            item = self._queue.popleft()
            if item is None:
                return group, False
            group.append(item)
        self._sizes.append(len(group))
        return group, True

    def _wait(self, count: int, seconds: float) -> bool:
        """Wait until the queue has as many operations, or the writer stops; False if not in time."""
        self._wanted = count
        self._bell.acquire(blocking=False)  # before the queue's length is read: what is added from here on rings it
        return self._stopping or len(self._queue) >= count or self._bell.acquire(timeout=seconds)

    def _ring(self) -> None:
        """Wake the thread; called in the event loop."""
        if self._bell.locked():
            self._bell.release()

    def _check_store(self) -> None:
        if self._failed is not None:
            # An empty transaction: it detects that the failure is over without waiting for the next append.
            self._transact([])
        if self._failed is None:
            self._upkeep.look(self._connection)
        self._check_lost()

    def _commit(self, group: list[_Pending]) -> None:
        if self._lost is not None:
            self._fail(group, self._lost)
        elif self._upkeep.full or isinstance(failure := self._transact(group), StorageFullError):
            self._commit_singly(group)  # a deletion, which frees space, must not fail together with an append
        elif failure is not None:
            self._fail(group, failure)

    def _commit_singly(self, group: list[_Pending]) -> None:
        """On a full disk, run each operation in a transaction of its own."""
        for pending in group:
            self._upkeep.limit(self._connection, grows=pending.grows)
            failure = self._lost or self._transact([pending])
            self._upkeep.settle(self._connection)
            if failure is not None:
                self._fail([pending], failure)

    def _transact(self, group: Sequence[_Pending]) -> WakelineError | None:
        """Run operations in one transaction and answer their callers, or return the failure."""
        outcomes: _Outcomes = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for pending in group:
                try:
                    outcomes.append((pending.future, pending.operation(self._connection, self._appends)))
                except WakelineError as refusal:
                    outcomes.append((pending.future, refusal))
            self._appends.flush()
            self._upkeep.generation.tick(self._connection)
            self._connection.execute("COMMIT")
            self._upkeep.generation.committed()
            self._upkeep.committed()
            commits = self._appends.take_commits()
        except Exception as error:  # noqa: BLE001 - every waiting caller must receive the error, and the thread must live
            return self._recover(error)
        self._failed = None
        self._post(outcomes, commits)
        return None

    def _run_alone(self, pending: _Pending) -> None:
        outcome: Any
        if self._lost is not None:
            outcome = self._lost
        else:
            try:
                outcome = pending.operation(self._connection, self._appends)
            except WakelineError as refusal:
                outcome = refusal
            except Exception as error:  # noqa: BLE001 - as in `_transact`
                outcome = self._recover(error)
            self._upkeep.rebuilt()
        self._post([(pending.future, outcome)])

    def _recover(self, error: Exception) -> WakelineError:
        """Roll back, and reopen the file unless the disk is full; return the error for callers."""
        self._appends.forget()
        if is_full(error) and self._rolled_back():
            self._upkeep.filled(self._connection)
            self._upkeep.generation.forget(self._connection)
            return StorageFullError(f"the disk is full: {error}")
        self._upkeep.check_files()
        if (lost := self._check_lost()) is not None:
            return lost
        self._note_failed(error)
        # After a failed fsync the kernel may have dropped the pages: only the file's present content counts.
        try:
            self._connection.close()
            self._open()
            self._upkeep.generation.forget(self._connection)
        except Exception as again:  # noqa: BLE001 - the next commit fails too, and retries this
            _log.error("the store cannot be opened again", error=str(again))
        return StorageFailedError.of_outage(f"the store failed: {error}")

    def _open(self) -> None:
        self._connection = self._connect()
        self._appends = Appends(self._connection, self._counts)
        self._upkeep.connected(self._connection)

    def _rolled_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _note_failed(self, error: Exception) -> None:
        if self._failed is None:
            _log.error("the store failed", error=str(error))
        self._failed = str(error)

    def _check_lost(self) -> StorageLostError | None:
        if self._upkeep.lost is not None and self._lost is None:
            self._lost = StorageLostError(f"expected the data directory as it was opened, {self._upkeep.lost}")
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(self._notify_lost, self._lost)
        return self._lost

    def _close(self) -> None:
        """Count the commits since the last tick, and close the file."""
        with suppress(sqlite3.Error):
            if self._lost is None:
                self._connection.execute("BEGIN IMMEDIATE")
                self._upkeep.generation.tick(self._connection, last=True)
                self._connection.execute("COMMIT")
                self._upkeep.generation.committed()
        self._connection.close()

    def _fail(self, group: Sequence[_Pending], failure: WakelineError) -> None:
        self._post([(pending.future, failure) for pending in group])

    def _post(self, outcomes: _Outcomes, commits: Sequence[Commit] = ()) -> None:
        """Hand outcomes to the event loop, and wake it unless it has not handled the last ones yet."""
        assert self._loop is not None
        self._posted.append((outcomes, commits))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is gone, and its callers with it
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first: what is posted from here on wakes the loop again
        commits: list[Commit] = []
        while self._posted:
            outcomes, durable = self._posted.popleft()
            commits += durable
            # Acknowledge first: a publisher must not wait for the fan-out of what it published.
            for future, outcome in outcomes:
                answer(future, outcome)
        if commits:
            self._notify(commits)
