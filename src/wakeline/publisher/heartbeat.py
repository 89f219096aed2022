"""Heartbeats that tell the next attempt how far this one has come."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from temporalio import activity

from wakeline.errors import RequestInvalidError
from wakeline.publisher.frames import Identity

_OURS: Final = "wakeline"


class Heartbeats:
    """The heartbeats of one activity.

    Args:
        context: Where `activity.heartbeat` may be called.
        before: The details of the attempt before.
        progress: How far the publisher has come.
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
        """How many events the attempt before had delivered, as its last heartbeat said."""
        for one in self._before:
            told = one[_OURS]
            if told.get("session") == identity.session and told.get("publisher") == identity.publisher:
                return int(told.get("acknowledged", 0)) + int(told.get("resumed", 0))
        return 0

    def start(self, interval: timedelta) -> None:
        """Heartbeat now and so often; a later call changes how often."""
        if interval <= timedelta(0):
            raise RequestInvalidError(f"expected an interval of more than nothing, got {interval}")
        self.stop()
        self._task = asyncio.create_task(self._run(interval.total_seconds()))

    def stop(self) -> None:
        """Tell once more how far it has come, then stop."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            with suppress(RuntimeError):  # the activity is over
                self._beat()

    def beat(self, *details: Any) -> None:
        """Heartbeat now, with other details of the user's."""
        self._details = details
        self._beat()

    async def _run(self, interval: float) -> None:
        while True:
            self._beat()
            await asyncio.sleep(interval)

    def _beat(self) -> None:
        # A copy, since a context cannot be entered twice at once, and threads may.
        self._context.copy().run(activity.heartbeat, *self._details, {_OURS: self._progress()})


def _is_ours(detail: Any) -> bool:
    return isinstance(detail, dict) and isinstance(detail.get(_OURS), dict)
