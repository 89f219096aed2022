"""The session of the running activity.

Its publisher is opened on first use, and its events are durable before the activity completes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

from temporalio import activity

from wakeline.blocking import call
from wakeline.publisher import SessionPublisher
from wakeline.publisher.sync import SyncSessionPublisher

_ELSEWHERE: Final = (
    "expected the process of the worker, got one of its pool, which has no session: open a publisher there, with "
    "SyncSessionPublisher.from_within_activity()"
)
_running: ContextVar[ActivitySession] = ContextVar("wakeline_activity_session")


async def current_session() -> SessionPublisher:
    """Return the publisher of the running `async def` activity, which each call shares.

    The first call opens it. When the activity returns, its events are made durable first; if that fails, the activity
    fails.

    Raises:
        LookupError: No activity is running here, its worker has no `WakelinePlugin`, or it runs in a pool of processes.
        AttemptFencedError: A later attempt of the activity has begun.
    """
    held = _running_session()
    if asyncio.get_running_loop() is not held.loop:
        raise LookupError("expected the event loop of the worker, got another one: use current_sync_session()")
    return await held.publisher()


def current_sync_session() -> SyncSessionPublisher:
    """Return the publisher of the running `def` activity; otherwise like `current_session`.

    Raises:
        LookupError: No activity is running here, its worker has no `WakelinePlugin`, it is `async def`, or it runs in a
            pool of processes.
        AttemptFencedError: A later attempt of the activity has begun.
    """
    held = _running_session()
    if threading.get_ident() == held.thread:
        raise LookupError("expected the thread of a `def` activity, got the worker's own: use await current_session()")
    return held.sync_publisher()


def has_session() -> bool:
    """Return whether `current_session` or `current_sync_session` would return a publisher here."""
    held = _running.get(None)
    return held is not None and not held.closed and not held.is_elsewhere


def _running_session() -> ActivitySession:
    held = _running.get(None)
    if held is None and activity.in_activity() and multiprocessing.parent_process() is not None:
        raise LookupError(_ELSEWHERE)
    if held is None:
        raise LookupError(
            "expected an activity of a worker with a WakelinePlugin, got none: "
            "give the client or worker plugins=[WakelinePlugin(…)], or make a publisher of your own"
        )
    if held.is_elsewhere:
        raise LookupError(_ELSEWHERE)
    held.require_running()
    return held


class ActivitySession:
    """The publishers of one attempt; a context manager around the activity.

    It belongs to the worker's event loop.

    Args:
        make: Makes the publisher; called within the activity.
        make_sync: Makes that of a `def` activity; called within the activity.
        before: Awaited before either is opened.

    Attributes:
        closed: The activity has ended.
        loop: The worker's event loop.
        thread: The thread of that loop.
    """

    def __init__(
        self,
        make: Callable[[], SessionPublisher],
        make_sync: Callable[[], SyncSessionPublisher],
        before: Callable[[], Awaitable[None]],
    ) -> None:
        self._make = make
        self._make_sync = make_sync
        self._before = before
        self._opening = asyncio.Lock()
        self._opening_sync = threading.Lock()
        self._publisher: SessionPublisher | None = None
        self._sync_publisher: SyncSessionPublisher | None = None
        self.closed = False
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self._process = os.getpid()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a fork of the worker's process, in which its event loop does not run."""
        return self._process != os.getpid()

    def require_running(self) -> None:
        """Raise if the activity has ended.

        Raises:
            LookupError: The activity has ended.
        """
        if self.closed:
            said = "expected a running activity, this one has ended: await all publishing before it returns"
            raise LookupError(said)

    async def publisher(self) -> SessionPublisher:
        """Return the publisher, open."""
        async with self._opening:
            if self._publisher is None:
                self.require_running()
                await self._before()
                publisher = await self._make().__aenter__()
                if self.closed:  # the activity ended during the await, so `__aexit__` did not close it
                    await publisher.aclose()
                    self.require_running()
                self._publisher = publisher
            return self._publisher

    def sync_publisher(self) -> SyncSessionPublisher:
        """Return the publisher of a `def` activity, open."""
        with self._opening_sync:
            if self._sync_publisher is None:
                self.require_running()
                call(_awaiting(self._before), self.loop.call_soon_threadsafe)
                self._sync_publisher = self._make_sync().__enter__()
                if self.closed:  # as above; `__aexit__` may close it too, which is harmless
                    self._sync_publisher.close()
                    self.require_running()
            return self._sync_publisher

    async def __aenter__(self) -> Self:
        self._token = _running.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make all events durable, as leaving the publisher's own block does."""
        self.closed = True
        _running.reset(self._token)
        try:
            if self._publisher is not None:
                await self._publisher.__aexit__(kind, error, traceback)
        finally:
            if self._sync_publisher is not None:
                # It blocks until its thread has sent everything, and the worker's other activities must go on.
                await asyncio.to_thread(self._sync_publisher.__exit__, kind, error, traceback)


async def _awaiting(what: Callable[[], Awaitable[None]]) -> None:
    await what()
