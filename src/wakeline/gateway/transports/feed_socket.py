"""The WebSocket of a conversation: its limits and how it closes. aiohttp parses the frames."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from aiohttp import web

from wakeline.gateway.transports.feed import SharedConnection

TOO_LARGE, FAILED, RESTARTS, NOT_OURS, TOKEN, SLOW, TOO_MUCH = 1009, 1011, 1012, 4400, 4401, 4408, 4429
"""Close codes; PROTOCOL.md §5 defines after which of them a client reconnects."""

_FRAMES_AT_ONCE: Final = 2_000
_FRAMES_A_SECOND: Final = 100


class Closing(Exception):  # noqa: N818 - a way to end the connection, not an error
    """Raised to close the connection with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason


class FeedSocket(web.WebSocketResponse):
    """aiohttp's WebSocket, which writes nothing after its close frame.

    Args:
        keep_alive: Seconds between pings; a ping without an answer within half of them ends the connection.
        max_message_bytes: The largest message that is accepted.

    Attributes:
        goodbye_seconds: For the client to answer a close frame, before the connection is aborted.
    """

    goodbye_seconds: ClassVar[float] = 1.0

    connection: SharedConnection | None = None

    def __init__(self, keep_alive: float, max_message_bytes: int) -> None:
        super().__init__(
            timeout=self.goodbye_seconds,
            autoping=False,  # `Conversation` answers pings, so that they count as frames
            heartbeat=keep_alive,
            compress=False,
            max_msg_size=max_message_bytes + 1,  # aiohttp refuses messages of this size
        )

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Send a close frame; return once the client has answered or the time for that is over."""
        if self.connection is not None:
            self.connection.end()
        # Without draining: a client that reads nothing must not delay the close.
        return await super().close(code=code, message=message, drain=False)


class Allowance:
    """A rate limit on a client's frames: a number at once, and a number per second."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left: float = _FRAMES_AT_ONCE
        self._at = 0.0

    def take(self) -> None:
        """Count one frame.

        Raises:
            Closing: The client sends too fast.
        """
        now = asyncio.get_running_loop().time()
        self._left = min(_FRAMES_AT_ONCE, self._left + (now - self._at) * _FRAMES_A_SECOND) - 1
        self._at = now
        if self._left < 0:
            raise Closing(TOO_MUCH, f"expected at most {_FRAMES_A_SECOND} frames a second")
