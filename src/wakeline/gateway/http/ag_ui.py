"""Routes of AG-UI's face: run an agent, and connect to what it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from wakeline.errors import SessionNotFoundError
from wakeline.events import Cursor, check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.delivery import Channel
from wakeline.gateway.http.bodies import read_body
from wakeline.gateway.http.faces import begun, check_readable, reading, speaking_rule, stopped, stream
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import last_event_id, until_never
from wakeline.gateway.transports.faces import Reader, Turn, answer, encoded_turn, idle_until, say
from wakeline.gateway.transports.faces.ag_ui import AgUiEvents, Asked, Run, empty_run


class AgUiRoutes(Group):
    """`/v1/ag-ui/{session}`."""

    @route("POST", "/v1/ag-ui/{session}")
    async def run(self, request: web.Request) -> web.StreamResponse:
        """Send a user's message, or the answers to interrupts, and stream the run."""
        name, grant, parts = check_session_name(request.match_info["session"]), request[GRANT], self._parts
        check_readable(grant, name)
        grant.check("input", name)
        asked = Asked.parse(await read_body(request))
        rule = speaking_rule(parts, name)
        if asked.message is not None:
            await say(parts, request, grant, name, rule, asked.message)
        elif asked.given:
            await answer(parts, parts.requests, request, grant, name, asked.given)
        run = Run(asked.thread, asked.run)
        with parts.limits.connection(request, grant):
            try:
                async with reading(parts, request, name, latest_only=False) as (channel, reader):
                    turn = reader.conversation.latest
                    if asked.message is not None:
                        turn = await begun(parts, request, reader, asked.message.key)
                    pieces = self._run(channel, reader, turn, run, joins=asked.message is None)
                    return await stream(parts, request, pieces)
            except SessionNotFoundError:
                return await stream(parts, request, _once(empty_run(run)))

    @route("GET", "/v1/ag-ui/{session}", "until lastEventId", allow_head=False)
    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Stream the thread so far, and the run that is open."""
        name, grant, parts = check_session_name(request.match_info["session"]), request[GRANT], self._parts
        check_readable(grant, name)
        goes_on, seen = until_never(request), last_event_id(request)
        with parts.limits.connection(request, grant):
            try:
                await parts.arrivals.at(name, grant)
                async with reading(parts, request, name, latest_only=False) as (channel, reader):
                    turn = reader.conversation.latest
                    is_idle = turn is None or not turn.is_running
                    if is_idle and not goes_on and seen == str(Cursor(channel.epoch, reader.offset)):
                        return web.Response(status=204)  # 204 makes an EventSource stop reconnecting
                    run = Run(name, name if turn is None else turn.id)
                    pieces = self._followed(channel, reader, turn, run) if goes_on else None
                    pieces = pieces or self._run(channel, reader, turn, run, joins=True)
                    return await stream(parts, request, pieces)
            except SessionNotFoundError:
                return await stream(parts, request, _once(empty_run(Run(name, name))))

    @route("POST", "/v1/ag-ui/{session}/stop")
    async def stop(self, request: web.Request) -> web.Response:
        """Stop the run, as the session's rule says."""
        return await stopped(self._parts, request)

    def _run(
        self, channel: Channel, reader: Reader, turn: Turn | None, run: Run, *, joins: bool
    ) -> AsyncIterator[bytes]:
        """Return a turn as one run."""
        if turn is None:
            return _once(empty_run(run))
        encoder = AgUiEvents(
            run,
            lambda: reader.conversation.turns,
            lambda: str(Cursor(channel.epoch, reader.offset)),
            snapshot=joins or bool(turn.parts),
            past=joins and not turn.is_running,
        )
        return encoded_turn(reader, turn, encoder, self._parts.settings.keep_alive)

    async def _followed(self, channel: Channel, reader: Reader, turn: Turn | None, run: Run) -> AsyncIterator[bytes]:
        """Yield the open turn, and those that follow until the session ends."""
        while True:
            async for piece in self._run(channel, reader, turn, run, joins=True):
                yield piece
            async for idle in idle_until(
                reader,
                partial(_goes_on_in, reader, turn),
                self._parts.settings.keep_alive,
            ):
                yield idle
            if channel.closed:
                return
            turn = reader.conversation.latest
            assert turn is not None
            run = Run(run.thread, turn.id)


async def _once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _goes_on_in(reader: Reader, before: Turn | None) -> bool:
    """Return whether there is a run to show after the one that was shown."""
    now = reader.conversation.latest
    return now is not None and (now is not before or (now.is_running and not now.is_waiting))
