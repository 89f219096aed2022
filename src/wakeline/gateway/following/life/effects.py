"""The effects that the rules ask for; `follower.py` executes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from wakeline.gateway.following.life.reports import Report
from wakeline.gateway.sessions import Unread


@dataclass(frozen=True)
class Append:
    """Append events under a publisher that appends nothing else; the log keeps one copy."""

    publisher: str
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class Expect:
    """Show the run with these changes once the publisher has appended; the record is later."""

    publisher: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Write:
    """Write changes into the run's record."""

    changes: dict[str, Any]


@dataclass(frozen=True)
class Supersede:
    """Mark the output that a reset has undone, and send its inputs again or report them.

    Attributes:
        next_run_id: The run that the reset began.
        output: Whether the run's own output is meant, and not only the inputs of the chain that had ended before it.
    """

    next_run_id: str
    output: bool = True


@dataclass(frozen=True)
class PassOver:
    """Let another stream begin after the events that it received of this one."""

    stream: str
    given: int


@dataclass(frozen=True)
class ReportStateOf:
    """Report the state of a later run of the chain; of none if it is empty."""

    run_id: str


@dataclass(frozen=True)
class Settle:
    """Tell this gateway's devices that no run of the session is open."""


@dataclass(frozen=True)
class Abandon:
    """Abandon the rest of a run: no gateway can append anything of it any more."""


# The effects from here on ask for an observation. Each is the last of its list.


@dataclass(frozen=True)
class AwaitTurn:
    """Wait until no earlier run has anything to add."""


@dataclass(frozen=True)
class Follow:
    """Copy the stream, report the state, and wait for the Temporal run's end."""


@dataclass(frozen=True)
class ReadRest:
    """Read the stream of an ended Temporal run to its end.

    Attributes:
        deadline: The time at which to stop; None to share the gateway's reads with other rests.
        pause: Seconds to wait before.
        unread: The earlier Temporal run that is meant; None for the latest.
    """

    deadline: float | None
    pause: float = 0.0
    unread: Unread | None = None


@dataclass(frozen=True)
class DescribeChain:
    """Ask Temporal for the workflow's latest run."""


@dataclass(frozen=True)
class DescribeRun:
    """Ask Temporal whether it has a run."""

    run_id: str
    deadline: float | None


@dataclass(frozen=True)
class AskWorker:
    """Query a later run, to learn whether a worker is there."""

    run_id: str


@dataclass(frozen=True)
class CheckSession:
    """Read the log and the record of the session's runs.

    Attributes:
        again: Whether this run's end was appended before.
    """

    again: bool = False


Question: TypeAlias = AwaitTurn | Follow | ReadRest | DescribeChain | DescribeRun | AskWorker | CheckSession
Effect: TypeAlias = Append | Expect | Write | Supersede | PassOver | ReportStateOf | Settle | Abandon | Question
