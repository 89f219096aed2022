"""Forgets the outcomes of inputs and requests for input some time after their end.

An outcome is a record (`inputs/…`, `requests/…`), and its events have a publisher whose position the log keeps. Both make an
id count once. Without an end, a session would keep them for each id that it has ever seen. When an outcome is
complete, an entry under the day of its closing is written: `remembered/<day>/<key of the record>`. So what is due is found by
day, without a read of all outcomes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

import msgspec
import structlog

from wakeline.background import cancel_all
from wakeline.errors import EpochChangedError, RecordConflictError, SessionNotFoundError
from wakeline.gateway.log import Engine, Record, Records
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions.slices import each_record, of_session, parts_of

PUBLISHERS: Final = {"inputs": "input", "requests": "request"}
"""By the first part of an outcome's key: the first part of the name of the publisher of its events."""

_PREFIX: Final = "remembered/"
_SWEEP_SECONDS: Final = 3600.0
_log = structlog.get_logger(__name__)


class _Kept(msgspec.Struct):
    """The members that the records of inputs and of requests have in common."""

    epoch: str = ""
    closed_at: str = ""


_kept = msgspec.json.Decoder(_Kept)


async def remember(records: Records, key: str, closed_at: str) -> None:
    """Write the entry by which an outcome is forgotten later; a repetition changes nothing.

    Args:
        records: Stores it.
        key: The key of the outcome's record.
        closed_at: The time that the record has, in ISO 8601; empty for an outcome that is not forgotten.
    """
    if closed_at:
        with suppress(RecordConflictError):
            await records.put_record(_entry(key, closed_at), b"", revision=0)


class LifeRecords:
    """The records of the inputs or the requests of sessions, each of which belongs to a life.

    Args:
        records: Stores them.
    """

    prefixes: ClassVar[tuple[str, ...]]
    """How their keys begin."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def lives(self, session: str) -> set[str]:
        """Return the epochs of the lives of a session that have records."""
        beginnings = [prefix + of_session(session) for prefix in self.prefixes]
        return {_kept_in(record).epoch for begin in beginnings async for record in each_record(self._records, begin)}

    async def forget(self, session: str, epoch: str) -> None:
        """Remove the records of one life of a session, with the entries of its outcomes."""
        for prefix in self.prefixes:
            async for record in each_record(self._records, prefix + of_session(session)):
                kept = _kept_in(record)
                if kept.epoch == epoch:
                    if kept.closed_at:
                        await remove(self._records, _entry(record.key, kept.closed_at))
                    await remove(self._records, record.key)


async def remove(records: Records, key: str) -> None:
    """Remove a record, whoever changes it in between."""
    while (record := await records.get_record(key)) is not None:
        await records.remove(record)


def _kept_in(record: Record) -> _Kept:
    """Return what a record has; nothing if it cannot be decoded, which belongs to no life."""
    try:
        return _kept.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Kept()


def _entry(key: str, closed_at: str) -> str:
    return f"{_PREFIX}{closed_at[:10]}/{key}"


class Remembered:
    """The background task that forgets outcomes, each at the gateway that owns its session.

    Args:
        engine: The log.
        seconds: How long an outcome is remembered at least; at most a day and an hour longer.
        owns: Returns whether a session belongs to this gateway.
        clock: Returns the Unix time.
    """

    def __init__(
        self, engine: Engine, seconds: float, owns: Callable[[str], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._seconds = seconds
        self._owns = owns
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Forget what is due now, and every hour."""
        self._task = supervised("outcomes", self._run)

    async def stop(self) -> None:
        """Stop; another gateway, or the next start, continues."""
        await cancel_all(self._task)

    async def _run(self) -> None:
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Forget the outcomes of all days that are due, however long ago."""
        # A day is due when its last moment is.
        last = datetime.fromtimestamp(self._clock() - self._seconds, UTC).date() - timedelta(days=1)
        forgotten = 0
        async for entry in each_record(self._engine, _PREFIX):  # the earliest day first
            _, day, key = entry.key.split("/", 2)
            if day > last.isoformat():
                break
            if self._owns(parts_of(key.partition("/")[2])[0]):
                forgotten += await self._forget(key, day)
        if forgotten:
            _log.info("outcomes of inputs and requests are forgotten", number=forgotten)

    async def _forget(self, key: str, day: str) -> bool:
        """Forget an outcome of a day; return False if it is not there, or another gateway is at it."""
        kind, _, rest = key.partition("/")
        session, name = parts_of(rest)
        found = await self._engine.get_records([key, f"{kind}.open/{rest}"])
        record = found.get(key)
        if len(found) == 2:  # another gateway is about to remove the open record
            return False
        if record is not None and (outcome := _kept_in(record)).closed_at[:10] == day:
            # First: as long as the record is there, no other input or request has its id.
            with suppress(SessionNotFoundError, EpochChangedError):
                await self._engine.forget_publisher(session, f"{PUBLISHERS[kind]}:{name}", epoch=outcome.epoch)
            await remove(self._engine, key)
        await remove(self._engine, f"{_PREFIX}{day}/{key}")
        return record is not None
