"""Tells the gateway that a workflow has something new, so that it looks at once. PROTOCOL.md §3."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from typing import Final, Self

import msgspec

from wakeline.client.http import Http, Token
from wakeline.client.reach import checked_url
from wakeline.errors import UnavailableError, WakelineError
from wakeline.logs import get_logger
from wakeline.publisher.connection import Connection
from wakeline.publisher.frames import AppendedFrame, Opened, nudge_frame
from wakeline.publisher.options import gateway_token, gateway_url
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

    A nudge is a hint: it goes over the connection that the publishers of this event loop share, nobody waits for it, and while
    the gateway is away it is dropped. Where there is no event loop, `with` does the same over the connection of
    `SyncSessionPublisher`. On a worker `WakelinePlugin` does all of this.

    Args:
        url: Where the gateway is; `WAKELINE_URL` in the environment by default, else `http://127.0.0.1:7777`.
        token: Who publishes; `WAKELINE_TOKEN` by default. It must allow to publish, to whatever session.
        namespace: The namespace of the workflows, where it is not the gateway's own.

    Raises:
        RequestInvalidError: The URL is none.
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
        """A workflow has something new. May be called from any thread; never waits, and never raises.

        Before the block is entered and after it is left, it does nothing.
        """
        # No lock: whoever runs workflows may interrupt this thread anywhere. What is put in before `_coming` is looked at
        # is seen by `_send`, which takes it back before it takes anything out.
        loop = self._loop
        if loop is None:
            return
        self._waiting.append(workflow_id)
        if not self._coming:
            try:
                self._coming = True
                loop.call_soon_threadsafe(self._send)
            except RuntimeError:
                self._coming = False  # the loop has ended, and this one with it
            except BaseException:
                self._coming = False  # or no later one would ever be sent
                raise

    async def until_ended(self, workflow_ids: Collection[str], seconds: float) -> None:
        """Nudge about ended workflows; return when their events and ends are in their sessions.

        Never raises. A gateway that does not answer nudges is abandoned after a second.

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
        http = Http(self.url, self._token, timedelta(seconds=seconds))
        try:
            async with asyncio.timeout(seconds):
                await http.do(
                    "POST", "/v1/nudge", headers={"Content-Type": "application/json"}, body=lambda: body, wait=seconds
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, a worker must end
            logger.debug("the gateway at %s was not waited for: %r", self.url, error)
        finally:
            await http.aclose()

    async def _is_reached(self) -> bool:
        """Whether nudges get through, those that wait included."""
        self._send()
        connection = self._connection
        if self._loop is None or connection is None or self._is_away or self._complained:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await connection.hinted()
        return connection.is_open

    async def aclose(self) -> None:
        """Send what waits, unless that takes more than a moment, and stop. Doing it twice is harmless."""
        if self._loop is None:
            return
        self._send()
        self._loop = None
        self._waiting.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                if not (self._is_away or self._complained):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LAST_SECONDS):
                            await connection.hinted()
            finally:
                await connection.detach(self._channel)

    async def __aenter__(self) -> Self:
        """Begin; the gateway is called when there is something to tell."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """See `aclose`."""
        await self.aclose()

    def __enter__(self) -> Self:
        """Begin, in the thread in which `SyncSessionPublisher` sends."""
        return sending.call(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        """See `aclose`."""
        sending.call(self.aclose())

    def _send(self) -> None:
        self._coming = False
        if self._loop is None:
            return
        told: dict[str, None] = {}
        with suppress(IndexError):
            while True:
                told[self._waiting.popleft()] = None
        if not told:
            return
        if self._connection is None:
            self._connection = shared_connection(self.url, self._token)
            self._channel = self._connection.attach(self)
        elif self._silent_until:
            if self._loop.time() < self._silent_until:
                return
            self._silent_until = 0.0
            self._connection.want()
        for workflow_id in told:
            with suppress(UnicodeEncodeError):  # no workflow has such a name
                self._connection.hint(nudge_frame(workflow_id, self._namespace))

    # What the connection tells

    def connected(self) -> None:
        """There is a connection."""
        self._is_away = self._complained = False
        self._silent_until = 0.0

    def opened(self, frame: Opened) -> None:
        """Not asked for."""

    def appended(self, frame: AppendedFrame) -> None:
        """Not asked for."""

    def lost(self, error: UnavailableError) -> None:
        """Another one is tried at once."""

    def unreachable(self, error: UnavailableError) -> None:
        """Note an outage: the connection retries and logs it; the gateway polls without nudges."""
        self._is_away = True

    def refused(self, error: WakelineError) -> None:
        """The gateway does not let us in: ask again some time later, for tokens change."""
        self._complain(error)
        if self._loop is not None:
            self._silent_until = self._loop.time() + _ASK_AGAIN_SECONDS

    def _complain(self, error: WakelineError) -> None:
        if not self._complained:
            self._complained = True
            logger.warning("the gateway at %s is not nudged, so it looks by itself: %s", self.url, error.message)
