"""Routes that send inputs to the runs of a session, and return their outcomes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from wakeline.events import INPUT_COMPLETED, INPUT_REJECTED, check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import session_of
from wakeline.gateway.inputs import Asked, check_key
from wakeline.gateway.sessions import Settled
from wakeline.gateway.transports.inputs import inputs_of, send_input

_EXPECTED: Final = (
    '{"id": "…", "kind": "signal" | "update" | "cancel" | "terminate" | "start", "name"?, '
    '"args"?: […], "run"?, "start"?, "device"?, "expect"?, "shown"?, "wait"?}'
)


class InputRoutes(Group):
    """`/v1/sessions/{session}/inputs`."""

    @route("POST", "/v1/sessions/{session}/inputs")
    async def send(self, request: web.Request) -> web.Response:
        """Send an input, and answer with its outcome; with `202` if that takes longer."""
        name, grant = session_of(request, "input")
        asked = await read_fields(request, Asked, _EXPECTED)
        # Before the input is sent, so that one which is refused can be sent again without a wait.
        with self._parts.limits.connection(request, grant) if asked.wait else nullcontext():
            settled = await send_input(self._parts, request, grant, name, asked)
        return _answer(name, asked.id, settled)

    @route("GET", "/v1/sessions/{session}/inputs/{input}")
    async def outcome(self, request: web.Request) -> web.Response:
        """Return the outcome of one of the caller's inputs; of any, if the caller reads the log."""
        name, grant = check_session_name(request.match_info["session"]), request[GRANT]
        reads = grant.may("read", name) and all(grant.may_see(topic) for topic in (INPUT_COMPLETED, INPUT_REJECTED))
        if not reads:
            grant.check("input", name)
        key = check_key(request.match_info["input"])
        return _answer(name, key, await inputs_of(self._parts).find(name, key, None if reads else grant.user))


def _answer(session: str, key: str, settled: Settled | None) -> web.Response:
    if settled is None:
        where = f"/v1/sessions/{quote(session, safe='')}/inputs/{quote(key, safe='')}"
        return json_answer({"id": key, "status": "accepted"}, status=202, headers={hdrs.LOCATION: where})
    data = msgspec.json.decode(settled.data, type=dict[str, msgspec.Raw])
    return json_answer({**data, "status": settled.status})
