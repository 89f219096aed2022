"""The steps by which an input reaches its run once: a pure function of what was seen last.

An input is sent to one Temporal run until that run certainly has it, or certainly does not and has ended. Only then is it sent to
the next run of the chain. An input that may start its workflow finds the workflow's open run first; if there is none, it starts
one, and after a start without an answer it finds the run that it has begun. A gateway that starts again begins at the place that
the intent's record names.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec


class Step(Enum):
    """The next call to Temporal."""

    SEND = auto()
    LOOK = auto()
    FIND = auto()
    START = auto()


class Aim(msgspec.Struct, frozen=True):
    """The next step, and the Temporal run that it is about.

    Attributes:
        step: The step.
        run_id: The run; to find or start one, the run that has ended before, or empty if there was none.
        unsure: Whether an earlier call may have reached this run.
    """

    step: Step
    run_id: str
    unsure: bool = False


class Place(NamedTuple):
    """How far an input has come, as its record has it.

    Attributes:
        run_id: The run that may have it, or may get it; empty if there is none yet.
        over: Whether that run has ended without the input, and the workflow is started after it.
    """

    run_id: str
    over: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """How an input ended.

    Attributes:
        status: Whether the run completed or rejected it.
        data: What is reported of it beside its id.
        stale: The offset of the event that its device had not seen, if it was not sent for that.
    """

    status: Literal["completed", "rejected"]
    data: dict[str, Any] = {}
    stale: int | None = None

    @classmethod
    def rejected(cls, kind: str, message: str, *, stale: int | None = None) -> Outcome:
        """Return a rejection with this type and message of its failure."""
        return cls("rejected", {"failure": {"message": message, "type": kind}}, stale)


class Unanswered(msgspec.Struct, frozen=True):
    """A call has failed, or its answer is not there yet: the run may have the input or not.

    Attributes:
        refused: The status with which Temporal refuses the gateway itself; empty for other failures.
    """

    refused: str = ""


class Failing(msgspec.Struct, frozen=True):
    """The run's workflow tasks fail, so Temporal has not passed the update on."""


class NotOpen(msgspec.Struct, frozen=True):
    """Temporal did not pass the input on, or does not tell: the run may have ended."""


class StillOpen(msgspec.Struct, frozen=True):
    """The run's history does not have the input's outcome, and may still get it.

    Attributes:
        begun: Whether the workflow has accepted the input, which is an update.
    """

    begun: bool = False


class Absent(msgspec.Struct, frozen=True):
    """The run has ended, and its history does not have the input.

    Attributes:
        next_run_id: The next run of the chain; empty if there is none.
    """

    next_run_id: str = ""


class Forgotten(msgspec.Struct, frozen=True):
    """Temporal has no such run, or not any more."""


class At(msgspec.Struct, frozen=True):
    """The run that the input has begun, or the workflow's open run.

    Attributes:
        run_id: The run.
        outcome: The input's outcome, if the answer to its start has it.
    """

    run_id: str
    outcome: Outcome | None = None


class Free(msgspec.Struct, frozen=True):
    """The workflow has no open run, and the input has begun none.

    Attributes:
        run_id: Its latest run; empty if there is none.
    """

    run_id: str


Seen: TypeAlias = Outcome | Unanswered | Failing | NotOpen | StillOpen | Absent | Forgotten | At | Free


def advance(aim: Aim, seen: Seen, *, starts: bool = False) -> Aim | Outcome:
    """Return the next step after one was done, or the input's outcome.

    Args:
        aim: The step that was done.
        seen: What came of it. `NotOpen` and `Failing` come of sending only; `StillOpen`, `Absent` and `Forgotten` come of
            looking only; `At` of finding and starting; `Free` of finding only.
        starts: Whether the input starts its workflow if the workflow has no open run.
    """
    match seen:
        case Outcome():
            return seen
        case At(run_id, outcome):
            return outcome or Aim(Step.SEND, run_id, unsure=aim.unsure or aim.step is Step.START)
        case Free(run_id):
            return Aim(Step.START, run_id)
        case Unanswered() if aim.step is Step.START:
            return Aim(Step.FIND, aim.run_id, unsure=True)
        case Unanswered() | Failing():
            return Aim(aim.step, aim.run_id, unsure=aim.unsure or aim.step is Step.SEND)
        case NotOpen():
            return Aim(Step.LOOK, aim.run_id, unsure=aim.unsure)
        case StillOpen():
            return Aim(Step.SEND, aim.run_id, unsure=aim.unsure)
        case Absent(next_run_id) if next_run_id:
            return Aim(Step.SEND, next_run_id)
        case Absent() if starts:
            return Aim(Step.FIND, aim.run_id, unsure=True)
        case Absent():
            return Outcome.rejected("RunClosed", "the run ended before it received the input")
        case Forgotten():
            if aim.unsure:
                return Outcome.rejected(
                    "RunUnknown", "Temporal no longer knows the run, which may have received the input"
                )
            return Outcome.rejected("RunUnknown", "Temporal does not know the run")


def begin_at(place: Place, *, unsure: bool = True) -> Aim:
    """Return the step with which an input is carried on.

    Args:
        place: The place in its record.
        unsure: Whether it may have been sent, or its workflow started, since that was written.
    """
    return Aim(Step.FIND if place.over or not place.run_id else Step.SEND, place.run_id, unsure)


def place_after(place: Place, seen: Seen, after: Aim | Outcome) -> Place:
    """Return the place that an input's record must have before the step `after`.

    Args:
        place: The place that it has.
        seen: What came of the last step.
        after: The next step, or the outcome.
    """
    if isinstance(seen, At):
        return Place(seen.run_id)
    if isinstance(after, Outcome) or after.step is Step.FIND:
        return place
    return Place(after.run_id, over=after.step is Step.START)
