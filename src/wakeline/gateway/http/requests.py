"""Routes of requests for input: ask, list, answer, wait for the outcome, cancel."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from aiohttp import web

from wakeline.errors import RequestInvalidError, TemporalUnavailableError
from wakeline.events import INPUT_REQUESTED
from wakeline.gateway.access import GRANT, Grant
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import integer, seconds, session_of
from wakeline.gateway.inputs import RESERVED
from wakeline.gateway.requests import Answer, Asked, Claim, Person, check_id, described
from wakeline.gateway.sessions import Delivery, InputRequest, has_ended
from wakeline.gateway.transports.leaving import UntilLeft

_ASKED: Final = (
    '{"id": "…", "reason": "…", "kind"?: "question" | "tool", "message"?, "choices"? | "response_schema"?, '
    '"expires_in"?, "audience"?: ["…"], "digest"?, "tool_call_id"?, "metadata"?: {…}, "needs"?, "run"?, "activity"?, '
    '"deliver"?: {…}, "wait"?}'
)
_ANSWER: Final = '{"payload"?: …, "status"?: "resolved" | "cancelled", "device"?, "digest"?, "expect"?}'


class RequestRoutes(Group):
    """`/v1/sessions/{session}/requests`."""

    @route("POST", "/v1/sessions/{session}/requests")
    async def ask(self, request: web.Request) -> web.Response:
        """Open a request; answer with it, or with the one that has its id."""
        name, grant = session_of(request, "publish")
        grant.check_topic(INPUT_REQUESTED)
        asked = await read_fields(request, Asked, _ASKED)
        asked.check(identified=bool(grant.user))
        if asked.deliver is not None:
            self._check_delivery(request, asked.deliver)
        self._parts.limits.publish(request, grant, 1)
        run = None if asked.run is None else await self._parts.runs.names.find(name, asked.run)
        found = await self._parts.requests.ask(name, asked, run)
        if asked.wait and found.resolved is None:
            found = await self._awaited(request, found.id, asked.wait)
        return json_answer(described(found))

    @route("GET", "/v1/sessions/{session}/requests", "after limit")
    async def open(self, request: web.Request) -> web.Response:
        """List a page of the open requests of a session."""
        name = self._readable(request)
        limit, after = integer(request, "limit", 100, 1, 1000), request.query.get("after", "")
        await self._parts.arrivals.at(name, request[GRANT])
        await self._parts.engine.found(name)
        found, following = await self._parts.requests.open(name, after, limit)
        closed = await self._run_closed(name, *found)
        return json_answer({"requests": [_shown(each, closed) for each in found], "after": following})

    @route("GET", "/v1/sessions/{session}/requests/{request}", "wait")
    async def find(self, request: web.Request) -> web.Response:
        """Return a request, at once or when it is closed."""
        name = self._readable(request)
        id, wait = check_id(request.match_info["request"]), seconds(request, "wait")
        await self._parts.arrivals.at(name, request[GRANT])
        found = await self._awaited(request, id, wait) if wait else await self._parts.requests.find(name, id)
        return json_answer(_shown(found, await self._run_closed(name, found)))

    @route("POST", "/v1/sessions/{session}/requests/{request}")
    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request; return it with its outcome."""
        name, grant = session_of(request, "input")
        answer = await read_fields(request, Answer, _ANSWER)
        answer.check()
        id = check_id(request.match_info["request"])
        self._parts.limits.publish(request, grant, 1)
        closed: Collection[str] = ()

        async def before(found: InputRequest) -> None:  # the run may end with the answer
            nonlocal closed
            closed = await self._run_closed(name, found)

        answered = await self._parts.requests.answer(name, id, answer, _person(name, grant), before=before)
        return json_answer(_shown(answered, closed))

    @route("POST", "/v1/sessions/{session}/requests/{request}/claim")
    async def claim(self, request: web.Request) -> web.Response:
        """Let a device run a tool, so that no other one does."""
        name, grant = session_of(request, "input")
        claim = await read_fields(request, Claim, '{"device": "…", "lease"?}')
        id = check_id(request.match_info["request"])
        self._parts.limits.publish(request, grant, 1)
        claimed = await self._parts.requests.claim(name, id, claim, _person(name, grant))
        return json_answer(_shown(claimed, await self._run_closed(name, claimed)))

    @route("DELETE", "/v1/sessions/{session}/requests/{request}")
    async def cancel(self, request: web.Request) -> web.Response:
        """Close a request without an answer."""
        name, grant = session_of(request, "publish")
        grant.check_topic(INPUT_REQUESTED)
        id = check_id(request.match_info["request"])
        return json_answer(described(await self._parts.requests.cancel(name, id, grant.user)))

    def _check_delivery(self, request: web.Request, deliver: Delivery) -> None:
        """Raise unless the caller may have outcomes sent to a run so.

        The default signal answers what a workflow has asked through its stream. From anybody else it could be there
        before the workflow asks, and be taken for the answer.
        """
        if deliver.name.startswith(RESERVED):
            raise RequestInvalidError(
                "expected deliver to name a signal or update of the workflow, got "
                f"{deliver.name[:64]!r}, which is for requests from the workflow's own stream",
                hint="Name one that the token's wakeline.inputs allows, or ask with WorkflowRequests in the workflow.",
            )
        if self._parts.inputs is None:
            raise TemporalUnavailableError("expected a gateway with Temporal to deliver to, got one without")
        request[GRANT].check_input(request.match_info["session"], deliver.name)

    async def _run_closed(self, session: str, *requests: InputRequest) -> Collection[str]:
        """Return the ids of these requests that are open although the run that asked has ended."""
        asked = [request for request in requests if request.resolved is None and request.run is not None]
        runs = await self._parts.runs.of(session) if asked else []
        return {request.id for request in asked if has_ended(runs, request.run)}

    async def _awaited(self, request: web.Request, id: str, wait: float) -> InputRequest:
        """Return a request when it is closed, after the wait, or when the gateway stops."""
        grant, name = request[GRANT], request.match_info["session"]
        found = None
        with self._parts.limits.connection(request, grant), UntilLeft():
            found = await self._parts.lasting.serve(self._parts.requests.find(name, id, grant.within(wait)))
        grant.check_signer()
        return found or await self._parts.requests.find(name, id)

    def _readable(self, request: web.Request) -> str:
        """Return the name of a session whose requests the caller may read."""
        name, grant = session_of(request, "read")
        grant.check_topic(INPUT_REQUESTED)
        return name


def _shown(request: InputRequest, run_closed: Collection[str]) -> dict[str, Any]:
    """Return a request as the routes answer with it.

    Args:
        request: The request.
        run_closed: The ids of open requests of runs that have ended.
    """
    shown = described(request)
    return {**shown, "run_closed": True} if request.id in run_closed else shown


def _person(session: str, grant: Grant) -> Person:
    """Return the caller, whose token is checked on the request that the answer decides."""
    reads = grant.may("read", session) and grant.may_see(INPUT_REQUESTED)
    return Person(grant.user, grant.roles, lambda reason: grant.may_input(session, f"$answer.{reason}"), reads)
