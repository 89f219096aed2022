"""The caller's address: that of the peer, or the one that a trusted proxy forwards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import hdrs, web

from wakeline.errors import SettingsInvalidError

_IPV6_SITE: Final = 64
"""Bits of an IPv6 address that count: a caller usually controls the whole /64 network around its address."""


class Addresses:
    """Determines a caller's address, as limits count it.

    Args:
        trusted: Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted.

    Raises:
        SettingsInvalidError: One of them is neither an address nor a network.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = [_network(text) for text in trusted]
        self._known = lru_cache(maxsize=4096)(self._key)  # called for every request, with few distinct addresses

    def caller(self, request: web.Request) -> str | None:
        """Return the address that a request counts for; None for this machine, which has no limits."""
        peer = request.remote or ""
        key, trusted = self._known(peer)
        if not trusted:
            return key
        # Read from the right: anyone can send the entries to the left of the first address that is not a trusted proxy.
        named = [part.strip() for part in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
        for text in reversed(named[-16:]):
            forwarded, by_proxy = self._known(text.strip("[]")[:64])
            if not by_proxy:
                return key if forwarded == "" else forwarded
        return key

    def peer(self, address: object) -> str | None:
        """Return the address that a connection counts for before any bytes are read.

        None for this machine and for a trusted proxy, which serves many callers.
        """
        key, trusted = self._known(str(address[0]) if isinstance(address, tuple) else "")
        return None if trusted else key or None

    def scheme(self, request: web.Request) -> str:
        """Return the scheme that the caller used."""
        if self._known(request.remote or "")[1]:
            return request.headers.get(hdrs.X_FORWARDED_PROTO, request.scheme)
        return request.scheme

    def _key(self, text: str) -> tuple[str | None, bool]:
        """Return the key of an address (empty if invalid), and whether it is a trusted proxy."""
        try:
            address = ip_address(text)
        except ValueError:
            return "", False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        trusted = any(address in network for network in self._trusted)
        if address.is_loopback:
            return None, trusted
        if isinstance(address, IPv6Address):
            return str(ip_network((address.packed, _IPV6_SITE), strict=False)), trusted
        return str(address), trusted


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise SettingsInvalidError(
            f"expected addresses or networks in trusted_proxies, got {text!r}",
            hint="Write addresses or networks, such as 10.0.0.7 or 10.0.0.0/8; names are not resolved.",
        ) from None
