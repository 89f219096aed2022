"""The record of each session's runs and their states, one small record per session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from wakeline.errors import RecordConflictError
from wakeline.gateway.log import Engine

Status: TypeAlias = Literal["running", "completed", "failed", "canceled", "terminated", "timed_out", "unknown"]
_PREFIX: Final = "runs/"
_NAMES: Final = 50_000
# The whole record is rewritten with every change of a run, so it has only the latest of the runs that have ended.
_MOST_ENDED: Final = 1_000


class Unread(msgspec.Struct, frozen=True):
    """A Temporal run that its chain has left before its stream could be read to the end.

    Attributes:
        run_id: The Temporal run's id.
        stream: The run whose stream it has.
        stream_attempt: The attempt at the stream, as in `Run`.
    """

    run_id: str
    stream: str
    stream_attempt: int


class Run(msgspec.Struct, frozen=True):
    """One workflow execution chain whose output is in a session.

    Attributes:
        workflow_id: The Workflow Id.
        run: The run's name: the run id of the chain's first execution. If the chain had ended and was reset, the run id that
            the reset began with.
        run_id: The chain's latest Temporal run.
        stream: The run whose stream is being read. Runs that carry the stream over by continue-as-new keep it.
        workflow_type: The workflow's type.
        started_at: When its first known run started, RFC 3339.
        status: The run's status.
        namespace: Its namespace; empty for the gateway's main one.
        chain: The run id of the chain's first execution, if that is not `run`.
        given_whole: Whether its present Temporal run received the stream from one that was read to the end.
        stream_attempt: The number of attempts at the stream under this name: each reset begins another one.
        `owed`: Whether the run has ended while the end of its stream could not be read yet.
        unread: Its earlier Temporal runs whose streams could not be read yet, and which passed them to no later run.
        result: Whether the run's result is to be reported.
        waiting: The last reported reason for waiting; None if it does not wait.
        retrying: Its unfinished activities that were reported as retried: id to attempt.
        failed: The time at which each activity in `retrying` entered that state, in ns: ids and attempts may occur again.
        paused: Its unfinished activities that were reported as paused: id to attempt and time of the pause, in ns.
    """

    workflow_id: str
    run: str
    run_id: str
    stream: str
    workflow_type: str
    started_at: str
    status: Status = "running"
    namespace: str = ""
    chain: str = ""
    given_whole: bool = False
    stream_attempt: int = 1
    owed: bool = False
    unread: tuple[Unread, ...] = ()
    result: bool = False
    waiting: dict[str, Any] | None = None
    retrying: dict[str, int] = {}
    failed: dict[str, int] = {}
    paused: dict[str, tuple[int, int]] = {}

    @property
    def open(self) -> bool:
        """Whether the run has not ended."""
        return self.status == "running"

    @property
    def first_run_id(self) -> str:
        """The run id of the chain's first execution."""
        return self.chain or self.run


class RunState(msgspec.Struct, frozen=True):
    """The present activity of a run.

    Attributes:
        activities: The activities that are retried, paused or stalled, by id.
        waiting: The reason for waiting; None if the run does not wait.
        current: Identifies this point of the run; changes when the run makes progress.
    """

    activities: dict[str, dict[str, Any]] = {}
    waiting: dict[str, Any] | None = None
    current: str = ""


class Telling(NamedTuple):
    """A change of a run that is being reported.

    Attributes:
        by: The publisher that reports it; once this publisher has appended, the change is reported.
        run: The run after the change. The record has it a moment later.
    """

    by: str
    run: Run


class Followed(NamedTuple):
    """A run that this gateway follows.

    Attributes:
        run: The run as its record has it.
        state: Its present activity.
        telling: The change that is being reported; None if there is none.
    """

    run: Run
    state: RunState
    telling: Telling | None = None


class _Runs(msgspec.Struct):
    runs: dict[str, Run]


_decoder = msgspec.json.Decoder(_Runs)


class Runs:
    """The record of each session's runs, under compare-and-set."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._names: dict[tuple[str, str], str] = {}  # by session and Temporal run: the run's name; oldest first

    def lock(self, session: str) -> asyncio.Lock:
        """Return the lock to hold from reading a session's runs to writing the consequences.

        Without it two runs that end at once would each see the other one open, and neither would settle the session.
        """
        return self._locks.setdefault(session, asyncio.Lock())

    async def of(self, session: str) -> list[Run]:
        """Return the session's runs, oldest first; of the ended ones, the last 1,000."""
        record = await self._engine.get_record(_PREFIX + session)
        return list(_decoder.decode(record.value).runs.values()) if record else []

    async def of_each(self, sessions: Sequence[str], most_bytes: int) -> list[list[Run]]:
        """Return the runs of several sessions in order, up to the one that exceeds `most_bytes`."""
        records = await self._engine.get_records([_PREFIX + session for session in sessions])
        found: list[list[Run]] = []
        size = 0
        for session in sessions:
            if size > most_bytes:
                break
            record = records.get(_PREFIX + session)
            size += len(record.value) if record else 0
            found.append(list(_decoder.decode(record.value).runs.values()) if record else [])
        return found

    def name_of(self, session: str, run_id: str) -> str:
        """Return the name of the run that a Temporal run belongs to; its own id if unknown here.

        An activity knows its Temporal run, and not the first run of the chain.
        """
        return self._names.get((session, run_id), run_id)

    def know(self, session: str, run_id: str, name: str) -> None:
        """Remember that a Temporal run belongs to the run `name`, which the record may not have yet."""
        key = (session, run_id)
        self._names.pop(key, None)
        self._names[key] = name
        if len(self._names) > _NAMES:
            del self._names[next(iter(self._names))]

    async def settled(self, session: str) -> bool:
        """Return whether the session has had a run and none is open."""
        runs = await self.of(session)
        return bool(runs) and not any(run.open for run in runs)

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Return the runs to follow after a restart, with their sessions.

        These are the open runs, and the ended ones whose streams could not be read to the end.
        """
        found: list[tuple[str, Run]] = []
        for record in await self._engine.records(_PREFIX):
            runs = _decoder.decode(record.value).runs.values()
            found += [(record.key.removeprefix(_PREFIX), run) for run in runs if run.open or run.owed]
        for session, run in found:
            self.know(session, run.run_id, run.run)
        return found

    async def latest(self, session: str, run: str) -> Run | None:
        """Return a run as its record has it now; None if the record does not have it."""
        record = await self._engine.get_record(_PREFIX + session)
        return _decoder.decode(record.value).runs.get(run) if record else None

    async def put(self, session: str, run: Run) -> None:
        """Add a run to the record, or replace it."""
        self.know(session, run.run_id, run.run)
        await self._change(session, lambda runs: runs.__setitem__(run.run, run))

    async def restore(self, session: str, runs: Sequence[Run]) -> None:
        """Write the runs of a session that has no record.

        Raises:
            RecordConflictError: It has a record.
        """
        if runs:
            record = _Runs({run.run: run for run in runs})
            await self._engine.put_record(_PREFIX + session, msgspec.json.encode(record), revision=0)

    async def revision(self, session: str) -> int:
        """Return the revision of the record, which every change increases; 0 if there is none."""
        record = await self._engine.get_record(_PREFIX + session)
        return record.revision if record else 0

    async def forget(self, session: str, *, revision: int | None = None) -> None:
        """Remove the record if it is at `revision`; at any revision if that is None."""
        while record := await self._engine.get_record(_PREFIX + session):
            if revision not in (None, record.revision):
                return
            with suppress(RecordConflictError):  # a follower has written the record in between: check again
                await self._engine.delete_record(record.key, revision=record.revision)

    async def _change(self, session: str, change: Callable[[dict[str, Run]], None]) -> None:
        while True:
            record = await self._engine.get_record(_PREFIX + session)
            runs = _decoder.decode(record.value) if record else _Runs({})
            change(runs.runs)
            over = [name for name, run in runs.runs.items() if not (run.open or run.owed)]
            for name in over[:-_MOST_ENDED]:
                del runs.runs[name]
            try:
                await self._engine.put_record(
                    _PREFIX + session, msgspec.json.encode(runs), revision=record.revision if record else 0
                )
            except RecordConflictError:
                continue  # another run of the session was written meanwhile: apply the change to the new record
            return
