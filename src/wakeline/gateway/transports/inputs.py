"""Accepts inputs, by a request or in a frame of a feed, with the same checks."""

from __future__ import annotations

import msgspec
from aiohttp import web

from wakeline.errors import TemporalUnavailableError
from wakeline.events import check_session_name
from wakeline.gateway.access import Grant
from wakeline.gateway.inputs import Asked, Inputs
from wakeline.gateway.sessions import Settled
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import Source


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
    asked = msgspec.structs.replace(asked, wait=grant.within(asked.wait))
    settled = await inputs.send(session, asked, grant.user, rule)
    grant.check_signer()
    return settled


def outcome_frame(session: str, key: str, settled: Settled | None) -> frames.Outcome:
    """Return the frame that answers an input: its outcome, or that it is accepted."""
    if settled is None:
        return frames.Outcome(session, key, "accepted")
    data = msgspec.json.decode(settled.data, type=dict[str, msgspec.Raw])
    data.pop("id")
    return frames.Outcome(session, key, settled.status, **data)
