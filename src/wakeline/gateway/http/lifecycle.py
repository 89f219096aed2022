"""Routes that create, close, delete, export and import a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET, UnsetType

from wakeline.errors import BodyInvalidError, NotAllowedError, SessionClosedError, SessionNotFoundError
from wakeline.events import SESSION_CLOSED, compose, timestamp
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields, stream_body
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import session_of
from wakeline.gateway.http.sessions import described
from wakeline.gateway.log import Append, NewSession
from wakeline.gateway.sessions import Importer, Retention, SessionConfig, decode_config, encode_config
from wakeline.gateway.transports.pieces import write_pieces

_NDJSON = "application/x-ndjson"


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    retention: Retention | UnsetType | None = UNSET


class LifecycleRoutes(Group):
    """Changes to `/v1/sessions/{session}` as a whole, for tokens that may `manage`."""

    @route("PUT", "/v1/sessions/{session}")
    async def create(self, request: web.Request) -> web.Response:
        """Create a session, or change its retention."""
        name, engine = _name(request), self._parts.engine
        retention = (await read_fields(request, _Wanted, '{"retention": …}', empty=b"{}")).retention
        given = SessionConfig(None if retention is UNSET else retention)
        state, created = await engine.create_session(NewSession(name, config=encode_config(given)))
        if not created and retention is not UNSET:
            changed = msgspec.structs.replace(decode_config(state.config), retention=retention)
            await engine.configure(name, epoch=state.epoch, config=encode_config(changed))
        return await self._answer(name, 201 if created else 200)

    @route("POST", "/v1/sessions/{session}/close")
    async def close(self, request: web.Request) -> web.Response:
        """Close a session for good; closing it again changes nothing."""
        name = _name(request)
        state = await self._parts.engine.found(name)
        last = compose(SESSION_CLOSED, b"{}", time=timestamp())
        with suppress(SessionClosedError):
            await self._parts.engine.append(Append(name, (last,), close=True, epoch=state.epoch))
        return await self._answer(name, 200)

    @route("DELETE", "/v1/sessions/{session}")
    async def delete(self, request: web.Request) -> web.Response:
        """Erase a session."""
        name = _name(request)
        if not await self._parts.deletions.delete(name):
            raise SessionNotFoundError(f"there is no session {name!r}")
        return web.Response(status=204, headers={hdrs.CACHE_CONTROL: "no-store"})

    @route("GET", "/v1/sessions/{session}/export", allow_head=False)
    async def export(self, request: web.Request) -> web.StreamResponse:
        """Return the session as a file. A file without its last line is incomplete."""
        name, grant = _name(request), request[GRANT]
        grant.check("read", name)
        if grant.topics is not None:
            raise NotAllowedError(
                "expected a token for all topics, because an export contains all of them, got one for some topics",
                hint="Read GET …/events, which returns the topics that the token allows.",
            )
        with self._parts.limits.connection(request, grant):
            async with aclosing(self._parts.archive.export(name)) as pages:
                # Before the answer begins, so that an error here has its own status; later ones only cut the answer.
                first = await anext(pages)
                response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: _NDJSON, hdrs.CACHE_CONTROL: "no-store"})
                timeout = self._parts.settings.write_timeout
                return await write_pieces(request, response, _after(first, pages), timeout=timeout)

    @route("POST", "/v1/sessions/{session}/import")
    async def load(self, request: web.Request) -> web.Response:
        """Create a session from a file, all of it or nothing."""
        name, grant = _name(request), request[GRANT]
        grant.check("publish", name)
        if request.content_type != _NDJSON:
            raise BodyInvalidError(f"expected Content-Type {_NDJSON}, got {request.content_type!r}")
        importer = Importer(grant.topics, "restore" in grant.allow, self._parts.settings.max_event_bytes)
        await self._parts.archive.load(name, stream_body(request), importer)
        return await self._answer(name, 201)

    async def _answer(self, name: str, status: int) -> web.Response:
        state = await self._parts.engine.found(name)
        return json_answer(await described(self._parts, state), status=status)


async def _after(first: bytes, pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in pages:
        yield page


def _name(request: web.Request) -> str:
    return session_of(request, "manage")[0]
