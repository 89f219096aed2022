"""Routes of the AI SDK's face: send a message and stream its answer, resume, load, stop."""

from __future__ import annotations

from aiohttp import web

from wakeline.errors import RequestInvalidError, SessionNotFoundError
from wakeline.events import check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_body
from wakeline.gateway.http.faces import begun, check_readable, reading, speaking_rule, stopped, stream
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer
from wakeline.gateway.transports.faces import Reader, Turn, answer, encoded_turn, say
from wakeline.gateway.transports.faces.ai_sdk import HEADERS, Asked, UiMessageStream, ui_messages


class AiSdkRoutes(Group):
    """`/v1/ai`."""

    @route("POST", "/v1/ai", "sdk")
    async def send(self, request: web.Request) -> web.StreamResponse:
        """Send a user's message, or the answers to requests, and stream what the run answers."""
        version, parts, grant = _version(request), self._parts, request[GRANT]
        grant.check("input")  # before the body, which names the session
        asked = Asked.parse(await read_body(request))
        name = check_session_name(asked.session)
        rule = speaking_rule(parts, name)
        check_readable(grant, name)
        grant.check("input", name)
        if asked.message is not None:
            await say(parts, request, grant, name, rule, asked.message)
        else:
            await answer(parts, parts.requests, request, grant, name, asked.given)
        encoder = UiMessageStream(version=version, steps=asked.steps, texts=asked.texts)
        wanted = asked.answered if asked.message is None else asked.message.key
        with parts.limits.connection(request, grant):
            # A message that is sent again may be an earlier one.
            async with reading(parts, request, name, kept=wanted) as (_, reader):
                turn = reader.conversation.find(wanted or "")
                if turn is None and asked.message is not None:
                    turn = await begun(parts, request, reader, asked.message.key)
                turn = turn or reader.conversation.latest
                if turn is None:
                    raise RequestInvalidError(
                        "expected the last message to be the user's, or an answer of this session, got neither"
                    )
                return await self._stream(request, reader, turn, encoder)

    @route("GET", "/v1/ai/{session}/stream", "sdk turn", allow_head=False)
    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Stream the answer that runs, or that `turn` names, from its beginning; 204 without one."""
        name, grant, version = check_session_name(request.match_info["session"]), request[GRANT], _version(request)
        check_readable(grant, name)
        named = request.query.get("turn")
        with self._parts.limits.connection(request, grant):
            try:
                await self._parts.arrivals.at(name, grant)
                async with reading(self._parts, request, name, kept=named) as (_, reader):
                    turn = reader.conversation.latest if named is None else reader.conversation.find(named)
                    if turn is None or (named is None and not turn.is_running):
                        return web.Response(status=204)
                    encoder = UiMessageStream(version=version)
                    return await self._stream(request, reader, turn, encoder)
            except SessionNotFoundError:
                return web.Response(status=204)  # a chat that has not begun

    @route("GET", "/v1/ai/{session}/messages")
    async def messages(self, request: web.Request) -> web.Response:
        """Return the chat's messages up to the answer that runs, and its turn."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        check_readable(grant, name)
        try:
            await self._parts.arrivals.at(name, grant)
            async with reading(self._parts, request, name, latest_only=False) as (_, reader):
                latest = reader.conversation.latest
                running = latest.id if latest is not None and latest.is_running else None
                return json_answer({"messages": ui_messages(reader.conversation.turns), "running": running})
        except SessionNotFoundError:
            return json_answer({"messages": [], "running": None})

    @route("POST", "/v1/ai/{session}/stop")
    async def stop(self, request: web.Request) -> web.Response:
        """Stop the run, as the session's rule says."""
        return await stopped(self._parts, request)

    async def _stream(
        self, request: web.Request, reader: Reader, turn: Turn, encoder: UiMessageStream
    ) -> web.StreamResponse:
        pieces = encoded_turn(reader, turn, encoder, self._parts.settings.keep_alive)
        return await stream(self._parts, request, pieces, HEADERS)


def _version(request: web.Request) -> int:
    """Return the major version of `ai` that the client has."""
    return integer(request, "sdk", 7, 6, 7)
