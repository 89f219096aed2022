"""The pace of publishers and readers within a run's limits: 10,000 signals, 2,000 updates.

Every batch of a publisher is a signal, and every answer to a reader of a host without the poll query is an update. Half
of them are spent at the requested pace. From then on the pauses grow as the rest shrinks, which gives the host time to
continue as new. A publisher counts only its own signals; the length of the history, described now and then, bounds those
of others. A reader counts all updates in the history that it follows.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowHandle

from wakeline.logs import get_logger

logger = get_logger(__name__)

SIGNALS_PER_RUN = 10_000
UPDATES_PER_RUN = 2_000
# Batches between two descriptions of the run. A description costs as much as a batch.
_LOOK_EVERY = 250
# A signal by itself costs a run four events: the signal, and its workflow task scheduled, started, completed.
_EVENTS_PER_SIGNAL = 4
_LONGEST_INTERVAL = 10.0
_LONGEST_PAUSE = 5.0
# The pause between two updates is this over those that are left: whatever is left halves in some seven minutes at most.
_UPDATE_SECONDS = 600.0
_LONGEST_UPDATE_PAUSE = 30.0


def update_pause(used: int) -> float:
    """Return the least seconds between two updates of a run that has accepted so many."""
    left = UPDATES_PER_RUN - used
    if left > UPDATES_PER_RUN / 2:
        return 0.0
    return min(_UPDATE_SECONDS / max(left, 1), _LONGEST_UPDATE_PAUSE)


class SignalBudget:
    """One publisher's count of the signals that its workflow's run has accepted."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle
        self._run_id: str | None = None
        self._sent = 0
        self._sent_before_look = 0
        self._history_length = 0

    def spend(self) -> None:
        """Count one signal."""
        self._sent += 1

    async def look(self) -> None:
        """Describe the run, once every so many batches."""
        if self._sent - self._sent_before_look < _LOOK_EVERY:
            return
        self._sent_before_look = self._sent
        try:
            described = await self._handle.describe()
        except Exception as error:  # noqa: BLE001  it affects the pace only; sending meets the same error and reports it
            logger.debug("Cannot describe workflow %s to count its signals: %s", self._handle.id, error)
            return
        if described.run_id != self._run_id:
            # All signals since the last description may have gone to the new run.
            self._sent = self._sent_before_look = _LOOK_EVERY
            self._run_id = described.run_id
        self._history_length = described.history_length

    def interval(self, asked: float) -> float:
        """Return the seconds between two batches, for the requested interval."""
        return max(asked, min(asked * self._stretch, _LONGEST_INTERVAL))

    def pause(self) -> float:
        """Return the least seconds between two batches, also of those that are sent at once."""
        return min(0.1 * (self._stretch - 1), _LONGEST_PAUSE)

    @property
    def _stretch(self) -> float:
        used = max(self._sent, self._history_length // _EVENTS_PER_SIGNAL)
        left = max(1 - used / SIGNALS_PER_RUN, 0.01)
        return max(1.0, 0.5 / left)
