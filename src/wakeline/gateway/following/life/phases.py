"""The phases of a run's life, the state that its rules keep, and the table of the rules.

`docs/concepts/runs.md` shows the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from wakeline.gateway.following.life.effects import Effect
from wakeline.gateway.following.life.observations import Observation
from wakeline.gateway.sessions import Run
from wakeline.temporal.endings import Ending

AGAIN_SECONDS: Final = 1.0
"""Seconds between two attempts to read a stream to its end."""


class Phase(Enum):
    """A phase of a run's life."""

    WAITING = "an earlier run may still add events"
    FOLLOWING = "the run is in the log, and its stream is copied"
    DRAINING = "a Temporal run has ended, and the rest of its stream is read"
    STRANDED = "the chain continues, and no worker could read the rest"
    CLOSING = "the chain has ended, and its end is appended"
    RESTING = "the end is in the log, and the rest is read once a worker is back"
    DONE = "nothing is left to do"


@dataclass(frozen=True)
class Life:
    """The state that the rules keep of one run beside its record; a crash may take it.

    Attributes:
        phase: The phase.
        grace: Seconds to wait for a worker at an end.
        ending: How the Temporal run ended; None while it is open.
        drained: Whether its stream was read to the end.
        patience: Seconds to wait for a worker at this end.
        deadline: The time until which a worker is waited for; None without a limit.
        unheard: Whether the Temporal run before it could not be read in time.
        worker_seen: Whether a worker has answered for a later run of the chain.
        latest: The latest run of the workflow, as far as is known.
        reported: The later Temporal run whose state is reported meanwhile.
        absent: How often in a row Temporal did not have the run.
        appended: Whether the end is in the log.
        `owed`: Whether the rest of the stream is to be read after the end.
        pause: Seconds until the rest is read again.
    """

    phase: Phase
    grace: float
    ending: Ending | None = None
    drained: bool = False
    patience: float = 0.0
    deadline: float | None = None
    unheard: bool = False
    worker_seen: bool = False
    latest: str = ""
    reported: str = ""
    absent: int = 0
    appended: bool = False
    owed: bool = False
    pause: float = 0.0


@dataclass(frozen=True)
class Now:
    """An observation, and the moment at which it was made.

    Attributes:
        observation: What was observed.
        run: The run as its record has it.
        time: The monotonic time in seconds.
        offset: How far the stream was read.
    """

    observation: Observation
    run: Run
    time: float
    offset: int = 0


Step: TypeAlias = tuple[Life, tuple[Effect, ...]]
Apply: TypeAlias = Callable[[Life, Now, Any], Step]


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        apply: Decides on the next step.
        leads: The phases that it leads to, each with the reason.
    """

    apply: Apply
    leads: Mapping[Phase, str]


RULES: Final[dict[tuple[Phase, type], Rule]] = {}


def rule(phase: Phase, observation: type, leads: Mapping[Phase, str]) -> Callable[[Apply], Apply]:
    """Enter a function into the table: it decides on this observation in this phase."""

    def enter(apply: Apply) -> Apply:
        RULES[phase, observation] = Rule(apply, leads)
        return apply

    return enter
