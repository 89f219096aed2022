"""The observations of a run's life; most are the answer to an effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wakeline.gateway.following.life.answers import Answer
from wakeline.temporal.endings import Ending


@dataclass(frozen=True)
class TurnCame:
    """No earlier run of the session has anything to add before this one."""


@dataclass(frozen=True)
class Ended:
    """The Temporal run has ended.

    Attributes:
        run_id: The Temporal run.
        ending: How, with what its chain continues as.
        read_whole: Whether its stream was queried after its last workflow task had begun, and has answered.
        reported: Whether the log has the chain's end already.
    """

    run_id: str
    ending: Ending
    read_whole: bool = False
    reported: bool = False


@dataclass(frozen=True)
class Read:
    """An attempt to read a stream to its end is over.

    Attributes:
        run_id: The Temporal run.
        answer: Its outcome.
        rested: Seconds for which Temporal had too many calls before it.
        calm: Whether Temporal accepts calls.
        fenced: Whether a later attempt at the stream has begun.
    """

    run_id: str
    answer: Answer
    rested: float = 0.0
    calm: bool = True
    fenced: bool = False


@dataclass(frozen=True)
class ChainSeen:
    """Temporal has described the workflow.

    Attributes:
        over: Whether the chain has ended.
        latest: The workflow's latest run.
    """

    over: bool
    latest: str


@dataclass(frozen=True)
class NotSeen:
    """Temporal has not described a run.

    Attributes:
        absent: Whether Temporal says that it has none.
    """

    absent: bool


@dataclass(frozen=True)
class WorkerSeen:
    """The chain's latest run was queried.

    Attributes:
        present: Whether a worker has answered.
    """

    present: bool


@dataclass(frozen=True)
class Standing:
    """The log and the record of the session's runs; no run ends at this gateway meanwhile.

    Attributes:
        again: Whether this run's end was appended before, as far as the session accepts it.
        reported: Whether the log has this run's end.
        others: How many other runs the record has as open.
        all_ended: Whether the log has the end of each of them.
        last: The offset of the end of a run that has not settled the session; None if there is none.
        details: This run's failure and result, in their reported form.
    """

    again: bool
    reported: bool
    others: int = 0
    all_ended: bool = True
    last: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """The run is still known to Temporal."""


@dataclass(frozen=True)
class LastChance:
    """A later run of the session waits for its turn."""


@dataclass(frozen=True)
class Failed:
    """An effect has failed, and can be tried again."""


@dataclass(frozen=True)
class SessionGone:
    """The session is closed or deleted."""


Observation: TypeAlias = (
    TurnCame | Ended | Read | ChainSeen | NotSeen | WorkerSeen | Standing | Seen | LastChance | Failed | SessionGone
)
