"""Routes by which browsers subscribe their devices to Web Push."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from wakeline.errors import BodyInvalidError, NotAllowedError, NotFoundError
from wakeline.events import timestamp
from wakeline.gateway.access import GRANT
from wakeline.gateway.http.answers import json_answer
from wakeline.gateway.http.bodies import read_fields
from wakeline.gateway.http.group import Group, route
from wakeline.gateway.http.parameters import check_device, user_parameter
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.notifications import Subscription, Subscriptions, WebPush, check_push_keys

_FORM: Final = '{"endpoint": "https://…", "keys": {"p256dh": "…", "auth": "…"}}, as PushSubscription.toJSON() makes it'


class _Keys(msgspec.Struct):
    p256dh: str
    auth: str


class _Asked(msgspec.Struct):
    """A browser's subscription; browsers may add members."""

    endpoint: str
    keys: _Keys


class PushRoutes(Group):
    """`/v1/push`, for tokens that may `ack`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._subscriptions = Subscriptions(parts.engine)

    @route("GET", "/v1/push")
    async def push(self, request: web.Request) -> web.Response:
        """Return the public key that browsers subscribe with."""
        return json_answer({"public_key": self._channel().public_key})

    @route("GET", "/v1/push/subscriptions", "user")
    async def subscriptions(self, request: web.Request) -> web.Response:
        """List the devices of a user that have a subscription."""
        user = _user(request)
        found = await self._subscriptions.of(user)
        return json_answer({"subscriptions": [_described(user, one) for one in found]})

    @route("PUT", "/v1/push/subscriptions/{device}", "user")
    async def subscribe(self, request: web.Request) -> web.Response:
        """Register a device's subscription."""
        user, device = _user(request), check_device(request.match_info["device"])
        asked = await read_fields(request, _Asked, _FORM)
        channel = self._channel()
        fault = channel.fault(asked.endpoint) or check_push_keys(asked.keys.p256dh, asked.keys.auth)
        if fault is not None:
            raise BodyInvalidError(fault, hint=f"Send {_FORM}.")
        registered = round(time.time(), 3)
        one = Subscription(device, asked.endpoint, asked.keys.p256dh, asked.keys.auth, registered)
        await self._subscriptions.put(user, one)
        return json_answer(_described(user, one))

    @route("DELETE", "/v1/push/subscriptions/{device}", "user")
    async def unsubscribe(self, request: web.Request) -> web.Response:
        """Remove a device's subscription."""
        await self._subscriptions.remove(_user(request), check_device(request.match_info["device"]))
        return web.Response(status=204)

    def _channel(self) -> WebPush:
        if self._parts.push is None:
            raise NotFoundError(
                "expected a gateway with Web Push, got one without",
                hint="Add a channel of the type web_push to the gateway's settings.",
            )
        return self._parts.push


def _user(request: web.Request) -> str:
    """Return the user whose subscriptions the request concerns; raise if the caller may not."""
    grant, user = request[GRANT], user_parameter(request)
    grant.check("ack")
    if user is None or user == grant.user:
        return grant.user
    grant.check("manage")
    if "*" not in grant.sessions:  # a subscription belongs to no session
        raise NotAllowedError("expected a token that may manage all sessions for another user's subscriptions")
    return user


def _described(user: str, one: Subscription) -> dict[str, Any]:
    """Return a subscription without its secrets, of which the endpoint is one."""
    parts = urlsplit(one.endpoint)
    return {
        "device": one.device,
        "user": user,
        "service": f"{parts.scheme}://{parts.netloc}",
        "registered": timestamp(one.registered),
    }
