"""Routes that send inputs to the runs of a session, and return their outcomes."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from wakeline.errors import TemporalUnavailableError
from wakeline.events import check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.inputs import Asked, Inputs, check_key
from wakeline.gateway.sessions import Settled

_EXPECTED: Final = (
    '{"id": "…", "kind": "signal" | "update" | "cancel" | "terminate" | "start", "name"?, '
    '"args"?: […], "run"?, "start"?, "device"?, "expect"?, "wait"?}'
)


class InputRoutes(Group):
    """`/v1/sessions/{session}/inputs`."""

    @route("POST", "/v1/sessions/{session}/inputs")
    async def send(self, request: web.Request) -> web.Response:
        """Send an input, and answer with its outcome; with `202` if that takes longer."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        grant.check("input", name)
        asked = await read_fields(request, Asked, _EXPECTED)
        asked.check()
        if asked.kind != "start":  # whose name is that of a rule
            grant.check_input(name, asked.permission)
        rule = self._inputs().check(name, asked, grant)
        self._parts.limits.publish(request, grant, 1)
        settled = await self._inputs().send(name, asked, grant.user, rule)
        grant.check_signer()
        return _answer(name, asked.id, settled)

    @route("GET", "/v1/sessions/{session}/inputs/{input}")
    async def outcome(self, request: web.Request) -> web.Response:
        """Return the outcome of an input."""
        name = check_session_name(request.match_info["session"])
        request[GRANT].check("input", name)
        key = check_key(request.match_info["input"])
        return _answer(name, key, await self._inputs().find(name, key))

    def _inputs(self) -> Inputs:
        if self._parts.inputs is None:
            raise TemporalUnavailableError(
                "expected a gateway with Temporal, got one that runs without",
                hint="Start the gateway with --temporal HOST:PORT.",
            )
        return self._parts.inputs


def _answer(session: str, key: str, settled: Settled | None) -> web.Response:
    if settled is None:
        where = f"/v1/sessions/{quote(session, safe='')}/inputs/{quote(key, safe='')}"
        return json_answer({"id": key, "status": "accepted"}, status=202, headers={hdrs.LOCATION: where})
    data = msgspec.json.decode(settled.data, type=dict[str, msgspec.Raw])
    return json_answer({**data, "status": settled.status})
