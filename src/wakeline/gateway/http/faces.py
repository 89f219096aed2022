"""Shared by the routes of all faces: a session's rule, and reading it as a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from wakeline.errors import OffsetGoneError, RequestInvalidError, SessionClosedError
from wakeline.events import RUN_CLOSED, RUN_STARTED, check_session_name
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.delivery import Channel
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.inputs import input_publisher
from wakeline.gateway.log import matches
from wakeline.gateway.transports.faces import STRUCTURE, Conversation, Face, Reader, Turn, stop
from wakeline.gateway.transports.pieces import write_pieces
from wakeline.gateway.transports.sse import HEADERS

# The pause between two checks whether the client of a request is still there.
_BEGUN_SECONDS: Final = 1.0


def rule_for(parts: Parts, session: str) -> Face:
    """Return the rule of a session; one that cannot send messages if the settings have none."""
    rules = parts.settings.faces.values()
    return next((rule for rule in rules if matches(rule.sessions, session)), Face())


def speaking_rule(parts: Parts, session: str) -> Face:
    """Return the rule by which a session's messages are sent.

    Raises:
        RequestInvalidError: The settings have none.
    """
    rule = rule_for(parts, session)
    if not rule.name:
        raise RequestInvalidError(
            f"expected a session that a rule for messages in the settings names, got {session[:64]!r}",
            hint="Add a table [faces.NAME] with kind and name to the gateway's settings whose sessions match.",
        )
    return rule


def check_readable(grant: Grant, session: str) -> None:
    """Raise unless the caller may read a session and the events that its turns are made of.

    Raises:
        NotAllowedError: The grant does not allow reading, or not these topics.
        SessionNotFoundError: It does not reach the session.
    """
    grant.check("read", session)
    for topic in (*STRUCTURE, RUN_STARTED, RUN_CLOSED):
        grant.check_topic(topic)


async def begun(parts: Parts, request: web.Request, reader: Reader, key: str) -> Turn:
    """Return the turn of a message that was sent, once its `$input.accepted` is in the log.

    Raises:
        SessionClosedError: The session was closed before the message was in it.
        OffsetGoneError: The message was sent earlier, and retention has removed it.
        RequestInvalidError: The client has left.
    """
    while (turn := reader.conversation.find(key)) is None:
        if reader.is_at_end:
            raise SessionClosedError("the session was closed before the message was in it")
        if request.transport is None or request.transport.is_closing():
            raise RequestInvalidError("expected a client that waits for its answer, got one that has left")
        state = await parts.engine.state(reader.session, publisher=input_publisher(key))
        if state is not None and state.position is not None and reader.offset >= state.next_offset:
            raise OffsetGoneError(
                "expected a message that is kept, got one that was sent earlier and that retention has removed",
                hint="Load the messages again, and send a new one.",
            )
        await reader.more(_BEGUN_SECONDS)
    return turn


@asynccontextmanager
async def reading(
    parts: Parts, request: web.Request, session: str, *, latest_only: bool = True, kept: str | None = None
) -> AsyncIterator[tuple[Channel, Reader]]:
    """Yield a session's channel, and a reader with all that the session has so far.

    Args:
        parts: The gateway.
        request: The request.
        session: The session's name.
        latest_only: Keep the parts of turns that run only.
        kept: The id of a turn that is kept all the same.

    Raises:
        SessionNotFoundError: There is no such session.
    """
    conversation = Conversation(rule_for(parts, session), latest_only=latest_only, kept=kept)
    async with parts.hub.attach(session) as channel:
        reader = Reader(channel, conversation, request[GRANT].topics)
        await reader.open(parts.compacts)
        yield channel, reader


async def stream(
    parts: Parts, request: web.Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str] = HEADERS
) -> web.StreamResponse:
    """Answer with a stream that ends when the server stops."""
    parts.metrics.connections.inc()
    response, timeout = web.StreamResponse(headers=headers), parts.settings.write_timeout
    return await parts.lasting.serve(write_pieces(request, response, pieces, timeout=timeout))


async def stopped(parts: Parts, request: web.Request) -> web.Response:
    """Stop what runs in the request's session, as its rule says, and answer with the outcome."""
    name = check_session_name(request.match_info["session"])
    settled = await stop(parts, request, request[GRANT], name, rule_for(parts, name))
    if settled is None:
        return json_answer({"status": "accepted"}, status=202)
    return json_answer({"status": settled.status})
