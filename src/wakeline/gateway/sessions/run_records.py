"""Run records: the stored form of sessions' runs.

The runs of a session are one record, its head. Once that would have more than `UNDIVIDED_BYTES`, they are divided into `PARTS`
records by the hash of their names, so that a change of one run rewrites a small part of a session with a thousand runs; the
head says so from then on. Earlier versions kept all runs in the head, whatever its size: that is the same form, and the first
change divides it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import MAX_RECORD_BYTES, Record, Records
from wakeline.gateway.sessions.run import Run
from wakeline.gateway.sessions.run_names import RunNames

PARTS: Final = 8
UNDIVIDED_BYTES: Final = 32 * 1024
"""The size of a head from which its runs are divided: some eighty runs."""

MOST_ENDED: Final = 1_000
"""How many of the ended runs are shown; the log has the others."""

_KEPT: Final = MOST_ENDED * 3 // (2 * PARTS)
"""How many ended runs a part keeps: enough for its share of the last 1,000, which the hash decides."""

_PREFIX: Final = "runs"
_HEAD: Final = f"{_PREFIX}/"


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    number: int
    run: Run


class _Part(msgspec.Struct):
    runs: list[_Entry]


class _Head(msgspec.Struct, omit_defaults=True):
    runs: dict[str, Run]
    divided: bool = False


_Entries: TypeAlias = dict[str, _Entry]
_Change: TypeAlias = Callable[[Run | None], Run | None]
_part = msgspec.json.Decoder(_Part)
_head = msgspec.json.Decoder(_Head)


class RunRecords:
    """Reads and writes the records of runs under compare-and-set.

    Args:
        records: Stores them.

    Attributes:
        names: The names of the runs that Temporal runs belong to, of those that this gateway has seen.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.names = RunNames(self.of)

    async def of(self, session: str) -> list[Run]:
        """Return a session's runs, oldest first; of the ended ones, the last 1,000."""
        (runs,) = await self.of_each([session], 0)
        return runs

    async def of_each(self, sessions: Sequence[str], most_bytes: int) -> list[list[Run]]:
        """Return the runs of several sessions in order, up to the one that exceeds `most_bytes`."""
        heads = await self._records.get_records([_HEAD + session for session in sessions])
        found: list[list[Run]] = []
        size = 0
        for session in sessions:
            if size > most_bytes:
                break
            record = heads.get(_HEAD + session)
            head = _decoded(record)
            size += len(record.value) if record else 0
            if not head.divided:
                found.append(list(head.runs.values()))
                continue
            parts = await self._records.get_records(_part_keys(session))
            size += sum(len(part.value) for part in parts.values())
            found.append(_last(entry for part in parts.values() for entry in _part.decode(part.value).runs))
        return found

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Return the runs to follow after a restart, with their sessions.

        These are the open runs, and the ended ones whose streams could not be read to the end.
        """
        records = await self._records.records(_PREFIX)
        heads = {record.key.removeprefix(_HEAD): _head.decode(record.value) for record in records if _is_head(record)}
        found = [(session, run) for session, head in heads.items() for run in head.runs.values()]
        for record in records:
            session = record.key.split("/", 1)[1]
            if not _is_head(record) and session in heads and heads[session].divided:
                found += [(session, entry.run) for entry in _part.decode(record.value).runs]
        needed = [(session, run) for session, run in found if _needed(run)]
        for session, run in needed:
            self.names.know(session, run)
        return needed

    async def latest(self, session: str, name: str) -> Run | None:
        """Return a run as its record has it now; None if no record has it."""
        found = await self._records.get_records([_HEAD + session, key := _key(session, name)])
        head = _decoded(found.get(_HEAD + session))
        if not head.divided:
            return head.runs.get(name)
        entry = _entries(found.get(key)).get(name)
        return entry.run if entry else None

    async def add(self, session: str, run: Run) -> Run:
        """Add a run, unless another gateway has; return it as the record has it.

        Raises:
            RecordTooLargeError: The session has too many open runs for another one.
        """
        there = run

        def add(known: Run | None) -> Run | None:
            nonlocal there
            there = known or run
            return run if known is None else None

        await self._change(session, run.run, add)
        self.names.know(session, there)
        return there

    async def put(self, session: str, run: Run) -> None:
        """Add a run, or replace it; `result` stays set, because another gateway may have set it.

        A gateway that was stopped for longer than its lease goes on for a moment with what it has in memory. If it wrote
        that, the next one would begin where the chain is no longer, and read the stream of a run that others follow.

        Raises:
            RecordConflictError: Another gateway has come further with the run.
            RecordTooLargeError: The session has too many open runs for another one.
        """
        self.names.know(session, run)
        behind = False

        def put(known: Run | None) -> Run | None:
            nonlocal behind
            behind = known is not None and run.is_behind(known)
            if behind or known is None:
                return None if behind else run
            return msgspec.structs.replace(run, result=run.result or known.result)

        await self._change(session, run.run, put)
        if behind:
            raise RecordConflictError(f"expected run {run.run!r} at {run.run_id!r}, another gateway has come further")

    async def want_result(self, session: str, run: Run) -> None:
        """Note that the result of a run is to be reported, and change nothing else of it."""
        await self._change(session, run.run, lambda known: known and msgspec.structs.replace(known, result=True))

    async def restore(self, session: str, runs: Iterable[Run]) -> None:
        """Write the runs of a session that has none.

        Raises:
            RecordConflictError: It has some.
        """
        head = _Head({run.run: run for run in runs})
        if not head.runs:
            return
        if len(value := msgspec.json.encode(head)) <= UNDIVIDED_BYTES:
            await self._records.put_record(_HEAD + session, value, revision=0)
        else:
            await self._divide(session, head, 0)

    async def revisions(self, session: str) -> dict[str, int]:
        """Return the revisions of a session's records by key; every change increases one."""
        found = await self._records.get_records([_HEAD + session, *_part_keys(session)])
        return {key: record.revision for key, record in found.items()}

    async def forget(self, session: str, revisions: Mapping[str, int] | None = None) -> None:
        """Remove the records that are at these revisions; at any revision if that is None."""
        while True:
            found = await self._records.get_records([_HEAD + session, *_part_keys(session)])
            going = [r for r in found.values() if revisions is None or revisions.get(r.key) == r.revision]
            if not going:
                return
            for record in going:
                await self._records.remove(record)  # unless a follower has written it in between: check again

    async def _change(self, session: str, name: str, change: _Change) -> None:
        """Replace a run by what `change` returns for it; do nothing if that is None."""
        while True:
            found = await self._records.get_records([_HEAD + session, key := _key(session, name)])
            head, part = found.get(_HEAD + session), found.get(key)
            with suppress(RecordConflictError):  # another run was written: apply the change to the new record
                if _decoded(head).divided:
                    await self._change_part(key, part, name, change)
                    return
                if await self._change_head(session, head, name, change):
                    return

    async def _change_head(self, session: str, record: Record | None, name: str, change: _Change) -> bool:
        """Change a run in the head; return False if its runs were divided instead."""
        head, revision = _decoded(record), record.revision if record else 0
        run = change(head.runs.get(name))
        if run is None:
            return True
        value = msgspec.json.encode(_Head({**head.runs, name: run}))
        if len(value) > UNDIVIDED_BYTES and head.runs:
            await self._divide(session, head, revision)
            return False
        await self._records.put_record(_HEAD + session, value, revision=revision)
        return True

    async def _change_part(self, key: str, record: Record | None, name: str, change: _Change) -> None:
        entries = _entries(record)
        known = entries.get(name)
        run = change(known.run if known else None)
        if run is None:
            return
        # A new one is later than all in this part, and by the clock among the other parts.
        number = known.number if known else max(time.time_ns(), *(entry.number + 1 for entry in entries.values()), 0)
        entries[name] = _Entry(number, run)
        value = _encoded(list(entries.values()))
        await self._records.put_record(key, value, revision=record.revision if record else 0)

    async def _divide(self, session: str, head: _Head, revision: int) -> None:
        """Write the runs of a head into parts, then say so in the head.

        The parts mean nothing before: those of a division that was cut short are written again. Several gateways may divide
        the same head, with the same result: a part is written only where the head was unchanged when the part was read.

        Raises:
            RecordConflictError: The head was changed.
        """
        divided: dict[str, list[_Entry]] = {key: [] for key in _part_keys(session)}
        for number, run in enumerate(head.runs.values()):
            divided[_key(session, run.run)].append(_Entry(number, run))
        for key, entries in divided.items():
            await self._write_part(session, revision, key, _encoded(entries))
        value = msgspec.json.encode(_Head({}, divided=True))
        await self._records.put_record(_HEAD + session, value, revision=revision)

    async def _write_part(self, session: str, revision: int, key: str, value: bytes) -> None:
        while True:
            found = await self._records.get_records([_HEAD + session, key])
            head, part = found.get(_HEAD + session), found.get(key)
            if (head.revision if head else 0) != revision:
                raise RecordConflictError(f"expected the runs of {session!r} at revision {revision}, they were changed")
            with suppress(RecordConflictError):
                await self._records.put_record(key, value, revision=part.revision if part else 0)
                return


def head_revision(session: str, revision: int) -> dict[str, int]:
    """Return the revision that an earlier version has noted as `RunRecords.revisions` does."""
    return {_HEAD + session: revision}


def _key(session: str, name: str) -> str:
    return f"{_PREFIX}.{crc32(name.encode()) % PARTS}/{session}"


def _part_keys(session: str) -> list[str]:
    return [f"{_PREFIX}.{number}/{session}" for number in range(PARTS)]


def _is_head(record: Record) -> bool:
    return record.key.startswith(_HEAD)


def _decoded(record: Record | None) -> _Head:
    return _head.decode(record.value) if record else _Head({})


def _entries(record: Record | None) -> _Entries:
    return {entry.run.run: entry for entry in _part.decode(record.value).runs} if record else {}


def _encoded(entries: Sequence[_Entry]) -> bytes:
    """The bytes of a part with these entries, which are ordered by their numbers.

    It leaves out the oldest ended runs, if it has more than its share of them, or as far as its size requires that.
    """
    ended = [entry.run.run for entry in entries if not _needed(entry.run)]
    surplus = max(0, len(ended) - _KEPT)
    while True:
        forgotten = set(ended[:surplus])
        value = msgspec.json.encode(_Part([entry for entry in entries if entry.run.run not in forgotten]))
        if len(value) <= MAX_RECORD_BYTES or surplus >= len(ended):
            return value
        surplus += (len(ended) - surplus) // 8 + 1


def _needed(run: Run) -> bool:
    return run.open or run.owed


def _last(entries: Iterable[_Entry]) -> list[Run]:
    """The runs in the order of their numbers; of the ended ones, the last 1,000."""
    runs = [
        entry.run for entry in sorted(entries, key=lambda entry: (entry.number, entry.run.started_at, entry.run.run))
    ]
    ended = [run.run for run in runs if not _needed(run)]
    forgotten = set(ended[:-MOST_ENDED])
    return [run for run in runs if run.run not in forgotten] if forgotten else runs
