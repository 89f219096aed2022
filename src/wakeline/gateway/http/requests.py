"""Routes of requests for input: ask, list, answer, wait for the outcome, cancel."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from wakeline.errors import RequestInvalidError, SessionNotFoundError, TemporalUnavailableError
from wakeline.events import INPUT_REQUESTED, check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import seconds
from wakeline.gateway.inputs import RESERVED
from wakeline.gateway.requests import Answer, Asked, Claim, Person, check_id, described
from wakeline.gateway.sessions import Delivery, InputRequest

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
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("publish", name)
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

    @route("GET", "/v1/sessions/{session}/requests")
    async def open(self, request: web.Request) -> web.Response:
        """List the open requests of a session."""
        name = self._readable(request)
        if await self._parts.engine.state(name) is None:
            raise SessionNotFoundError(f"there is no session {name!r}")
        return json_answer({"requests": [described(each) for each in await self._parts.requests.open(name)]})

    @route("GET", "/v1/sessions/{session}/requests/{request}", "wait")
    async def find(self, request: web.Request) -> web.Response:
        """Return a request, at once or when it is closed."""
        name = self._readable(request)
        id, wait = check_id(request.match_info["request"]), seconds(request, "wait")
        found = await self._awaited(request, id, wait) if wait else await self._parts.requests.find(name, id)
        return json_answer(described(found))

    @route("POST", "/v1/sessions/{session}/requests/{request}")
    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request; return it with its outcome."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("input", name)
        answer = await read_fields(request, Answer, _ANSWER)
        answer.check()
        requests, id = self._parts.requests, check_id(request.match_info["request"])
        grant.check_input(name, f"$answer.{await requests.reason_of(name, id)}")
        self._parts.limits.publish(request, grant, 1)
        return json_answer(described(await requests.answer(name, id, answer, Person(grant.user, grant.roles))))

    @route("POST", "/v1/sessions/{session}/requests/{request}/claim")
    async def claim(self, request: web.Request) -> web.Response:
        """Let a device run a tool, so that no other one does."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("input", name)
        claim = await read_fields(request, Claim, '{"device": "…", "lease"?}')
        requests, id = self._parts.requests, check_id(request.match_info["request"])
        grant.check_input(name, f"$answer.{await requests.reason_of(name, id)}")
        self._parts.limits.publish(request, grant, 1)
        return json_answer(described(await requests.claim(name, id, claim, Person(grant.user, grant.roles))))

    @route("DELETE", "/v1/sessions/{session}/requests/{request}")
    async def cancel(self, request: web.Request) -> web.Response:
        """Close a request without an answer."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("publish", name)
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

    async def _awaited(self, request: web.Request, id: str, wait: float) -> InputRequest:
        """Return a request when it is closed, or after the wait."""
        grant = request[GRANT]
        with self._parts.limits.connection(request, grant):
            found = await self._parts.requests.find(request.match_info["session"], id, grant.within(wait))
        grant.check_signer()
        return found

    def _readable(self, request: web.Request) -> str:
        """Return the name of a session whose requests the caller may read."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("read", name)
        grant.check_topic(INPUT_REQUESTED)
        return name
