"""Web Push: notifications on a user's devices when no page is open (RFC 8030, 8291, 8292)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

import msgspec
import structlog
from aiohttp import hdrs
from yarl import URL

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.channel import Channel, Notification, Outcome, Subscription
from wakeline.gateway.notifications.channels.declarative import declarative
from wakeline.gateway.notifications.channels.encryption import (
    AUTH_BYTES,
    MOST_PLAIN_BYTES,
    POINT_BYTES,
    encrypted,
    public_key,
)
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.outgoing import Answer, Outgoing
from wakeline.gateway.notifications.channels.vapid import Vapid, decoded

MOST_ENDPOINT: Final = 2_048
"""The most characters of an endpoint."""

_MOST_URL: Final = 2_600  # of navigate with the longest session's name: room for a title remains
_LONGEST_SESSION: Final = 1_536  # 512 bytes, percent-encoded
_REFUSED: Final = (401, 403)
_UNKNOWN: Final = (404, 410)
_TOO_LARGE: Final = 413
_log = structlog.get_logger(__name__)


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    private_key: str
    subject: str
    navigate: str
    ttl: Annotated[int, msgspec.Meta(ge=0, le=2_419_200)] = 86_400
    networks: tuple[str, ...] = ()


class WebPush(Channel):
    """Sends pushes to the subscriptions of a user's devices.

    Args:
        vapid: Signs the requests.
        options: The options of the settings.
        outgoing: The client to send with. Users choose the endpoints, so it allows no private address but `networks`.
        guard: Decides which addresses `outgoing` may connect to.
    """

    to_devices = True

    def __init__(self, vapid: Vapid, options: _Options, outgoing: Outgoing, guard: AddressGuard) -> None:
        self.public_key = vapid.public_key
        self._vapid = vapid
        self._options = options
        self._outgoing = outgoing
        self._guard = guard

    @classmethod
    def create(cls, name: str, options: Mapping[str, Any], outgoing: Outgoing) -> WebPush:
        """Return the channel of a table in the settings; see `Channel.create`."""
        try:
            checked = msgspec.convert(dict(options), _Options, strict=True)
            vapid = Vapid(checked.private_key, checked.subject)
        except (msgspec.ValidationError, ValueError) as error:  # no message has the key
            raise _invalid(name, str(error)) from None
        _check_url(name, checked.navigate)
        guard = AddressGuard(checked.networks, setting=f"networks of channels.{name}")
        return cls(vapid, checked, outgoing.guarded(guard), guard)

    def fault(self, endpoint: str) -> str | None:
        """Return what is wrong with a subscription's endpoint; None if pushes can be sent to it."""
        try:
            parts, port = urlsplit(endpoint), urlsplit(endpoint).port
        except ValueError:
            return "expected endpoint to be a URL"
        address = _address(parts.hostname or "")
        if len(endpoint) > MOST_ENDPOINT or not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
            return f"expected endpoint to be a URL of at most {MOST_ENDPOINT} visible ASCII characters"
        if not parts.hostname or port == 0 or parts.username is not None or parts.fragment:
            return "expected endpoint to be a URL with a host, and without a user or a fragment"
        if parts.scheme != "https" and not (parts.scheme == "http" and self._is_private(address)):
            return f"expected endpoint to begin with https://, got {parts.scheme[:20]!r}"
        if address is not None and not self._guard.allows(address):
            return "expected endpoint to be at a public address"
        return None

    async def send(self, notification: Notification) -> Outcome:
        """Push to one subscription; see `Channel.send`."""
        to = notification.subscription
        assert to is not None
        text = declarative(notification, notification.url or self._url(notification), MOST_PLAIN_BYTES)
        body = encrypted(text, decoded(to.p256dh), decoded(to.auth))
        answer = await self._outgoing.post(to.endpoint, body, self._headers(notification, to))
        if answer.status in _REFUSED:
            _log.warning(
                "a push service refuses the gateway's key or subject",
                service=str(URL(to.endpoint).origin()),
                status=answer.status,
            )
        return outcome(answer)

    def _headers(self, notification: Notification, to: Subscription) -> dict[str, str]:
        return {
            hdrs.AUTHORIZATION: self._vapid.authorization(to.endpoint),
            hdrs.CONTENT_ENCODING: "aes128gcm",
            hdrs.CONTENT_TYPE: "application/octet-stream",
            "TTL": str(self._options.ttl),
            "Urgency": "high" if notification.critical else "normal",
            "Topic": topic(notification),
        }

    def _url(self, notification: Notification) -> str:
        return self._options.navigate.replace("{session}", quote(notification.session, safe=""))

    def _is_private(self, address: str | None) -> bool:
        """Return whether an address is one of `networks`, where push services may speak plain HTTP."""
        return address is not None and self._guard.allows(address) and not AddressGuard().allows(address)


def check_push_keys(p256dh: str, auth: str) -> str | None:
    """Return what is wrong with a subscription's keys; None if pushes can be encrypted for them."""
    try:
        if len(decoded(auth)) != AUTH_BYTES:
            return f"expected keys.auth to be {AUTH_BYTES} bytes in base64url"
        public_key(decoded(p256dh))
    except ValueError:
        return "expected keys.p256dh and keys.auth in base64url, the first a point of the curve P-256"
    if len(decoded(p256dh)) != POINT_BYTES:
        return f"expected keys.p256dh to be an uncompressed point of {POINT_BYTES} bytes"
    return None


def topic(notification: Notification) -> str:
    """Return the topic of a push: its newest push replaces those that are not delivered."""
    named = msgspec.json.encode([notification.session, notification.digest])
    return base64.urlsafe_b64encode(sha256(named).digest())[:32].decode()


def outcome(answer: Answer) -> Outcome:
    """Return what follows from a push service's answer."""
    if 200 <= answer.status < 300:
        return Outcome("delivered", answer.reason)
    if answer.status in _UNKNOWN:
        return Outcome("gone", answer.reason)
    if answer.status == _TOO_LARGE:
        return Outcome("refused", answer.reason)
    return Outcome("failed", answer.reason, answer.retry_after)


def _address(host: str) -> str | None:
    """Return the host if it is an IP address."""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    unclean = not (url.isascii() and url.isprintable()) or set(url) & set(' "\\<>')
    if parts.scheme not in ("http", "https") or not parts.hostname or unclean:
        raise _invalid(name, f"expected navigate to be a URL with http:// or https://, got {url[:100]!r}")
    if len(url) + url.count("{session}") * _LONGEST_SESSION > _MOST_URL:
        raise _invalid(name, f"expected navigate to have {{session}} once, and at most 1000 characters, got {len(url)}")


def _invalid(name: str, reason: str) -> SettingsInvalidError:
    return SettingsInvalidError(
        f"in channels.{name}: {reason}",
        hint='Write private_key (`wakeline notifications keys` makes one), subject = "mailto:you@example.com" '
        'and navigate = "https://app.example.com/?session={session}".',
    )
