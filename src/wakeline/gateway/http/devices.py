"""Routes that list devices with their positions, acknowledge events and forget devices."""

from __future__ import annotations

import msgspec
from aiohttp import web

from wakeline.events import check_session_name
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import check_device, user_parameter


class _Acknowledgement(msgspec.Struct, forbid_unknown_fields=True):
    seen: str
    everywhere: bool = False


class DeviceRoutes(Group):
    """`/v1/sessions/{session}/devices`."""

    @route("GET", "/v1/sessions/{session}/devices", "user")
    async def devices(self, request: web.Request) -> web.Response:
        """List the user's own devices; with `manage`, those of all users."""
        session, grant = check_session_name(request.match_info["session"]), request[GRANT]
        user = user_parameter(request)
        others = user not in (None, grant.user) or (user is None and "manage" in grant.allow)
        grant.check("manage" if others else "ack", session)
        if not others:
            user = grant.user
        return json_answer({"devices": await self._parts.positions.devices(session, user)})

    @route("PUT", "/v1/sessions/{session}/devices/{device}", "user")
    async def acknowledge(self, request: web.Request) -> web.Response:
        """Record that a device has seen everything up to a cursor."""
        session, user, device = device_of(request)
        asked = await read_fields(request, _Acknowledgement, '{"seen": "…", "everywhere": true}')
        return json_answer(
            await self._parts.positions.acknowledge(session, user, device, asked.seen, everywhere=asked.everywhere)
        )

    @route("DELETE", "/v1/sessions/{session}/devices/{device}", "user")
    async def forget(self, request: web.Request) -> web.Response:
        """Forget a device."""
        await self._parts.positions.forget(*device_of(request))
        return web.Response(status=204)


def device_of(request: web.Request) -> tuple[str, str, str]:
    """Return a request's session, user and device; raise if the caller may not change them."""
    session, grant = check_session_name(request.match_info["session"]), request[GRANT]
    user = user_parameter(request)
    if user is None:
        user = grant.user
    grant.check("ack" if user == grant.user else "manage", session)
    return session, user, check_device(request.match_info["device"])
