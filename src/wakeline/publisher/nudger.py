"""Notifies the gateway of a workflow's new output, so that it polls at once. PROTOCOL.md §3."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from typing import Final, Self

import msgspec

from wakeline.background import wait_at_most
from wakeline.client.http import Http, Token, gateway_token, gateway_url
from wakeline.client.reach import checked_url
from wakeline.errors import UnavailableError, WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.connection import Connection
from wakeline.publisher.frames import AppendedFrame, Opened, nudge_frame
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.sync import sending

logger = get_logger(__name__)

_MOST: Final = 1_000
_LAST_SECONDS: Final = 1.0
_ASK_AGAIN_SECONDS: Final = 60.0


class Nudger:
    """Nudges the gateway about workflows that publish through Temporal.

        async with Nudger() as nudger:
            stream = WorkflowStreamClient.create(temporal, "order-1", on_flushed=nudger.nudge)

    A nudge is a hint: it goes over the connection that the publishers of this event loop share, has no answer, and is
    dropped while the gateway is away. Without an event loop, `with` does the same over the connection of
    `SyncSessionPublisher`. On a worker, `WakelinePlugin` does all of this.

    Args:
        url: The gateway's URL; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: A token that allows publishing to any session; `WAKELINE_TOKEN` in the environment by default.
        namespace: The namespace of the workflows; the gateway's main one by default.

    Raises:
        RequestInvalidError: The URL is invalid.
    """

    awaiting_since: float | None = None

    def __init__(self, url: str | None = None, token: Token | None = None, *, namespace: str | None = None) -> None:
        self.url = checked_url(gateway_url(url))
        self._token = gateway_token(token)
        self._namespace = namespace
        self._waiting: deque[str] = deque(maxlen=_MOST)
        self._coming = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._channel = 0
        self._is_away = False
        self._complained = False  # of a refusal
        self._silent_until = 0.0

    def nudge(self, workflow_id: str) -> None:
        """Notify the gateway that a workflow has new output; never waits and never raises.

        Any thread may call it. It does nothing before the block is entered and after it is left.
        """
        # No lock: an exception may interrupt this thread between any two steps and would leave the lock held. `_send`
        # clears `_coming` before it takes ids out, so it sees every id that was added before `_coming` was checked.
        loop = self._loop
        if loop is None:
            return
        self._waiting.append(workflow_id)
        if not self._coming:
            try:
                self._coming = True
                loop.call_soon_threadsafe(self._send)
            except RuntimeError:
                self._coming = False  # the loop has ended, and no nudge can be sent any more
            except BaseException:
                self._coming = False  # otherwise no later nudge would ever be sent
                raise

    async def until_ended(self, workflow_ids: Collection[str], seconds: float) -> None:
        """Nudge about ended workflows; return when their events and ends are in their sessions.

        Never raises. If the gateway does not answer nudges, return after a second.

        Args:
            workflow_ids: 1 to 1,000 Workflow Ids.
            seconds: The longest wait, at most 5.
        """
        if not await self._is_reached():
            return
        named = {"namespace": self._namespace} if self._namespace else {}
        body = msgspec.json.encode(
            {"workflows": [{"workflow_id": id, **named} for id in workflow_ids], "wait": seconds}
        )
        headers = {"Content-Type": "application/json"}
        try:
            async with Http(self.url, self._token, timedelta(seconds=seconds)) as http, asyncio.timeout(seconds):
                await http.do("POST", "/v1/nudge", headers=headers, body=lambda: body, wait=seconds)
        except Exception as error:  # noqa: BLE001 - no error may keep a worker from ending
            logger.debug("the wait for the gateway at %s failed: %r", self.url, error)

    async def _is_reached(self) -> bool:
        """Return whether nudges reach the gateway, after sending those that wait."""
        self._send()
        connection = self._connection
        if self._loop is None or connection is None or self._is_away or self._complained:
            return False
        await wait_at_most(_LAST_SECONDS, connection.hinted())
        return connection.is_open

    async def aclose(self) -> None:
        """Send the nudges that wait, for at most 1 s, and stop; harmless when repeated."""
        if self._loop is None:
            return
        self._send()
        self._loop = None
        self._waiting.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                if not (self._is_away or self._complained):
                    await wait_at_most(_LAST_SECONDS, connection.hinted())
            finally:
                await connection.detach(self._channel)

    async def __aenter__(self) -> Self:
        """Start; the first nudge opens the connection."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """See `aclose`."""
        await self.aclose()

    def __enter__(self) -> Self:
        """Start in the thread in which `SyncSessionPublisher` sends."""
        return sending.call(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        """See `aclose`."""
        sending.call(self.aclose())

    def _send(self) -> None:
        self._coming = False
        if self._loop is None:
            return
        waiting: dict[str, None] = {}  # without duplicates, in order
        with suppress(IndexError):
            while True:
                waiting[self._waiting.popleft()] = None
        if not waiting:
            return
        if self._connection is None:
            self._connection = shared_connection(self.url, self._token)
            self._channel = self._connection.attach(self)
        elif self._silent_until:
            if self._loop.time() < self._silent_until:
                return
            self._silent_until = 0.0
            self._connection.want()
        for workflow_id in waiting:
            with suppress(UnicodeEncodeError):  # half a surrogate pair: no workflow has such an id
                self._connection.hint(nudge_frame(workflow_id, self._namespace))

    # Callbacks of the connection

    def connected(self) -> None:
        """Record that there is a connection."""
        self._is_away = self._complained = False
        self._silent_until = 0.0

    def opened(self, frame: Opened) -> None:
        """Ignore it: nudges need no channel."""

    def appended(self, frame: AppendedFrame) -> None:
        """Ignore it: nudges append nothing."""

    def lost(self, error: UnavailableError) -> None:
        """Ignore it: the connection is made again at once."""

    def unreachable(self, error: UnavailableError) -> None:
        """Note an outage: the connection retries and logs it; the gateway polls without nudges."""
        self._is_away = True

    def refused(self, error: WakelineError) -> None:
        """Pause nudges for a minute after a refusal; the token may be renewed by then."""
        self._complain(error)
        if self._loop is not None:
            self._silent_until = self._loop.time() + _ASK_AGAIN_SECONDS

    def _complain(self, error: WakelineError) -> None:
        if not self._complained:
            self._complained = True
            logger.warning(
                "the gateway at %s refuses nudges and polls at its own intervals: %s", self.url, error.message
            )
