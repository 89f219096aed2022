"""Heartbeats that report an activity attempt's progress to the next attempt."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from temporalio import activity

from wakeline.durations import seconds_of
from wakeline.errors import RequestInvalidError
from wakeline.publisher.frames import Identity

_OURS: Final = "wakeline"


class Heartbeats:
    """The heartbeats of one activity.

    Args:
        context: The context in which `activity.heartbeat` may be called.
        before: The last details of the attempt before.
        progress: Returns the publisher's progress, the object under `wakeline` in the details.
    """

    def __init__(
        self, context: contextvars.Context, before: Sequence[Any], progress: Callable[[], dict[str, Any]]
    ) -> None:
        self._context = context
        self._progress = progress
        self._before = [one for one in before if _is_ours(one)]
        self._details: tuple[Any, ...] = tuple(one for one in before if not _is_ours(one))
        self._task: asyncio.Task[None] | None = None

    def acknowledged_before(self, identity: Identity) -> int:
        """Return how many events the earlier attempts had delivered, by their last heartbeat."""
        for one in self._before:
            last = one[_OURS]
            if last.get("session") == identity.session and last.get("publisher") == identity.publisher:
                return int(last.get("acknowledged", 0)) + int(last.get("resumed", 0))
        return 0

    def start(self, interval: timedelta) -> None:
        """Heartbeat now and then once per interval; a later call changes the interval."""
        if interval <= timedelta(0):
            raise RequestInvalidError(f"expected an interval longer than 0, got {interval}")
        self.stop()
        self._task = asyncio.create_task(self._run(seconds_of(interval, "interval")))

    def stop(self) -> None:
        """Heartbeat once more, then stop."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            with suppress(RuntimeError):  # the activity has ended
                self._beat()

    def beat(self, *details: Any) -> None:
        """Heartbeat now, with these details of the user from now on."""
        self._details = details
        self._beat()

    async def _run(self, interval: float) -> None:
        while True:
            self._beat()
            await asyncio.sleep(interval)

    def _beat(self) -> None:
        # A copy: two threads may heartbeat at once, and a context cannot be entered twice.
        self._context.copy().run(activity.heartbeat, *self._details, {_OURS: self._progress()})


def _is_ours(detail: Any) -> bool:
    return isinstance(detail, dict) and isinstance(detail.get(_OURS), dict)
