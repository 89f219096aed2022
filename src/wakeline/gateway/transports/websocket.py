"""The feed as a WebSocket: the client subscribes to sessions and leaves them while it runs. PROTOCOL.md §5."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from aiohttp import WSMessage, WSMsgType, web

from wakeline.errors import (
    InternalError,
    LimitReachedError,
    RequestInvalidError,
    TokenInvalidError,
    WakelineError,
)
from wakeline.events import check_session_name, timestamp
from wakeline.gateway.grants import NOBODY, Grant
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import SharedConnection, Source
from wakeline.gateway.transports.feed_socket import (
    FAILED,
    NOT_OURS,
    SLOW,
    TOKEN,
    TOO_MUCH,
    Allowance,
    Closing,
    FeedSocket,
)
from wakeline.gateway.transports.sse import give_up_on_silence
from wakeline.gateway.transports.subscription import Subscription

TOKEN_SECONDS: Final = 10.0
"""Within which a client that came without a token must send one."""

_ACKS_AT_ONCE: Final = 32
_OVER: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

_log = structlog.get_logger(__name__)


class FeedConnection:
    """One WebSocket, from handshake to close.

    Args:
        request: The request for the upgrade.
        source: What it asks of the gateway.
        grant: What the client may.
        name: The id of its device, if it has one.
    """

    __slots__ = (
        "_acks", "_allowance", "_connection", "_grant", "_held", "_lifetime", "_name", "_request", "_socket", "_source",
        "_subscriptions", "_verdict",
    )  # fmt: skip

    def __init__(self, request: web.Request, source: Source, grant: Grant, name: str | None) -> None:
        self._request = request
        self._source = source
        self._grant = grant
        self._name = name
        self._socket = FeedSocket(source.keep_alive)
        self._subscriptions: dict[str, Subscription] = {}
        self._acks: list[asyncio.Task[None]] = []
        self._allowance = Allowance()
        self._lifetime: asyncio.Timeout | None = None
        self._verdict: Closing | None = None
        self._held: list[AbstractContextManager[None]] = []

    async def serve(self) -> web.WebSocketResponse:
        """Talk with the client until one of the two closes.

        Raises:
            RequestInvalidError: The handshake is not one.
        """
        if not self._socket.can_prepare(self._request):
            raise RequestInvalidError("expected a WebSocket handshake of version 13 with a Sec-WebSocket-Key")
        try:
            await self._socket.prepare(self._request)
            self._connection = self._socket.connection = SharedConnection(self._request, self._source.timeout)
            self._socket.headers.clear()  # they were sent
        except ConnectionError:
            return self._socket  # the client has left already
        give_up_on_silence(self._request, self._source.timeout)
        try:
            closing = await self._until_closed()
            if closing is not None and not self._socket.closed:
                await self._socket.close(code=closing.code, message=closing.reason.encode()[:120])
        finally:
            for held in self._held:
                held.__exit__(None, None, None)
            self._connection.end()
            await self._leave_all()
            self._connection.abort()
        return self._socket

    def stop(self, code: int, reason: str) -> None:
        """Have the connection closed; the first one who says so names the code."""
        if self._verdict is None:
            self._verdict = Closing(code, reason)
            if self._lifetime is not None:
                self._lifetime.reschedule(0)

    async def _until_closed(self) -> Closing | None:
        """Take frames until the client closes, or there is a reason to close."""
        try:
            async with asyncio.timeout_at(0 if self._verdict else self._ends_at()) as self._lifetime:
                self._hold(self._source.limits.address(self._request))
                if self._grant is not NOBODY:
                    self._hold(self._source.limits.user(self._grant))
                self._answer(frames.Ready(_rfc3339(self._grant.expires)))
                while (message := await self._socket.receive()).type not in _OVER:
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
        except Exception:  # noqa: BLE001 - a defect ends this connection, not its neighbours
            _log.exception("a feed failed")
            return Closing(FAILED, "the server failed; this is a defect")
        finally:
            self._verdict = self._verdict or Closing(1000, "")
        return None

    def _ends_at(self) -> float | None:
        """When the connection ends by itself, by the loop's clock."""
        left = TOKEN_SECONDS if self._grant is NOBODY else self._grant.seconds_left()
        return None if left is None else asyncio.get_running_loop().time() + left

    def _hold(self, counted: AbstractContextManager[None]) -> None:
        """Be counted for as long as the connection lasts.

        Raises:
            LimitReachedError: There are as many as may be.
        """
        counted.__enter__()
        self._held.append(counted)

    async def _take(self, message: WSMessage) -> None:
        """Serve one message, and wait until the client has taken its answer."""
        self._allowance.take()
        if message.type is WSMsgType.PING:
            self._connection.write(frames.pong(message.data))
        elif message.type is WSMsgType.TEXT:
            await self._serve(message.data)
        elif message.type is WSMsgType.BINARY:
            raise Closing(NOT_OURS, "expected a text frame, got a binary one")
        await self._connection.drained()

    async def _serve(self, text: str) -> None:
        """Serve one frame."""
        try:
            kind = _kind.decode(text).type
        except (msgspec.DecodeError, RecursionError):
            raise Closing(NOT_OURS, 'expected a JSON object with a "type"') from None
        if kind not in _SERVED:
            raise Closing(NOT_OURS, f"expected one of {', '.join(_SERVED)}, got {kind[:20]!a}")
        if self._grant is NOBODY and kind != "token":
            raise Closing(TOKEN, f"expected a token first, got {kind}")
        decoder, serve = _SERVED[kind]
        session: str | None = None
        try:
            frame = decoder.decode(text)
            session = getattr(frame, "session", None)
            await serve(self, frame)
        except (msgspec.DecodeError, RecursionError) as error:
            self._answer(frames.error_frame(RequestInvalidError(f"expected a {kind} frame, got: {error}")))
        except WakelineError as error:
            self._answer(frames.error_frame(error, session))

    async def _ping(self, frame: frames.Ping) -> None:
        self._answer(frames.Pong(frame.data))

    async def _token(self, frame: frames.Token) -> None:
        grant = await self._source.verify(frame.token)
        if self._grant is NOBODY:
            try:
                self._hold(self._source.limits.user(grant))
            except LimitReachedError as error:
                raise Closing(TOO_MUCH, error.message) from None
        elif grant.user != self._grant.user:
            raise TokenInvalidError("expected a token of the same user: the claim sub is another")
        self._grant = grant
        if self._verdict is None and self._lifetime is not None:
            self._lifetime.reschedule(self._ends_at())
        self._answer(frames.TokenTaken(_rfc3339(grant.expires)))
        for session, subscription in list(self._subscriptions.items()):
            try:
                subscription.check(grant)
            except WakelineError as error:
                await self._leave(session, subscription)
                for told in subscription.last(error):
                    self._answer(told)

    async def _subscribe(self, frame: frames.Subscribe) -> None:
        name = check_session_name(frame.session)
        if name in self._subscriptions:
            raise RequestInvalidError("expected a session that is not subscribed yet; unsubscribe it first")
        self._source.limits.subscribe(len(self._subscriptions))
        subscription = Subscription(self._source, self._connection, self._grant, self._name, frame)
        self._subscriptions[name] = subscription
        subscription.task = asyncio.create_task(self._run(name, subscription))

    async def _run(self, session: str, subscription: Subscription) -> None:
        try:
            last = await subscription.run()
            if self._subscriptions.get(session) is subscription:
                del self._subscriptions[session]
                for frame in last:
                    self._answer(frame)
        except ConnectionAbortedError as error:
            self.stop(SLOW, str(error))
        except ConnectionError:
            return  # the client has left; the connection's own task learns of it

    async def _unsubscribe(self, frame: frames.Unsubscribe) -> None:
        subscription = self._subscriptions.get(frame.session)
        if subscription is None:
            raise RequestInvalidError("expected a session that is subscribed")
        await self._leave(frame.session, subscription)
        self._answer(frames.Unsubscribed(frame.session, subscription.cursor))

    async def _leave(self, session: str, subscription: Subscription) -> None:
        """End a subscription; nothing of it is written after this."""
        del self._subscriptions[session]
        subscription.task.cancel()
        await asyncio.wait((subscription.task,))

    async def _ack(self, frame: frames.Ack) -> None:
        self._grant.check("ack", frame.session)
        if self._name is None:
            raise RequestInvalidError("expected ?device= in the URL of a feed that acknowledges")
        if len(self._acks) >= _ACKS_AT_ONCE:
            await asyncio.wait(self._acks, return_when=asyncio.FIRST_COMPLETED)
        # Many at a time, so that they become durable together.
        task = asyncio.create_task(self._acknowledge(frame, self._grant.user, self._name))
        self._acks.append(task)
        task.add_done_callback(self._acks.remove)

    async def _acknowledge(self, frame: frames.Ack, user: str, name: str) -> None:
        session, answer = frame.session, self._answer
        try:
            try:
                position = await self._source.positions.acknowledge(
                    session, user, name, frame.seen, everywhere=frame.everywhere
                )
                answer(frames.Acked(session, position.seen or frame.seen))
            except WakelineError as error:
                answer(frames.error_frame(error, session))
            except ConnectionError:
                raise
            except Exception:  # noqa: BLE001 - a defect is answered in the one shape too
                _log.exception("an acknowledgement failed", session=session)
                answer(frames.error_frame(InternalError("the server failed; this is a defect"), session))
        except ConnectionError:
            return

    def _answer(self, frame: frames.ServerFrame) -> None:
        self._connection.write(frames.encode(frame))

    async def _leave_all(self) -> None:
        tasks = [*self._acks, *(subscription.task for subscription in self._subscriptions.values())]
        self._subscriptions.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Kind(msgspec.Struct):
    type: str


_kind = msgspec.json.Decoder(_Kind)
_Serve = Callable[[FeedConnection, Any], Awaitable[None]]
_SERVED: Final[dict[str, tuple[msgspec.json.Decoder[Any], _Serve]]] = {
    "subscribe": (msgspec.json.Decoder(frames.Subscribe), FeedConnection._subscribe),
    "unsubscribe": (msgspec.json.Decoder(frames.Unsubscribe), FeedConnection._unsubscribe),
    "ack": (msgspec.json.Decoder(frames.Ack), FeedConnection._ack),
    "token": (msgspec.json.Decoder(frames.Token), FeedConnection._token),
    "ping": (msgspec.json.Decoder(frames.Ping), FeedConnection._ping),
}


def _rfc3339(moment: float | None) -> str | None:
    return None if moment is None else timestamp(datetime.fromtimestamp(moment, UTC))
