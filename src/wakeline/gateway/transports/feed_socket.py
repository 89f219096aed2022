"""A WebSocket: how it closes, and how much it takes. Frames are parsed by aiohttp."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from wakeline.gateway.transports.feed import SharedConnection

GOING_AWAY, TOO_LARGE, FAILED, NOT_OURS, TOKEN, SLOW, TOO_MUCH = 1001, 1009, 1011, 4400, 4401, 4408, 4429
"""Close codes; PROTOCOL.md §5 tells which of them ask the client to come back."""

_GOODBYE_SECONDS: Final = 1.0  # for the client to answer our close, before the connection is cut
_FRAMES_AT_ONCE: Final = 2_000
_FRAMES_A_SECOND: Final = 100


class Closing(Exception):  # noqa: N818 - it is no error
    """The connection is to be closed with a code."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason


class FeedSocket(web.WebSocketResponse):
    """aiohttp's WebSocket, after whose close frame nothing is written.

    Args:
        keep_alive: Seconds between pings; one that is not answered within half of them ends the connection.
        max_message_bytes: The largest message that is taken.
    """

    connection: SharedConnection | None = None

    def __init__(self, keep_alive: float, max_message_bytes: int) -> None:
        super().__init__(
            timeout=_GOODBYE_SECONDS,
            autoping=False,  # pings count as frames, too
            heartbeat=keep_alive,
            compress=False,
            max_msg_size=max_message_bytes + 1,  # aiohttp refuses what reaches it
        )

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Say goodbye; returns when the client has answered, or does not."""
        if self.connection is not None:
            self.connection.end()
        return await super().close(code=code, message=message, drain=False)  # who reads nothing is not waited for


class Allowance:
    """How many frames a client may send: so many at once, and so many a second."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left: float = _FRAMES_AT_ONCE
        self._at = 0.0

    def take(self) -> None:
        """One frame has come.

        Raises:
            Closing: It is one too many.
        """
        now = asyncio.get_running_loop().time()
        self._left = min(_FRAMES_AT_ONCE, self._left + (now - self._at) * _FRAMES_A_SECOND) - 1
        self._at = now
        if self._left < 0:
            raise Closing(TOO_MUCH, f"expected at most {_FRAMES_A_SECOND} frames a second")
