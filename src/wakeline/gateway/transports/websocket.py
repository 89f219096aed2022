"""The feed as a WebSocket, on which the client subscribes to sessions (PROTOCOL.md §5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from aiohttp import WSMessage, web

from wakeline.background import cancel_all
from wakeline.errors import InternalError, LimitReachedError, RequestInvalidError, WakelineError
from wakeline.events import check_session_name
from wakeline.gateway.access import NOBODY, Grant
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports import inputs
from wakeline.gateway.transports.conversation import SETTLE_SECONDS, Conversation
from wakeline.gateway.transports.feed import Source
from wakeline.gateway.transports.feed_socket import NOT_OURS, SLOW, TOKEN, Allowance, Closing
from wakeline.gateway.transports.subscription import Subscription
from wakeline.text import whole_json

_ACKS_AT_ONCE: Final = 32
_INPUTS_AT_ONCE: Final = 32

_log = structlog.get_logger(__name__)


class FeedConnection(Conversation):
    """One feed.

    Args:
        request: The request for the upgrade.
        source: The parts of the gateway that the feed uses.
        grant: The client's permissions.
        name: The id of its device, if it has one.
    """

    __slots__ = ("_acks", "_allowance", "_inputs", "_name", "_subscriptions")

    def __init__(self, request: web.Request, source: Source, grant: Grant, name: str | None) -> None:
        super().__init__(request, source, grant)
        self._name = name
        self._subscriptions: dict[str, Subscription] = {}
        self._acks: list[asyncio.Task[None]] = []
        self._inputs: list[asyncio.Task[None]] = []
        self._allowance = Allowance()

    async def _take(self, message: WSMessage) -> None:
        self._allowance.take()
        await super()._take(message)

    async def _serve(self, text: str) -> None:
        """Handle one frame."""
        try:
            kind, data = _kind.decode(text).type, text
        except (msgspec.DecodeError, RecursionError):
            try:
                data = whole_json(text.encode()).decode()
                kind = _kind.decode(data).type
            except (msgspec.DecodeError, RecursionError):
                raise Closing(NOT_OURS, 'expected a JSON object with a "type"') from None
        if kind not in _SERVED:
            raise Closing(NOT_OURS, f"expected one of {', '.join(_SERVED)}, got {kind[:20]!a}")
        if self._grant is NOBODY and kind != "token":
            raise Closing(TOKEN, f"expected a token first, got {kind}")
        decoder, serve = _SERVED[kind]
        session = key = None
        try:
            frame = decoder.decode(data)
            session = getattr(frame, "session", None)
            key = frame.input.id if isinstance(frame, frames.Input) else None
            await serve(self, frame)
        except (msgspec.DecodeError, RecursionError) as error:
            self._answer(frames.error_frame(RequestInvalidError(f"expected a {kind} frame, got: {error}")))
        except WakelineError as error:
            self._answer(frames.error_frame(self._source.arrivals.explained(error, read=False), session, key))

    async def _regrant(self, grant: Grant) -> None:
        for session, subscription in list(self._subscriptions.items()):
            if self._subscriptions.get(session) is not subscription:
                continue  # it ended by itself while another one was ended here
            try:
                subscription.check(grant)
            except WakelineError as error:
                await self._leave(session, subscription)
                for frame in subscription.last(error):
                    self._answer(frame)

    async def _subscribe(self, frame: frames.Subscribe) -> None:
        name = check_session_name(frame.session)
        if name in self._subscriptions:
            raise RequestInvalidError("expected a session that is not subscribed yet; unsubscribe from it first")
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
            return  # the client has disconnected; the connection's own task notices it

    async def _unsubscribe(self, frame: frames.Unsubscribe) -> None:
        subscription = self._subscriptions.get(frame.session)
        if subscription is None:
            raise RequestInvalidError("expected a session that is subscribed")
        await self._leave(frame.session, subscription)
        self._answer(frames.Unsubscribed(frame.session, subscription.cursor))

    async def _leave(self, session: str, subscription: Subscription) -> None:
        """End a subscription; nothing of it is written after this returns."""
        del self._subscriptions[session]
        await cancel_all(subscription.task)

    async def _ack(self, frame: frames.Ack) -> None:
        self._grant.check("ack", frame.session)
        if self._name is None:
            raise RequestInvalidError("expected ?device= in the URL of a feed that acknowledges, got none")
        if len(self._acks) >= _ACKS_AT_ONCE:
            await asyncio.wait(self._acks, return_when=asyncio.FIRST_COMPLETED)
        # Several at a time, so that one write makes them durable.
        self._answer_later(self._acknowledged(frame, self._grant.user, self._name), self._acks, frame.session)

    async def _acknowledged(self, frame: frames.Ack, user: str, name: str) -> frames.ServerFrame:
        session, positions = frame.session, self._source.positions
        position = await positions.acknowledge(session, user, name, frame.seen, everywhere=frame.everywhere)
        return frames.Acked(session, position.seen or frame.seen)

    async def _input(self, frame: frames.Input) -> None:
        if len(self._inputs) >= _INPUTS_AT_ONCE:
            raise LimitReachedError(f"expected at most {_INPUTS_AT_ONCE} inputs of one feed under way", retry_after=1)
        self._answer_later(self._outcome(frame, self._grant), self._inputs, frame.session, frame.input.id)

    async def _outcome(self, frame: frames.Input, grant: Grant) -> frames.ServerFrame:
        settled = await inputs.send_input(self._source, self._request, grant, frame.session, frame.input)
        return inputs.outcome_frame(frame.session, frame.input.id, settled)

    def _answer_later(
        self, work: Awaitable[frames.ServerFrame], tasks: list[asyncio.Task[None]], session: str, key: str | None = None
    ) -> None:
        task = asyncio.create_task(self._answer_with(work, session, key))
        tasks.append(task)
        task.add_done_callback(tasks.remove)

    async def _answer_with(self, work: Awaitable[frames.ServerFrame], session: str, key: str | None) -> None:
        """Answer a frame with the outcome of its work, or with the error that the work raises."""
        try:
            answer = await work
        except WakelineError as error:
            answer = frames.error_frame(self._source.arrivals.explained(error, read=False), session, key)
        except Exception:  # noqa: BLE001 - answers a defect in the same format as other errors
            _log.exception("a frame failed", session=session)
            answer = frames.error_frame(InternalError("the server failed; this is a defect"), session, key)
        with suppress(ConnectionError):  # the client has disconnected
            self._answer(answer)

    async def _settle(self) -> None:
        if self._acks:
            await asyncio.wait(self._acks, timeout=SETTLE_SECONDS)

    async def _end(self) -> None:
        tasks = [subscription.task for subscription in self._subscriptions.values()]
        self._subscriptions.clear()
        await cancel_all(*self._inputs, *self._acks, *tasks)  # inputs that were accepted go on


class _Kind(msgspec.Struct):
    type: str


_kind = msgspec.json.Decoder(_Kind)
_Serve = Callable[[FeedConnection, Any], Awaitable[None]]
_SERVED: Final[dict[str, tuple[msgspec.json.Decoder[Any], _Serve]]] = {
    "subscribe": (msgspec.json.Decoder(frames.Subscribe), FeedConnection._subscribe),
    "unsubscribe": (msgspec.json.Decoder(frames.Unsubscribe), FeedConnection._unsubscribe),
    "input": (msgspec.json.Decoder(frames.Input), FeedConnection._input),
    "ack": (msgspec.json.Decoder(frames.Ack), FeedConnection._ack),
    "token": (msgspec.json.Decoder(frames.Token), FeedConnection._token),
    "ping": (msgspec.json.Decoder(frames.Ping), FeedConnection._ping),
}
