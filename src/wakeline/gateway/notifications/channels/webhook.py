"""Webhooks: notifications by HTTP POST, signed by Standard Webhooks 1.0."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.channel import Channel, Notification, Outcome
from wakeline.gateway.notifications.channels.outgoing import Answer, Outgoing

_PREFIX: Final = "whsec_"
_LEAST_SECRET: Final = 24  # bytes, by the specification
_MOST_SECRET: Final = 64
_GONE: Final = 410


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    secrets: tuple[str, ...]


class Webhook(Channel):
    """Posts notifications to a URL.

    Args:
        url: The URL.
        keys: The keys to sign with: the new one and the old ones while receivers change.
        outgoing: The client to send with.
    """

    def __init__(self, url: str, keys: Sequence[bytes], outgoing: Outgoing) -> None:
        self.identity = url
        self._url = url
        self._keys = keys
        self._outgoing = outgoing

    @classmethod
    def create(cls, name: str, options: Mapping[str, Any], outgoing: Outgoing) -> Webhook:
        """Return the webhook of a table in the settings; see `Channel.create`."""
        try:
            checked = msgspec.convert(dict(options), _Options, strict=True)
        except msgspec.ValidationError as error:
            raise _invalid(name, str(error)) from None
        if urlsplit(checked.url).scheme not in ("http", "https") or not urlsplit(checked.url).hostname:
            raise _invalid(name, f"expected a URL with http:// or https://, got {checked.url[:100]!r}")
        if not checked.secrets:
            raise _invalid(name, "expected at least one secret, got none")
        return cls(checked.url, [_key(name, secret) for secret in checked.secrets], outgoing)

    async def send(self, notification: Notification) -> Outcome:
        """Post a notification; see `Channel.send`."""
        answer = await self._outgoing.post(
            self._url, notification.body, signed(notification.id, int(time.time()), notification.body, self._keys)
        )
        return outcome(answer)


def signed(name: str, moment: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a signed request.

    Args:
        name: The message's id.
        moment: Unix time of the attempt.
        body: The body.
        keys: The keys; each one adds a signature.
    """
    content = b"%b.%d.%b" % (name.encode(), moment, body)
    signatures = [base64.b64encode(hmac.digest(key, content, sha256)).decode() for key in keys]
    return {
        hdrs.CONTENT_TYPE: "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(moment),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def outcome(answer: Answer) -> Outcome:
    """Return what follows from an answer: only a status from 200 to 299 accepts the message."""
    if 200 <= answer.status < 300:
        return Outcome("delivered", answer.reason)
    if answer.abort:
        return Outcome("refused", f"{answer.reason}, abort-message")
    if answer.status == _GONE:
        return Outcome("gone", answer.reason)
    return Outcome("failed", answer.reason, answer.retry_after)


def _key(name: str, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not _LEAST_SECRET <= len(key) <= _MOST_SECRET:
        raise _invalid(name, f"expected secrets of {_PREFIX} and {_LEAST_SECRET} to {_MOST_SECRET} bytes in base64")
    return key


def _invalid(name: str, reason: str) -> SettingsInvalidError:
    return SettingsInvalidError(
        f"in channels.{name}: {reason}",
        hint='Write url = "https://…" and secrets = ["whsec_…"]; `echo whsec_$(openssl rand -base64 32)` makes one.',
    )
