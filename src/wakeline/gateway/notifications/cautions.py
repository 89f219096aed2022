"""Warnings at start about channels and rules that are valid, and yet notify nobody."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.settings import Settings

_LOCALHOST: Final = ("127.0.0.1", "::1")


def cautions(settings: Settings) -> Iterator[str]:
    """Yield a sentence about each channel and each rule that will notify nobody."""
    guard = AddressGuard(settings.outgoing_networks)
    for name, table in settings.channels.items():
        host = _host(table.get("url"))
        if not _may_be_reached(host, guard):
            yield (
                f"nothing can be sent through channels.{name}: its url has the private address {host}, "
                "which outgoing_networks can allow"
            )
    for name, rule in settings.notify.items():
        if not (settings.asks or rule.users or rule.by_publisher):
            yield (
                f"notify.{name} has no users and no token is required: it notifies nobody "
                "but users that a request names, until somebody reads the session with device=…; name users in the rule"
            )


def _may_be_reached(host: str, guard: AddressGuard) -> bool:
    """Return whether the guard allows a host; a name may resolve to any address."""
    addresses = _LOCALHOST if host == "localhost" else (host,)
    return any(not _is_address(address) or guard.allows(address) for address in addresses)


def _host(url: object) -> str:
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
