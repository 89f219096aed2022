"""Nudges: notices that a workflow may have new events (PROTOCOL.md §3)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from wakeline.background import wait_at_most
from wakeline.errors import BodyInvalidError
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.bodies import read_body
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.runtime import read_whole_in_slices
from wakeline.gateway.sessions import NamedWorkflow

_MOST: Final = 1000
_MOST_BYTES: Final = 2 * 1024 * 1024  # enough for `_MOST` workflows with the longest ids
_LONGEST_WAIT: Final = 5


class _Many(msgspec.Struct, forbid_unknown_fields=True):
    workflows: Annotated[list[NamedWorkflow], Meta(min_length=1, max_length=_MOST)]
    wait: Annotated[float, Meta(ge=0, le=_LONGEST_WAIT)] = 0.0


class _Either(msgspec.Struct):
    workflows: msgspec.Raw = msgspec.Raw()


class NudgeRoutes(Group):
    """`/v1/nudge`."""

    @route("POST", "/v1/nudge")
    async def nudge(self, request: web.Request) -> web.Response:
        """Pass nudges on and answer at once; with `wait`, once the workflows have ended."""
        grant = request[GRANT]
        grant.check("publish")
        workflows, seconds = await _named(await read_body(request, _MOST_BYTES))
        self._parts.limits.publish(request, grant, len(workflows))
        upstream = self._parts.upstream
        if upstream is not None and seconds:
            ended = upstream.ended([(workflow.workflow_id, workflow.namespace) for workflow in workflows])
            await wait_at_most(seconds, ended)
        elif upstream is not None:
            for workflow in workflows:
                upstream.nudge(workflow.workflow_id, workflow.namespace)
        return web.Response(status=202, headers={hdrs.CACHE_CONTROL: "no-store"})


async def _named(body: bytes) -> tuple[list[NamedWorkflow], float]:
    """Return the named workflows, and how many seconds the answer may wait."""
    seconds = 0.0
    try:
        if (await read_whole_in_slices(msgspec.json.Decoder(_Either).decode, body)).workflows:
            many = await read_whole_in_slices(msgspec.json.Decoder(_Many).decode, body)
            named, seconds = many.workflows, many.wait
        else:
            named = [await read_whole_in_slices(msgspec.json.Decoder(NamedWorkflow).decode, body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(
            f'expected {{"workflow_id": "…"}}, or {{"workflows": […], "wait"?}} with 1 to {_MOST} of them and a wait of 0 to '
            f"{_LONGEST_WAIT} seconds, got: {error}"
        ) from None
    return [workflow.checked() for workflow in named], seconds
