"""Sessions and their runs: what there is, and how it stands."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from wakeline.errors import BodyInvalidError, SessionNotFoundError, TemporalUnavailableError
from wakeline.events import Cursor, check_session_name
from wakeline.gateway import config
from wakeline.gateway.grants import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.parameters import integer
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.log import SessionState
from wakeline.gateway.runs import Followed, Run


class _Registration(msgspec.Struct, forbid_unknown_fields=True):
    workflow_id: str
    session: str | None = None
    namespace: str | None = None
    result: bool = False


class SessionRoutes:
    """`/v1/sessions` and `/v1/runs`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """The group's routes."""
        return [
            web.get("/v1/sessions/{session}", self.session),
            web.get("/v1/sessions", self.sessions),
            web.post("/v1/runs", self.register),
        ]

    async def session(self, request: web.Request) -> web.Response:
        """One session's state."""
        name = check_session_name(request.match_info["session"])
        request[GRANT].check("read", name)
        engine = self._parts.engine
        state = await engine.state(name)
        if state is None:
            await self._parts.arrivals.at(name, request[GRANT])
            state = await engine.state(name)
        if state is None:
            raise SessionNotFoundError(f"there is no session {name!r}")
        return json_answer(await described(self._parts, state))

    async def sessions(self, request: web.Request) -> web.Response:
        """A page of sessions, by name."""
        grant = request[GRANT]
        grant.check("read")
        limit = integer(request, "limit", 100, 1, 1000)
        found: list[SessionState] = []
        after, more = request.query.get("after", ""), True
        while more and len(found) < limit:
            states = await self._parts.engine.sessions(after=after, limit=limit)
            more = len(states) == limit
            found += [state for state in states if grant.reaches(state.session)]
            after = states[-1].session if states else after
        del found[limit:]
        return json_answer(
            {
                "sessions": [await described(self._parts, state) for state in found],
                "after": found[-1].session if len(found) == limit else None,
            }
        )

    async def register(self, request: web.Request) -> web.Response:
        """Follow a workflow from now on."""
        try:
            asked = msgspec.json.decode(await request.read(), type=_Registration)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(f'expected {{"workflow_id": "…"}}, got: {error}') from None
        grant, upstream = request[GRANT], self._parts.upstream
        # Where the workflow itself names a session, the token must reach that one, too; which it is, is not known yet.
        grant.check("manage", check_session_name(asked.session or asked.workflow_id))
        if upstream is None:
            raise TemporalUnavailableError("expected a gateway with Temporal, this one runs without")
        session, run = await upstream.register(
            asked.workflow_id, asked.session, namespace=asked.namespace, result=asked.result, may=grant.reaches
        )
        return json_answer({"session": session, **_run(run, upstream.followed(session).get(run.run))})


async def described(parts: Parts, state: SessionState) -> dict[str, Any]:
    """A session as every route answers it."""
    # In this order: a run that has ended meanwhile has its end in the record.
    followed = parts.upstream.followed(state.session) if parts.upstream is not None else {}
    runs = await parts.runs.of(state.session)
    told = [await _as_told(parts, state.session, run, followed.get(run.run)) for run in runs]
    retention = parts.keeper.retention(config.decode(state.config))
    return {
        "session": state.session,
        "epoch": state.epoch,
        "first_offset": state.first_offset,
        "next_offset": state.next_offset,
        "cursor": str(Cursor(state.epoch, state.next_offset)),
        "created": state.created,
        "closed": state.closed,
        "settled": bool(told) and not any(run.open for run in told),
        "retention": retention,
        "devices": parts.hub.devices(state.session),
        "runs": [_run(run, followed.get(run.run)) for run in told],
    }


async def _as_told(parts: Parts, session: str, run: Run, followed: Followed | None) -> Run:
    """A run as the session's events say it stands, whoever has read how many of them: no less, and not before them."""
    if followed is None:
        return run
    telling = followed.telling
    if telling is not None and await parts.engine.position(session, telling.by) is not None:
        return telling.run
    return followed.run


def _run(run: Run, followed: Followed | None) -> dict[str, Any]:
    return {
        "workflow_id": run.workflow_id,
        "run": run.run,
        "run_id": run.run_id,
        "namespace": run.namespace or None,
        "status": run.status,
        "drained": not run.owed,
        "followed": followed is not None,
        "waiting": run.waiting if followed is None else followed.state.waiting,
        "activities": [] if followed is None else list(followed.state.activities.values()),
    }
