"""A WebSocket from handshake to close: authentication and time limits (PROTOCOL.md §5)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Final

import structlog
from aiohttp import WSMessage, WSMsgType, web

from wakeline.errors import LimitReachedError, RequestInvalidError, TokenInvalidError, UnavailableError, WakelineError
from wakeline.events import timestamp
from wakeline.gateway.access import NOBODY, Grant, HttpConnection, Signer
from wakeline.gateway.runtime import forget_steps, listen_steps
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import SharedConnection, Source
from wakeline.gateway.transports.feed_socket import (
    FAILED,
    NOT_OURS,
    RESTARTS,
    SLOW,
    TOKEN,
    TOO_LARGE,
    TOO_MUCH,
    Closing,
    FeedSocket,
)
from wakeline.gateway.transports.sse import give_up_on_silence

SETTLE_SECONDS: Final = 5.0
TOKEN_SECONDS: Final = 10.0
"""Seconds in which a client that connected without a token must send one."""

_FRAMING_BYTES: Final = 64  # room for the framing of one message, and for a ping or two before it

_OVER: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

_log = structlog.get_logger(__name__)


class Conversation(ABC):
    """One WebSocket, from handshake to close.

    `_until_closed` runs in the request's own task and alone reads from the client. Other tasks end the connection by
    `stop`, which makes that task's timeout expire.

    Args:
        request: The request for the upgrade.
        source: The parts of the gateway.
        grant: The client's permissions.
        max_message_bytes: The largest message that is accepted.
    """

    __slots__ = (
        *("_connection", "_gate", "_grant", "_held", "_lifetime", "_overflow"),
        *("_refusal", "_request", "_signer", "_socket", "_source", "_verdict"),
    )

    def __init__(
        self, request: web.Request, source: Source, grant: Grant, max_message_bytes: int = frames.MAX_FRAME_BYTES
    ) -> None:
        self._request = request
        self._source = source
        self._grant = grant
        self._socket = FeedSocket(source.settings.keep_alive, max_message_bytes)
        self._lifetime: asyncio.Timeout | None = None
        self._verdict: Closing | None = None
        self._signer: Signer | None = None
        self._held: list[AbstractContextManager[None]] = []
        self._refusal: Closing | None = None
        self._gate: HttpConnection | None = None
        self._overflow: asyncio.Future[None] | None = None

    @abstractmethod
    async def _serve(self, text: str) -> None:
        """Handle one message."""

    @abstractmethod
    async def _end(self) -> None:
        """End the conversation's tasks; the client can receive nothing more."""

    @abstractmethod
    async def _settle(self) -> None:
        """Answer the writes under way, before the close frame of a gateway that stops."""

    @abstractmethod
    async def _regrant(self, grant: Grant) -> None:
        """Apply a new token: end what it does not allow."""

    async def serve(self) -> web.WebSocketResponse:
        """Exchange messages with the client until either side closes.

        Raises:
            RequestInvalidError: The request is not a valid handshake.
        """
        if not self._socket.can_prepare(self._request):
            raise RequestInvalidError(
                "expected a WebSocket handshake of version 13 with a Sec-WebSocket-Key",
                hint="If a client opened a WebSocket, have each proxy in between pass on Upgrade and Connection.",
            )
        try:
            gate = self._request.protocol
            if self._grant is NOBODY and isinstance(gate, HttpConnection):
                self._gate, self._overflow = gate, gate.take_at_most(frames.MAX_FIRST_BYTES + _FRAMING_BYTES)
            await self._socket.prepare(self._request)
            self._connection = self._socket.connection = SharedConnection(
                self._request, self._source.settings.write_timeout
            )
            self._socket.headers.clear()  # they were sent, and would stay in memory with the connection
        except ConnectionError:
            return self._socket  # the client has disconnected already
        # The kernel counts a client that reads nothing as silent, too. It must not reset the connection while the client
        # may still read our close frame.
        give_up_on_silence(self._request, self._source.settings.write_timeout + self._socket.goodbye_seconds)
        self._watch_signer(self._grant)
        listen_steps(self._clock_set)
        try:
            closing = await self._until_closed()
            if closing is not None and closing.code == RESTARTS:
                await self._settle()
            if closing is not None and not self._socket.closed:
                await self._socket.close(code=closing.code, message=closing.reason.encode()[:120])
        finally:
            self._watch_signer(NOBODY)
            forget_steps(self._clock_set)
            for held in self._held:
                held.__exit__(None, None, None)
            self._connection.end()
            await self._end()
            self._connection.abort()
        return self._socket

    def stop(self, code: int, reason: str) -> None:
        """Close the connection; the first call determines the code."""
        if self._verdict is None:
            self._verdict = Closing(code, reason)
            if self._lifetime is not None and not self._lifetime.expired():  # if expired, it is ending already
                self._lifetime.reschedule(0)

    async def _until_closed(self) -> Closing | None:
        """Handle messages until one side closes; return the reason if it is the gateway."""
        try:
            async with asyncio.timeout_at(0 if self._verdict else self._ends_at()) as self._lifetime:
                self._hold(self._source.limits.address(self._request))
                if self._grant is not NOBODY:
                    self._hold(self._source.limits.user(self._grant))
                self._answer(frames.Ready(_rfc3339(self._grant.expires)))
                while (message := await self._receive()).type not in _OVER:
                    await self._take(message)
        except TimeoutError:
            return self._verdict or Closing(TOKEN, "expected a token in time")
        except LimitReachedError as error:
            return Closing(TOO_MUCH, error.message)
        except Closing as closing:
            return closing
        except ConnectionAbortedError as error:
            return Closing(SLOW, str(error))
        except ConnectionError:
            return None
        except Exception:  # noqa: BLE001 - a defect ends this connection and no others
            _log.exception("a WebSocket failed")
            return Closing(FAILED, "the server failed; this is a defect")
        finally:
            self._verdict = self._verdict or Closing(1000, "")
        return None

    async def _receive(self) -> WSMessage:
        """Return the client's next message; before authentication, only a small one.

        Raises:
            Closing: The message is too large.
        """
        if self._grant is not NOBODY or self._overflow is None:
            return await self._socket.receive()
        receiving = asyncio.ensure_future(self._socket.receive())
        try:
            await asyncio.wait((receiving, self._overflow), return_when=asyncio.FIRST_COMPLETED)
            for _ in range(2):  # a message that arrived together with the overflow is delivered first
                await asyncio.sleep(0)
            if not receiving.done():  # all permitted bytes were read without completing a message
                raise _too_large()
        except BaseException:
            receiving.cancel()
            await asyncio.wait((receiving,))
            raise
        message = receiving.result()
        if message.type is WSMsgType.TEXT and len(message.data) > frames.MAX_FIRST_BYTES:
            raise _too_large()
        return message

    def _watch_signer(self, grant: Grant) -> None:
        """End the connection when this grant's key is withdrawn; ignore the previous grant's key."""
        if self._signer is not None:
            self._signer.forget(self._withdrawn)
        self._signer = grant.signer
        if self._signer is not None:
            self._signer.listen(self._withdrawn)

    def _withdrawn(self) -> None:
        self.stop(TOKEN, "the key that the token was signed with was withdrawn")

    def _clock_set(self) -> None:
        """Reschedule the token's end, because the wall clock was set."""
        lifetime = self._lifetime
        if self._verdict is None and self._grant is not NOBODY and lifetime is not None and not lifetime.expired():
            lifetime.reschedule(self._ends_at())

    def _ends_at(self) -> float | None:
        """Return the loop time at which the connection ends without a new token; None for never."""
        left = TOKEN_SECONDS if self._grant is NOBODY else self._grant.seconds_left()
        return None if left is None else asyncio.get_running_loop().time() + left

    def _hold(self, counted: AbstractContextManager[None]) -> None:
        """Count the connection against a limit for as long as it lasts.

        Raises:
            LimitReachedError: The limit is reached.
        """
        counted.__enter__()
        self._held.append(counted)

    async def _take(self, message: WSMessage) -> None:
        """Handle one message, then wait until the client has accepted enough of the answers."""
        if message.type is WSMsgType.PING:
            self._connection.write(frames.pong(message.data))
        elif message.type is WSMsgType.TEXT:
            await self._serve(message.data)
            if self._refusal is not None:
                await asyncio.sleep(0)  # lets the outbox flush, so that the client sees the answer before the close
                raise self._refusal
        elif message.type is WSMsgType.BINARY:
            raise Closing(NOT_OURS, "expected a text frame, got a binary one")
        await self._connection.drained()

    async def _ping(self, frame: frames.Ping) -> None:
        self._answer(frames.Pong(frame.data))

    async def _token(self, frame: frames.Token) -> None:
        if self._grant is NOBODY:
            try:
                grant = await self._source.auth.verify(frame.token)
                self._hold(self._source.limits.user(grant))
            except LimitReachedError as error:
                raise Closing(TOO_MUCH, error.message) from None
            except WakelineError as error:
                # Only one attempt: checking a token costs more than sending it.
                self._refusal = Closing(FAILED if isinstance(error, UnavailableError) else TOKEN, error.message)
                raise
            if self._gate is not None:
                self._gate.take_all()
        elif (grant := await self._source.auth.verify(frame.token)).user != self._grant.user:
            raise TokenInvalidError(
                "expected a token of the same user, got one with another claim sub",
                hint="Open another connection for another user.",
            )
        self._grant = grant
        self._watch_signer(grant)
        if self._verdict is None and self._lifetime is not None:
            self._lifetime.reschedule(self._ends_at())
        self._answer(frames.TokenTaken(_rfc3339(grant.expires)))
        await self._regrant(grant)

    def _answer(self, frame: frames.ServerFrame) -> None:
        self._connection.write(frames.encode(frame))


def _too_large() -> Closing:
    return Closing(TOO_LARGE, f"expected a first message of at most {frames.MAX_FIRST_BYTES} bytes, with a token")


def _rfc3339(moment: float | None) -> str | None:
    return None if moment is None else timestamp(moment)
