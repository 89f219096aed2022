"""The outcomes of an attempt to read a run's stream."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Answer(Enum):
    """The outcome of an attempt to read a run's stream."""

    READ = "it was read to its present end"
    NO_STREAM = "the workflow hosts no stream, or not yet"
    NEVER_BEGAN = "the run was over before its code ran once: it has published nothing itself"
    UPDATES_ONLY = "the run is closed, and its host answers no queries"
    TOO_LARGE = "the item that was asked for is larger than any answer may be"
    ENCODED = "a worker answered, and the gateway holds no key"
    NOBODY = "no worker answered, or Temporal is unavailable: ask again"
    SESSION_CLOSED = "nothing can be appended to the session any more"

    @property
    def is_final(self) -> bool:
        """Whether asking again gives the same answer."""
        return self not in (Answer.NOBODY, Answer.ENCODED)

    @property
    def is_a_worker_s(self) -> bool:
        """Whether a worker has answered, and not the server."""
        return self in (Answer.READ, Answer.NO_STREAM, Answer.UPDATES_ONLY, Answer.TOO_LARGE, Answer.ENCODED)


class Copied(NamedTuple):
    """The outcome of copying a stream as far as it goes.

    Attributes:
        answer: The last answer.
        news: Whether anything was appended.
        reason: The error, for the log.
    """

    answer: Answer
    news: bool = False
    reason: str = ""
