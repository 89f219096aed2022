"""The steps by which an input reaches its run once: a pure function of what was seen last.

An input is sent to one Temporal run until that run certainly has it, or certainly does not and has ended. Only then is it sent to
the next run of the chain. A gateway that starts again begins with `Step.SEND` at the run that the intent's record names.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Literal, TypeAlias

import msgspec


class Step(Enum):
    """The next call to Temporal."""

    SEND = auto()
    LOOK = auto()


class Aim(msgspec.Struct, frozen=True):
    """The next step, and the Temporal run that it is about.

    Attributes:
        step: The step.
        run_id: The run.
        unsure: Whether an earlier call may have reached this run.
    """

    step: Step
    run_id: str
    unsure: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """How an input ended.

    Attributes:
        status: Whether the run completed or rejected it.
        data: What is reported of it beside its id.
    """

    status: Literal["completed", "rejected"]
    data: dict[str, Any] = {}


class Unanswered(msgspec.Struct, frozen=True):
    """A call has failed, or its answer is not there yet: the run may have the input or not."""


class NotOpen(msgspec.Struct, frozen=True):
    """Temporal did not pass the input on, or does not tell: the run may have ended."""


class StillOpen(msgspec.Struct, frozen=True):
    """The run's history does not have the input, and may still get it."""


class Absent(msgspec.Struct, frozen=True):
    """The run has ended, and its history does not have the input.

    Attributes:
        next_run_id: The next run of the chain; empty if there is none.
    """

    next_run_id: str = ""


class Forgotten(msgspec.Struct, frozen=True):
    """Temporal has no such run, or not any more."""


Seen: TypeAlias = Outcome | Unanswered | NotOpen | StillOpen | Absent | Forgotten


def advance(aim: Aim, seen: Seen) -> Aim | Outcome:
    """Return the next step after one was done, or the input's outcome.

    Args:
        aim: The step that was done.
        seen: What came of it. `NotOpen` comes of sending only; `StillOpen`, `Absent` and `Forgotten` come of looking only.
    """
    match seen:
        case Outcome():
            return seen
        case Unanswered():
            return Aim(aim.step, aim.run_id, unsure=aim.unsure or aim.step is Step.SEND)
        case NotOpen():
            return Aim(Step.LOOK, aim.run_id, unsure=aim.unsure)
        case StillOpen():
            return Aim(Step.SEND, aim.run_id, unsure=aim.unsure)
        case Absent(next_run_id) if next_run_id:
            return Aim(Step.SEND, next_run_id)
        case Absent():
            return _rejected("RunClosed", "the run ended before it received the input")
        case Forgotten():
            if aim.unsure:
                return _rejected("RunUnknown", "Temporal no longer knows the run, which may have received the input")
            return _rejected("RunUnknown", "Temporal does not know the run")


def _rejected(kind: str, message: str) -> Outcome:
    return Outcome("rejected", {"failure": {"message": message, "type": kind}})
