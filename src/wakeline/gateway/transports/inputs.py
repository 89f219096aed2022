"""Accepts inputs, by a request or in a frame of a feed, with the same checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from aiohttp import web

from wakeline.background import begin, cancel_all
from wakeline.errors import InternalError, LimitReachedError, TemporalUnavailableError, WakelineError
from wakeline.events import check_session_name
from wakeline.gateway.access import Grant
from wakeline.gateway.inputs import Asked, Inputs
from wakeline.gateway.sessions import Settled
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import Source

_AT_ONCE: Final = 32

_log = structlog.get_logger(__name__)


def inputs_of(source: Source) -> Inputs:
    """Return the gateway's inputs.

    Raises:
        TemporalUnavailableError: It runs without Temporal.
    """
    if source.inputs is None:
        raise TemporalUnavailableError(
            "expected a gateway with Temporal, got one that runs without",
            hint="Start the gateway with --temporal HOST:PORT.",
        )
    return source.inputs


async def send_input(source: Source, request: web.Request, grant: Grant, session: str, asked: Asked) -> Settled | None:
    """Check an input, send it, and wait for its outcome.

    Args:
        source: The parts of the gateway.
        request: The request, or that of the WebSocket, for the limits of its caller.
        grant: The caller's permissions.
        session: The session's name.
        asked: The input.

    Returns:
        The outcome; None if there is none in time.

    Raises:
        WakelineError: The input is refused.
    """
    grant.check("input", check_session_name(session))
    asked.check()
    if asked.kind != "start":  # whose name is that of a rule
        grant.check_input(session, asked.permission)
    inputs = inputs_of(source)
    rule = inputs.check(session, asked, grant)
    source.limits.publish(request, grant, 1)
    settled = await inputs.send(session, asked, grant.user, rule)
    grant.check_signer()
    return settled


class FeedInputs:
    """The inputs of one feed that have no answer yet, each in a task of its own.

    Args:
        source: The parts of the gateway.
        request: The request of the feed's WebSocket.
        answer: Writes a frame; raises ConnectionError once the client has left.
    """

    __slots__ = ("_answer", "_request", "_source", "_tasks")

    def __init__(self, source: Source, request: web.Request, answer: Callable[[frames.ServerFrame], None]) -> None:
        self._source = source
        self._request = request
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, frame: frames.Input, grant: Grant) -> None:
        """Send an input, and answer with its outcome or an error once there is one.

        Raises:
            LimitReachedError: Too many are under way.
        """
        if len(self._tasks) >= _AT_ONCE:
            raise LimitReachedError(f"expected at most {_AT_ONCE} inputs of one feed under way", retry_after=1)
        begin(self._send(frame, grant), self._tasks)

    async def end(self) -> None:
        """Stop waiting for outcomes; inputs that were accepted go on."""
        await cancel_all(*self._tasks)

    async def _send(self, frame: frames.Input, grant: Grant) -> None:
        session, asked = frame.session, frame.input
        try:
            try:
                settled = await send_input(self._source, self._request, grant, session, asked)
                self._answer(_outcome(session, asked.id, settled))
            except WakelineError as error:
                self._answer(frames.error_frame(self._source.arrivals.explained(error, read=False), session, asked.id))
            except ConnectionError:
                raise
            except Exception:  # noqa: BLE001 - answers a defect in the same format as other errors
                _log.exception("an input failed", session=session)
                defect = InternalError("the server failed; this is a defect")
                self._answer(frames.error_frame(defect, session, asked.id))
        except ConnectionError:
            return


def _outcome(session: str, key: str, settled: Settled | None) -> frames.Outcome:
    if settled is None:
        return frames.Outcome(session, key, "accepted")
    data = msgspec.json.decode(settled.data, type=dict[str, msgspec.Raw])
    data.pop("id")
    return frames.Outcome(session, key, settled.status, **data)
