"""The pace at which a reader polls its stream.

If it follows the history, a reader polls after each workflow task, and otherwise only now and then. If it does not, the
pause is short while events come, and grows with the silence.
"""

from __future__ import annotations

import time
from datetime import timedelta

from wakeline.streams.budget import update_pause

# The next poll comes after an eighth of the silence so far: an event is never late by more than that.
_PATIENCE = 8
# In cooldowns: the least pause, the longest one, and the longest one of a reader that follows the history.
_SHORTEST, _LONGEST, _LONGEST_FOLLOWED = 0.05, 10, 100
# Replaces a cooldown of 0 where the longest pauses are computed.
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
        """Poll at once: a run begins, or there is more to read."""
        self.rest = 0.0
        self._more = True

    def updated(self, *, more: bool, used: int) -> None:
        """Note an answer of a run that is read by update and has accepted so many of them."""
        self.rest = max(0.0 if more else self._cooldown, update_pause(used))

    def looked(self, *, found: bool, more: bool, seconds: float) -> None:
        """Note an answer.

        Args:
            found: Whether there were new events.
            more: Whether there are more at once.
            seconds: How long the answer took.
        """
        if found:
            self._last_event = time.monotonic()
        self.begin()
        if not more:
            self._more = False
            # As long as the answer took: however much a poll costs, half of the time is left to others.
            if self._cooldown:
                self.rest = min(max(seconds, self._cooldown * _SHORTEST), self._longest)

    def patience(self, *, followed: bool) -> float:
        """Return the seconds, after the rest, until the next poll without news.

        Args:
            followed: Whether the history is followed.
        """
        if self._more:
            return 0.0
        if followed:
            return self._longest * _LONGEST_FOLLOWED / _LONGEST
        silence = time.monotonic() - self._last_event
        return max(0.0, min(silence / _PATIENCE, self._longest) - self.rest)
