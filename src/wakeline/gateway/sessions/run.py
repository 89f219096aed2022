"""The values that describe a run: its record's entry, and its present activity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec

Status: TypeAlias = Literal["running", "completed", "failed", "canceled", "terminated", "timed_out", "unknown"]


STATUSES: Final = (*get_args(Status), "open", "closed")
"""The statuses of sessions: those of runs, and those of sessions without a run."""


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
    """One workflow execution chain, or one standalone activity, whose output is in a session.

    Attributes:
        workflow_id: The Workflow Id; of a standalone activity, the Activity Id.
        run: The run's name: the run id of the chain's first execution. If the chain had ended and was reset, the run id that
            the reset began with.
        run_id: The chain's latest Temporal run.
        stream: The run whose stream is being read. Runs that carry the stream over by continue-as-new keep it.
        workflow_type: The type of the workflow or activity.
        started_at: When its first known run started, RFC 3339.
        status: The run's status.
        namespace: Its namespace; empty for the gateway's main one.
        chain: The run id of the chain's first execution, if that is not `run`.
        given_whole: Whether its present Temporal run received the stream from one that was read to the end.
        stream_attempt: The number of attempts at the stream under this name: each reset begins another one.
        `owed`: Whether the run has ended while the end of its stream could not be read yet.
        earlier: Its last Temporal runs before `run_id`, oldest first; activities of these may still publish.
        reset_streams: The streams of Temporal runs that resets began: run id to the run whose stream it has. Only the last
            such run of each stream is kept.
        unread: Its earlier Temporal runs whose streams could not be read yet, and which passed them to no later run.
        result: Whether the run's result is to be reported.
        waiting: The last reported reason for waiting; None if it does not wait.
        retrying: Its unfinished activities that were reported as retried: id to attempt.
        failed: The time at which each activity in `retrying` entered that state, in ns: ids and attempts may occur again.
        paused: Its unfinished activities that were reported as paused: id to attempt and time of the pause, in ns.
        activity: Whether it is an activity that no workflow scheduled.
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
    earlier: tuple[str, ...] = ()
    reset_streams: dict[str, str] = {}
    unread: tuple[Unread, ...] = ()
    result: bool = False
    waiting: dict[str, Any] | None = None
    retrying: dict[str, int] = {}
    failed: dict[str, int] = {}
    paused: dict[str, tuple[int, int]] = {}
    activity: bool = False

    @property
    def open(self) -> bool:
        """Whether the run has not ended."""
        return self.status == "running"

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The Temporal runs that are known to belong to the run."""
        return self.run, *self.earlier, *(unread.run_id for unread in self.unread), self.run_id

    def streams_of(self, run_id: str, original: str) -> set[str]:
        """Return the names that the stream of a Temporal run may have, unless it received one.

        Args:
            run_id: The Temporal run.
            original: The run that its first event was written for.
        """
        return {run_id, original, self.reset_streams.get(run_id, run_id)}

    def is_behind(self, other: Run) -> bool:
        """Return whether the run has come further in another state of it than in this one."""
        if other.run_id != self.run_id:
            return other.run_id not in self.run_ids
        if other.open != self.open:
            return self.open
        return other.stream == self.stream and other.stream_attempt > self.stream_attempt

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


def has_ended(runs: Sequence[Run], name: str | None) -> bool:
    """Return whether a run has ended, and no reset has begun its chain again.

    Args:
        runs: The session's runs.
        name: The run; one that is None or not among them is not known to have ended.
    """
    chains = {run.first_run_id for run in runs if name in run.run_ids}
    return bool(chains) and not any(run.open for run in runs if run.first_run_id in chains)


def status_of(runs: Sequence[Run], *, closed: bool) -> str:
    """Return the status of a session: that of an open run, else of its last run.

    Args:
        runs: The session's runs, the last one last.
        closed: Whether the session is closed.
    """
    if not runs:
        return "closed" if closed else "open"
    return next((run.status for run in runs if run.open), runs[-1].status)
