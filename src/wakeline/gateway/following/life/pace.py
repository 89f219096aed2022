"""The pace at which an open run's stream is read: quickly while events come, else slowly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from wakeline.gateway.following.life.answers import Answer, Copied

_NO_STREAM_SECONDS: Final = 2.0
_NO_STREAM_MOST: Final = 300.0
# While the history reports every change, the stream is read without one only in case a change was missed.
_BE_SURE: Final = 120.0
_SWEPT_MOST: Final = 300.0


class Wait(NamedTuple):
    """The time until the next read.

    Attributes:
        seconds: How long to wait at most.
        news: Whether the stream is read at once when the workflow may have new events.
    """

    seconds: float
    news: bool


@dataclass(frozen=True)
class Pace:
    """The pace of one reader.

    Attributes:
        fastest: Seconds between two reads while events come.
        slowest: Seconds between two reads in silence.
        interval: The present interval in seconds.
        no_stream: Seconds until a workflow without a stream is asked again.
    """

    fastest: float
    slowest: float
    interval: float
    no_stream: float = _NO_STREAM_SECONDS

    def after(self, copied: Copied, *, closely: bool, followed: bool, update_pause: float | None) -> tuple[Pace, Wait]:
        """Return the pace after a read, and the wait before the next one.

        Args:
            copied: The outcome of the read.
            closely: Whether the run is watched closely.
            followed: Whether its history is followed, so that news come without delay.
            update_pause: Seconds to leave between two updates; None if the host is read by query.
        """
        if copied.answer in (Answer.NOBODY, Answer.ENCODED):
            interval = min(self.interval * 2, self.slowest)
            return replace(self, interval=interval), Wait(interval, news=True)
        if copied.answer is not Answer.READ:
            # However often its history changes, there is nothing to read.
            later = min(self.no_stream * 2, _NO_STREAM_MOST)
            return replace(self, no_stream=later), Wait(self.no_stream, news=False)
        slowest = self.slowest if closely else _SWEPT_MOST
        interval = max(self.interval / 2, self.fastest) if copied.news else min(self.interval * 1.3, slowest)
        paced = replace(self, interval=interval)
        if update_pause is not None:
            return paced, Wait(update_pause, news=False)
        return paced, Wait(_BE_SURE if followed else interval, news=True)
