"""Run records: the stored form of sessions' runs.

A session's runs are spread over `PARTS` records by the hash of their names, so that a change of one run rewrites a small part
of a session with a thousand runs. Each entry has a number, which orders the runs of all parts. Earlier versions kept all runs
in the one record `runs/<session>`; it is still read, and divided by the first change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import MAX_RECORD_BYTES, Record, Records
from wakeline.gateway.sessions.run import Run

PARTS: Final = 8
MOST_ENDED: Final = 1_000
"""How many of the ended runs a session remembers; the log has the others."""

PREFIX: Final = "runs"
"""The prefix of both forms' keys: `runs.<part>/<session>` and, of earlier versions, `runs/<session>`."""

_UNDIVIDED: Final = f"{PREFIX}/"


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    number: int
    run: Run


class _Part(msgspec.Struct):
    runs: list[_Entry]


class _Undivided(msgspec.Struct):
    runs: dict[str, Run]


_Entries: TypeAlias = dict[str, _Entry]
_part = msgspec.json.Decoder(_Part)
_undivided = msgspec.json.Decoder(_Undivided)


class RunRecords:
    """Reads and writes the records of runs under compare-and-set.

    Args:
        records: Stores them.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def of(self, session: str) -> list[Run]:
        """Return a session's runs, oldest first; of the ended ones, the last 1,000."""
        return _ordered(_merged(session, await self._records.get_records(_keys(session))))

    async def of_each(self, sessions: Sequence[str], most_bytes: int) -> list[list[Run]]:
        """Return the runs of several sessions in order, up to the one that exceeds `most_bytes`."""
        records = await self._records.get_records([key for session in sessions for key in _keys(session)])
        found: list[list[Run]] = []
        size = 0
        for session in sessions:
            if size > most_bytes:
                break
            size += sum(len(records[key].value) for key in _keys(session) if key in records)
            found.append(_ordered(_merged(session, records)))
        return found

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Return the runs of all sessions that are open or have an unread stream."""
        found: list[tuple[str, Run]] = []
        divided: set[str] = set()
        for record in await self._records.records(PREFIX):  # parts come first, by their keys
            session = record.key.split("/", 1)[1]
            entries = _entries(record)
            if not record.key.startswith(_UNDIVIDED):
                divided.add(session)
            elif session in divided:  # the division was cut short: its parts are newer
                for name in _merged(session, await self._records.get_records(_keys(session)[1:])):
                    entries.pop(name, None)
            found += [(session, entry.run) for entry in entries.values() if _needed(entry.run)]
        return found

    async def get(self, session: str, name: str) -> Run | None:
        """Return a run; None if no record has it."""
        keys = [_UNDIVIDED + session, _key(session, name)]
        entry = _merged(session, await self._records.get_records(keys)).get(name)
        return entry.run if entry else None

    async def put(self, session: str, run: Run) -> None:
        """Add a run, or replace it; `result` stays set, because another gateway may have set it.

        Raises:
            RecordTooLargeError: The session has too many open runs for another one.
        """
        key = _key(session, run.run)
        while True:
            part = await self._part(session, key)
            entries = _entries(part)
            if run.run in entries:
                number, known = entries[run.run].number, entries[run.run].run
                entries[run.run] = _Entry(number, msgspec.structs.replace(run, result=run.result or known.result))
            else:
                found = await self._records.get_records(_keys(session))
                part = found.get(key)
                entries, others = _entries(part), _merged(session, found)
                for name in _forgotten(others):
                    entries.pop(name, None)
                entries[run.run] = _Entry(1 + max((entry.number for entry in others.values()), default=-1), run)
            with suppress(
                RecordConflictError
            ):  # another run of this part was written: apply the change to the new record
                await self._write(key, entries, part)
                return

    async def want_result(self, session: str, name: str) -> None:
        """Note that the result of a run is to be reported, and change nothing else of it."""
        key = _key(session, name)
        while True:
            part = await self._part(session, key)
            entries = _entries(part)
            if name not in entries:
                return
            number, known = entries[name].number, entries[name].run
            entries[name] = _Entry(number, msgspec.structs.replace(known, result=True))
            with suppress(RecordConflictError):
                await self._write(key, entries, part)
                return

    async def create(self, session: str, runs: Iterable[Run]) -> None:
        """Write the runs of a session that has none.

        Raises:
            RecordConflictError: It has some; nothing remains written.
        """
        written: dict[str, int] = {}
        try:
            for key, entries in _by_part(session, {run.run: _Entry(n, run) for n, run in enumerate(runs)}).items():
                written[key] = await self._write(key, entries, None)
            if written and await self.revisions(session) != written:
                raise RecordConflictError(f"expected no runs of {session!r}, there are some")
        except RecordConflictError:
            await self.forget(session, written)
            raise

    async def revisions(self, session: str) -> dict[str, int]:
        """Return the revisions of a session's records by key; every change increases one."""
        found = await self._records.get_records(_keys(session))
        return {key: record.revision for key, record in found.items()}

    async def forget(self, session: str, revisions: Mapping[str, int] | None = None) -> None:
        """Remove the records that are at these revisions; at any revision if that is None."""
        while True:
            found = await self._records.get_records(_keys(session))
            going = [r for r in found.values() if revisions is None or revisions.get(r.key) == r.revision]
            if not going:
                return
            for record in going:
                with suppress(RecordConflictError):  # a follower has written it in between: check again
                    await self._records.delete_record(record.key, revision=record.revision)

    async def _part(self, session: str, key: str) -> Record | None:
        """Read one of a session's records, after the record of an earlier version was divided."""
        undivided = _UNDIVIDED + session
        while undivided in (found := await self._records.get_records([undivided, key])):
            await self._divide(session, found[undivided])
        return found.get(key)

    async def _divide(self, session: str, record: Record) -> None:
        """Move the runs of an earlier version's record into parts, or continue to do so."""
        for key, moved in _by_part(session, _entries(record)).items():
            while True:
                part = await self._records.get_record(key)
                with suppress(RecordConflictError):
                    await self._write(key, moved | _entries(part), part)  # what a part has already is newer
                    break
        with suppress(RecordConflictError):  # another gateway has divided it
            await self._records.delete_record(record.key, revision=record.revision)

    async def _write(self, key: str, entries: _Entries, known: Record | None) -> int:
        ordered = sorted(entries.values(), key=_by_age)
        value = msgspec.json.encode(_Part(ordered))
        while len(value) > MAX_RECORD_BYTES and (ended := [entry for entry in ordered if not _needed(entry.run)]):
            surplus = {entry.run.run for entry in ended[: len(ended) // 8 + 1]}
            ordered = [entry for entry in ordered if entry.run.run not in surplus]
            value = msgspec.json.encode(_Part(ordered))
        return (await self._records.put_record(key, value, revision=known.revision if known else 0)).revision


def undivided(session: str, revision: int) -> dict[str, int]:
    """Return as `RunRecords.revisions` does the revision that an earlier version has noted."""
    return {_UNDIVIDED + session: revision}


def _keys(session: str) -> list[str]:
    """The keys of all records of a session; the earlier version's is the first."""
    return [_UNDIVIDED + session, *(f"{PREFIX}.{number}/{session}" for number in range(PARTS))]


def _key(session: str, name: str) -> str:
    return f"{PREFIX}.{crc32(name.encode()) % PARTS}/{session}"


def _entries(record: Record | None) -> _Entries:
    if record is None:
        return {}
    if record.key.startswith(_UNDIVIDED):
        return {name: _Entry(n, run) for n, (name, run) in enumerate(_undivided.decode(record.value).runs.items())}
    return {entry.run.run: entry for entry in _part.decode(record.value).runs}


def _merged(session: str, records: Mapping[str, Record]) -> _Entries:
    """The entries of a session's records; those of parts are newer than the undivided one's."""
    found: _Entries = {}
    for key in _keys(session):
        found |= _entries(records.get(key))
    return found


def _by_part(session: str, entries: _Entries) -> dict[str, _Entries]:
    parts: dict[str, _Entries] = {}
    for name, entry in entries.items():
        parts.setdefault(_key(session, name), {})[name] = entry
    return parts


def _by_age(entry: _Entry) -> tuple[int, str, str]:
    """The order of runs; two gateways may have given two runs one number."""
    return entry.number, entry.run.started_at, entry.run.run


def _needed(run: Run) -> bool:
    return run.open or run.owed


def _forgotten(entries: _Entries) -> set[str]:
    """The names of the ended runs before the last 1,000."""
    ended = sorted((entry for entry in entries.values() if not _needed(entry.run)), key=_by_age)
    return {entry.run.run for entry in ended[:-MOST_ENDED]}


def _ordered(entries: _Entries) -> list[Run]:
    forgotten = _forgotten(entries)
    return [entry.run for entry in sorted(entries.values(), key=_by_age) if entry.run.run not in forgotten]
