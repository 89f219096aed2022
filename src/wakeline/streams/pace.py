"""When a reader looks at its stream again.

Where the history tells of each workflow task, a reader looks when there was one, and otherwise only now and then. Where
it does not, the pause follows the stream: short while events come, growing with the silence.
"""

from __future__ import annotations

import time
from datetime import timedelta

from wakeline.streams.budget import update_pause

# The next look comes after an eighth of the silence so far: an event is never late by more than that.
_PATIENCE = 8
# In cooldowns: the least pause, the longest one, and the longest one of a reader that is told when to look.
_SHORTEST, _LONGEST, _LONGEST_WHEN_TOLD = 0.05, 10, 100
# What the longest pauses of a cooldown of nothing are reckoned by.
_LEAST_COOLDOWN = 0.01


class Pace:
    """The pace of one reader.

    Args:
        poll_cooldown: See `WorkflowStreamClient.subscribe`.
    """

    def __init__(self, poll_cooldown: timedelta) -> None:
        self._cooldown = max(0.0, poll_cooldown.total_seconds())
        self._longest = _LONGEST * max(self._cooldown, _LEAST_COOLDOWN)
        self._last_event = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Look at once: a run begins, or there is more to read."""
        self.rest = 0.0
        self._more = True

    def updated(self, *, more: bool, used: int) -> None:
        """Learn from an answer of a run that is read by update and has taken so many of them."""
        self.rest = max(0.0 if more else self._cooldown, update_pause(used))

    def looked(self, *, found: bool, more: bool, seconds: float) -> None:
        """Learn from an answer.

        Args:
            found: There was something new.
            more: There is more at once.
            seconds: How long the answer took.
        """
        if found:
            self._last_event = time.monotonic()
        self.begin()
        if not more:
            self._more = False
            # As long as the answer took: whatever a look costs, here and now, half of the time is left to others.
            if self._cooldown:
                self.rest = min(max(seconds, self._cooldown * _SHORTEST), self._longest)

    def patience(self, *, told: bool) -> float:
        """Seconds, after the rest, until the next look at a stream of which nothing is heard."""
        if self._more:
            return 0.0
        if told:
            return self._longest * _LONGEST_WHEN_TOLD / _LONGEST
        silence = time.monotonic() - self._last_event
        return max(0.0, min(silence / _PATIENCE, self._longest) - self.rest)
