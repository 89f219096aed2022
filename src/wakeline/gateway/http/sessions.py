"""Routes that list sessions, describe them and their runs, and register workflows."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from wakeline.errors import RequestInvalidError, TemporalUnavailableError, WorkflowNotFoundError
from wakeline.events import Cursor, check_session_name
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.following import Followers
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer, newest_first, session_of, session_status
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.log import SessionState
from wakeline.gateway.sessions import Followed, NamedWorkflow, Run, decode_config, status_of

_ALIKE_SECONDS: Final = 1.0
"""Seconds until a workflow that the token does not reach is refused, whether or not it exists."""

_LISTED_BYTES: Final = 1024 * 1024
"""A page ends with the session whose record of runs makes the total exceed this size."""

_SCANNED: Final = 500
"""Sessions that are read at once to find those with a status."""

_SCANS: Final = 10
"""How often a request reads so many, if none has the status."""


class _Registration(msgspec.Struct, forbid_unknown_fields=True):
    workflow_id: str
    kind: Literal["workflow", "activity"] = "workflow"
    session: str | None = None
    namespace: str | None = None
    result: bool = False


class _Asked:
    """The parameters of a request that lists sessions.

    Attributes:
        after: The last session of the page before: when it was created (empty in the order of names), and its name.
    """

    def __init__(self, request: web.Request) -> None:
        self.grant: Grant = request[GRANT]
        self.newest = newest_first(request)
        self.status = session_status(request)
        self.contains = request.query.get("contains", "")
        after = request.query.get("after", "")
        created, space, session = after.partition(" ") if self.newest else ("", " ", after)
        if after and not space:
            raise RequestInvalidError(f"expected after as the page before returned it, got {after[:64]!r}")
        self.after = (created, session) if after else None

    def name(self, after: tuple[str, str] | None) -> str | None:
        """Return the text of `after` for the next page."""
        return None if after is None else " ".join(after) if self.newest else after[1]


class SessionRoutes(Group):
    """`/v1/sessions` and `/v1/runs`."""

    @route("GET", "/v1/sessions/{session}")
    async def session(self, request: web.Request) -> web.Response:
        """Return the state of one session."""
        name, grant = session_of(request, "read")
        state = await self._parts.engine.state(name)
        if state is None:
            await self._parts.arrivals.at(name, grant)
            state = await self._parts.engine.found(name)
        return json_answer(await described(self._parts, state))

    @route("GET", "/v1/sessions", "after limit order contains status")
    async def sessions(self, request: web.Request) -> web.Response:
        """Return a page of sessions, ordered by name or the newest first."""
        request[GRANT].check("read")
        limit = integer(request, "limit", 100, 1, 1000)
        asked = _Asked(request)
        after, found, more = asked.after, list[dict[str, Any]](), True
        for _ in range(_SCANS):
            size = limit if asked.status is None else _SCANNED
            states = await self._states(asked, after, size)
            followed = [_followed(self._parts, state.session) for state in states]
            runs = await self._parts.runs.of_each([state.session for state in states], _LISTED_BYTES)
            more = len(states) == size or len(runs) < len(states)
            for state, recorded, by_name in zip(states, runs, followed, strict=False):
                if len(found) == limit:
                    more = True
                    break
                after = (state.created, state.session)
                its = await _as_logged(self._parts, state.session, recorded, by_name)
                if asked.status in (None, status_of(its, closed=state.closed)):
                    found.append(_described(self._parts, state, its, by_name))
            if found or not more:
                break
        return json_answer({"sessions": found, "after": asked.name(after) if more else None})

    async def _states(self, asked: _Asked, after: tuple[str, str] | None, limit: int) -> list[SessionState]:
        engine, within = self._parts.engine, asked.grant.sessions
        if asked.newest:
            return await engine.newest(before=after, limit=limit, within=within, contains=asked.contains)
        return await engine.sessions(after=after[1] if after else "", limit=limit, within=within)

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
    how["activity"] = asked.kind == "activity"
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
    shown = await _as_logged(parts, state.session, await parts.runs.of(state.session), followed)
    return _described(parts, state, shown, followed)


def _followed(parts: Parts, session: str) -> dict[str, Followed]:
    return parts.upstream.followed(session) if parts.upstream is not None else {}


def _described(parts: Parts, state: SessionState, shown: list[Run], followed: dict[str, Followed]) -> dict[str, Any]:
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


async def _as_logged(parts: Parts, session: str, runs: list[Run], followed: dict[str, Followed]) -> list[Run]:
    """Return the state of a session's runs as its log shows it.

    A follower updates its own state a moment after the log has the event that reports the change. So while such an event is
    being appended, the log is checked for it.
    """
    shown: list[Run] = []
    for run in runs:
        one = followed.get(run.run)
        if one is None:
            shown.append(run)
        elif one.telling is not None and await parts.engine.position(session, one.telling.by) is not None:
            shown.append(one.telling.run)
        else:
            shown.append(one.run)
    return shown


def _run(run: Run, followed: Followed | None) -> dict[str, Any]:
    return {
        **({"kind": "activity"} if run.activity else {}),
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
