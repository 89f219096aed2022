"""Which runs a session has: one small record per session, read by whoever must know whether it is settled."""

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
# The record is written anew with every change of a run: a session that has had very many keeps the last of those that are over.
_MOST_ENDED: Final = 1_000


class Unread(msgspec.Struct, frozen=True):
    """A Temporal run that its chain has left behind before anybody could tell what it said.

    Attributes:
        run_id: Its id.
        stream: The run whose stream it has.
        stream_attempt: As of a run.
    """

    run_id: str
    stream: str
    stream_attempt: int


class Run(msgspec.Struct, frozen=True):
    """One workflow execution chain whose output is in a session.

    Attributes:
        workflow_id: The Workflow Id.
        run: The run's name: its chain's first execution's run id; of a chain that had ended and was reset, the run id that
            the reset began with.
        run_id: The Temporal run that the chain has come to.
        stream: The run whose stream is being read. Runs that carry the stream over by continue-as-new keep it.
        workflow_type: The workflow's type.
        started_at: When its first known run started, RFC 3339.
        status: How it stands.
        namespace: Its namespace; empty for the gateway's main one.
        chain: The chain's first execution's run id, where that is not `run`.
        given_whole: Its present Temporal run was given the stream by one that was read to the end.
        stream_attempt: How often the stream was begun anew under this name: a reset makes it one more.
        owed: It has ended, and what its stream still had to say could not be read yet.
        unread: Earlier Temporal runs of it that could not be read yet; what they said was handed to no later one.
        result: What it completes with is to be told.
        waiting: What it was last told to wait for; None for nothing.
        retrying: Its activities that were told to be retried and are not over, with their attempts.
        failed: Since when each of these is to be retried: an id may be used again.
        paused: Its activities that were reported as paused and are not over: the attempt, and since when.
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
        """Whether it has not ended."""
        return self.status == "running"

    @property
    def first_run_id(self) -> str:
        """The chain's first execution's run id."""
        return self.chain or self.run


class RunState(msgspec.Struct, frozen=True):
    """What a run is doing.

    Attributes:
        activities: Those that are retried, paused or have stalled, by id.
        waiting: What it waits for; None if it does something.
        current: What identifies this moment of the run: changes when it goes on.
    """

    activities: dict[str, dict[str, Any]] = {}
    waiting: dict[str, Any] | None = None
    current: str = ""


class Telling(NamedTuple):
    """A change of a run that is being told.

    Attributes:
        by: The publisher's name under which it is told; once that has appended, it is told.
        run: The run as it stands then. The record has it a moment later.
    """

    by: str
    run: Run


class Followed(NamedTuple):
    """A run that is followed here.

    Attributes:
        run: As it stands.
        state: What it is doing.
        telling: What is being told of it, if anything.
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
        self._names: dict[tuple[str, str], str] = {}  # oldest first

    def lock(self, session: str) -> asyncio.Lock:
        """Held from looking at a session's runs to writing down what follows: two that end at once must see each other."""
        return self._locks.setdefault(session, asyncio.Lock())

    async def of(self, session: str) -> list[Run]:
        """The session's runs, oldest first; of those that are over the last 1,000."""
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
        """The run that a Temporal run belongs to, as far as is known here; else it is its own name.

        An activity knows the Temporal run that it is of, and not the first of its chain.
        """
        return self._names.get((session, run_id), run_id)

    def know(self, session: str, run_id: str, name: str) -> None:
        """A Temporal run is known to be of this run, which need not have come to it yet."""
        key = (session, run_id)
        self._names.pop(key, None)
        self._names[key] = name
        if len(self._names) > _NAMES:
            del self._names[next(iter(self._names))]

    async def settled(self, session: str) -> bool:
        """Whether the session has had a run and none is open."""
        runs = await self.of(session)
        return bool(runs) and not any(run.open for run in runs)

    async def unfinished(self) -> list[tuple[str, Run]]:
        """Every run that is open or still owes something, with its session: what a gateway goes on with after a restart."""
        found: list[tuple[str, Run]] = []
        for record in await self._engine.records(_PREFIX):
            runs = _decoder.decode(record.value).runs.values()
            found += [(record.key.removeprefix(_PREFIX), run) for run in runs if run.open or run.owed]
        for session, run in found:
            self.know(session, run.run_id, run.run)
        return found

    async def latest(self, session: str, run: str) -> Run | None:
        """What is written down of one run."""
        record = await self._engine.get_record(_PREFIX + session)
        return _decoder.decode(record.value).runs.get(run) if record else None

    async def put(self, session: str, run: Run) -> None:
        """Add a run, or write down how it stands now."""
        self.know(session, run.run_id, run.run)
        await self._change(session, lambda runs: runs.__setitem__(run.run, run))

    async def restore(self, session: str, runs: Sequence[Run]) -> None:
        """Write down the runs of a session that has no record of any.

        Raises:
            RecordConflictError: It has one.
        """
        if runs:
            record = _Runs({run.run: run for run in runs})
            await self._engine.put_record(_PREFIX + session, msgspec.json.encode(record), revision=0)

    async def revision(self, session: str) -> int:
        """Of the record; 0 if there is none. Every change gives it another."""
        record = await self._engine.get_record(_PREFIX + session)
        return record.revision if record else 0

    async def forget(self, session: str, *, revision: int | None = None) -> None:
        """Remove the record, if it is at `revision` or whatever it is at."""
        while record := await self._engine.get_record(_PREFIX + session):
            if revision not in (None, record.revision):
                return
            with suppress(RecordConflictError):  # what a follower still had to say comes in between
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
                continue  # somebody wrote another run of the session meanwhile; theirs and ours both count
            return
