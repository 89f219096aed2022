"""A model of Temporal and of a session's log, against which the lives of runs are held."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life.phases import Life
from wakeline.gateway.sessions import Run, Unread
from wakeline.temporal.endings import Ending

AT = datetime(2026, 11, 29, tzinfo=UTC)
ITEM = "said"


class FencedError(Exception):
    """A later attempt at the stream has begun."""


@dataclass
class TemporalRun:
    """One Temporal run: its stream, and how it ended.

    Attributes:
        run_id: The run.
        stream: All that its stream has.
        given: How many events of an earlier stream it received.
        previous: The run before it in its chain; a reset leaves out what it undoes.
        original: The run that its first event was written for.
        ending: How it ended; None while it is open.
        began: Whether a workflow task of it has begun.
        gone: Whether Temporal no longer has it.
        carried: Whether it received the stream by continue-as-new.
    """

    run_id: str
    stream: list[str]
    given: int = 0
    previous: str = ""
    original: str = ""
    ending: Ending | None = None
    began: bool = False
    gone: bool = False
    carried: bool = False

    def __post_init__(self) -> None:
        self.original = self.original or self.run_id

    @property
    def over(self) -> bool:
        return self.gone or self.ending is not None


@dataclass
class Chain:
    """A workflow execution chain of one Workflow Id."""

    workflow_id: str
    runs: list[TemporalRun]

    @property
    def name(self) -> str:
        return self.runs[0].run_id

    @property
    def latest(self) -> TemporalRun:
        return self.runs[-1]

    @property
    def over(self) -> bool:
        """Whether the chain has ended."""
        ending = self.latest.ending
        return self.latest.gone or (ending is not None and ending.status is not None)

    def of(self, run_id: str) -> TemporalRun:
        (found,) = [run for run in self.runs if run.run_id == run_id]
        return found

    def way_back(self, run_id: str, to: str = "") -> list[TemporalRun]:
        """The runs from one of them back to another, or to the first: without what resets have undone."""
        way: list[TemporalRun] = []
        while run_id and (known := [run for run in self.runs if run.run_id == run_id]):
            way += known
            if known[0].original == to:
                return way
            run_id = known[0].previous
        return [] if to else way

    def carried(self, run: TemporalRun) -> list[TemporalRun]:
        """The runs before one whose stream it has received."""
        found: list[TemporalRun] = []
        while run.carried and (before := [each for each in self.runs if each.run_id == run.previous]):
            found, run = found + before, before[0]
        return found

    def begins_elsewhere(self, run: TemporalRun) -> bool:
        """Whether a run's stream began with a part of an earlier one, as that of a retry does."""
        return any(each.given and not each.carried for each in [run, *self.carried(run)])

    def said(self) -> list[str]:
        """All that the chain has said and no reset has undone, each event once."""
        way = reversed(self.way_back(self.latest.run_id))
        return list(dict.fromkeys(item for run in way for item in run.stream))

    def reset(self, base: TemporalRun, run_id: str, kept: int) -> TemporalRun:
        """Begin a run from what is left of another one's history; an open latest run is terminated."""
        stream = base.stream[: max(base.given, kept)]
        begun = TemporalRun(run_id, stream, base.given, base.previous, base.original, began=True, carried=base.carried)
        ended = self.latest.ending or Ending("terminated", AT)
        self.latest.ending = replace(
            ended, status=None, next_run_id=run_id, follows_by="reset", without_reset=ended.status
        )
        self.runs.append(begun)
        return begun


class Position(NamedTuple):
    """How far a publisher has come."""

    attempt: int
    next_sequence: int


class Event(NamedTuple):
    """An event of the session, and who appended it."""

    run: str
    topic: str
    data: Any
    publisher: str
    attempt: int = 1


@dataclass
class Log:
    """The session: its events, the publishers' positions, and the records."""

    events: list[Event] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=dict)
    records: dict[str, Run] = field(default_factory=dict)
    abandoned: set[str] = field(default_factory=set)

    def report(self, run: str, append: do.Append) -> None:
        self._fence(append.publisher, 1)
        if append.publisher not in self.positions:
            self.positions[append.publisher] = Position(1, 1)
            self.events += [Event(run, report.topic, report.data, append.publisher) for report in append.reports]

    def offset(self, run: Run | Unread) -> int:
        """How far the present attempt at a stream has been read."""
        found = self.positions.get(f"stream:{run.stream}", Position(0, 0))
        return found.next_sequence if found.attempt == run.stream_attempt else 0

    def copy(self, name: str, run: Run | Unread, items: list[str]) -> None:
        """Append the items that the log does not have."""
        publisher, attempt, have = f"stream:{run.stream}", run.stream_attempt, self.offset(run)
        # A later attempt makes void what the earlier ones have appended, also if it has nothing itself.
        if items[have:] or (publisher in self.positions and not have):
            self._fence(publisher, attempt)
            self.events += [Event(name, ITEM, item, publisher, attempt) for item in items[have:]]
            self.positions[publisher] = Position(attempt, len(items))

    def pass_over(self, stream: str, count: int) -> None:
        if count:
            self._fence(f"stream:{stream}", 1)
            self.positions.setdefault(f"stream:{stream}", Position(1, count))

    def supersede(self, stream: str, least: int) -> None:
        """Make void what a stream has, or what will be read of it."""
        position = self.positions.get(f"stream:{stream}", Position(0, 0))
        if attempt := max(least, position.attempt):
            self.positions[f"stream:{stream}"] = Position(attempt + 1, 0)

    def _fence(self, publisher: str, attempt: int) -> None:
        if publisher in self.abandoned or attempt < self.positions.get(publisher, Position(0, 0)).attempt:
            raise FencedError

    def of(self, run: str, topic: str) -> list[Any]:
        return [event.data for event in self.events if (event.run, event.topic) == (run, topic)]

    def stands(self, run: str) -> list[str]:
        """The items of a run that no later attempt at their stream has superseded."""
        return [
            event.data
            for event in self.events
            if (event.run, event.topic) == (run, ITEM) and event.attempt == self.positions[event.publisher].attempt
        ]


@dataclass
class Gateway:
    """Whoever follows one run now: its life, and the effects that are still to be executed."""

    life: Life
    effects: list[do.Effect]
