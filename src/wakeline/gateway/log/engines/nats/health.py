"""The health of a store, and the log lines of it: connection, space, leaders of streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from wakeline.background import cancel_all
from wakeline.gateway.log.engines.nats.link import Link
from wakeline.gateway.log.engines.nats.tail import Tail
from wakeline.gateway.runtime import supervised

_CHECK_SECONDS: Final = 0.5
_RECONNECT_SECONDS: Final = 1.0
_ELECTION_SECONDS: Final = 3.0


def health(link: Link, records: Tail, sessions: Sequence[Tail]) -> str:
    """Return `ok`, or the problem; see `Engine.health`.

    Args:
        link: The connection.
        records: Follows the stream of records.
        sessions: Follow the streams of sessions.
    """
    if not link.client.is_connected:
        return "failed: no connection to NATS"
    if not _serves(link, records):
        return f"failed: stream {records.name} does not answer"
    silent = [tail.name for tail in sessions if not _serves(link, tail)]
    if len(silent) == len(sessions):
        return "failed: no stream of sessions answers"
    if link.is_full:
        return "full: NATS has no space; appends are refused until it has"
    # All gateways see the same: if they were unready, the sessions of the other streams would not be served either.
    if len(silent) > 1:
        return f"ok, but {len(silent)} streams do not answer: {', '.join(silent)}"
    return f"ok, but stream {silent[0]} does not answer" if silent else "ok"


def _serves(link: Link, tail: Tail) -> bool:
    # A server whose disk is full describes its streams, and does not answer a message that it cannot write.
    return tail.answers and link.stores(tail.name)


class HealthLog:
    """Logs the outages that last longer than a reconnection, or an election of a leader.

    Args:
        link: The connection.
        health: Returns the health.
    """

    def __init__(self, link: Link, health: Callable[[], str]) -> None:
        self._link = link
        self._health = health
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task, once the store is open."""
        self._link.is_watched = True
        self._task = supervised("health", self._watch)

    async def stop(self) -> None:
        """Stop the task."""
        await cancel_all(self._task)

    async def _watch(self) -> None:
        since: float | None = None
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now, found = time.monotonic(), self._health()
            if found == "ok":
                since = None
                self._link.outage.works()
                continue
            if since is None:
                since = now
            patience = _ELECTION_SECONDS if self._link.client.is_connected else _RECONNECT_SECONDS
            if now - since >= patience:
                self._link.outage.failed(found.removeprefix("failed: ").removeprefix("ok, but "), since)
