"""Routes that list sessions, describe them and their runs, and register workflows."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from wakeline.errors import SessionNotFoundError, TemporalUnavailableError, WorkflowNotFoundError
from wakeline.events import Cursor, check_session_name
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.following import Followers
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.log import SessionState
from wakeline.gateway.sessions import Followed, NamedWorkflow, Run, decode_config

_ALIKE_SECONDS: Final = 1.0
"""Seconds until a workflow that the token does not reach is refused, whether or not it exists."""


_LISTED_BYTES: Final = 1024 * 1024
"""A page ends with the session whose record of runs makes the total exceed this size."""


class _Registration(msgspec.Struct, forbid_unknown_fields=True):
    workflow_id: str
    session: str | None = None
    namespace: str | None = None
    result: bool = False


class SessionRoutes(Group):
    """`/v1/sessions` and `/v1/runs`."""

    @route("GET", "/v1/sessions/{session}")
    async def session(self, request: web.Request) -> web.Response:
        """Return the state of one session."""
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

    @route("GET", "/v1/sessions", "after limit")
    async def sessions(self, request: web.Request) -> web.Response:
        """Return a page of sessions, ordered by name."""
        grant = request[GRANT]
        grant.check("read")
        limit = integer(request, "limit", 100, 1, 1000)
        after = request.query.get("after", "")
        found = await self._parts.engine.sessions(after=after, limit=limit, within=grant.sessions)
        names = [state.session for state in found]
        followed = [_followed(self._parts, name) for name in names]
        runs = await self._parts.runs.of_each(names, _LISTED_BYTES)
        whole = len(found) < limit and len(runs) == len(found)
        shown = [
            await _described(self._parts, state, its, by_name)
            for state, its, by_name in zip(found, runs, followed, strict=False)
        ]
        return json_answer({"sessions": shown, "after": None if whole else shown[-1]["session"]})

    @route("POST", "/v1/runs")
    async def register(self, request: web.Request) -> web.Response:
        """Follow a workflow from now on."""
        request[GRANT].check("manage")
        asked = await read_fields(request, _Registration, '{"workflow_id": "…"}')
        NamedWorkflow(asked.workflow_id, asked.namespace).checked()
        grant, upstream = request[GRANT], self._parts.upstream
        grant.check("manage", check_session_name(asked.session or asked.workflow_id))
        if upstream is None:
            raise TemporalUnavailableError(
                "expected a gateway with Temporal, got one that runs without",
                hint="Start the gateway with --temporal HOST:PORT.",
            )
        session, run = await _registered(upstream, asked, grant)
        return json_answer({"session": session, **_run(run, upstream.followed(session).get(run.run))})


async def _registered(upstream: Followers, asked: _Registration, grant: Grant) -> tuple[str, Run]:
    """Register a workflow; do not reveal whether it exists to a token that does not reach it."""
    workflow_id = asked.workflow_id
    how: dict[str, Any] = {"namespace": asked.namespace, "result": asked.result, "reaches": grant.reaches}
    if grant.registers(workflow_id):
        return await upstream.register(workflow_id, asked.session, **how)
    # Only Temporal knows whether the workflow names a session that the token reaches. Temporal answers at different speeds
    # for a missing and for a foreign workflow, so both are refused after the same delay.
    loop = asyncio.get_running_loop()
    answer_at = loop.time() + _ALIKE_SECONDS
    try:
        async with asyncio.timeout_at(answer_at):
            return await upstream.register(workflow_id, asked.session, **how, any_workflow=False)
    except (WorkflowNotFoundError, TimeoutError):
        await asyncio.sleep(answer_at - loop.time())
    raise WorkflowNotFoundError(f"Temporal has no workflow {workflow_id!r} for a session that the token reaches")


async def described(parts: Parts, state: SessionState) -> dict[str, Any]:
    """Return a session's state in the format that all routes share."""
    # In this order: if a run ends between the two, the record read second contains its end.
    followed = _followed(parts, state.session)
    return await _described(parts, state, await parts.runs.of(state.session), followed)


def _followed(parts: Parts, session: str) -> dict[str, Followed]:
    return parts.upstream.followed(session) if parts.upstream is not None else {}


async def _described(
    parts: Parts, state: SessionState, runs: list[Run], followed: dict[str, Followed]
) -> dict[str, Any]:
    shown = [await _as_logged(parts, state.session, run, followed.get(run.run)) for run in runs]
    retention = parts.keeper.retention(decode_config(state.config))
    return {
        "session": state.session,
        "epoch": state.epoch,
        "first_offset": state.first_offset,
        "next_offset": state.next_offset,
        "cursor": str(Cursor(state.epoch, state.next_offset)),
        "created": state.created,
        "closed": state.closed,
        "settled": bool(shown) and not any(run.open for run in shown),
        "retention": retention,
        "devices": parts.hub.devices(state.session),
        "runs": [_run(run, followed.get(run.run)) for run in shown],
    }


async def _as_logged(parts: Parts, session: str, run: Run, followed: Followed | None) -> Run:
    """Return a run's state as the log of its session shows it.

    The follower updates its own state a moment after the log has the event that reports the change. So while such an
    event is being appended, the log is checked for it.
    """
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
