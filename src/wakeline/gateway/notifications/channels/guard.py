"""The addresses that a gateway may send requests to on behalf of its settings and users."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import AddrInfoType

from wakeline.errors import SettingsInvalidError

# Of a cloud's own services within its virtual machines, and of documents (RFC 9637); by their numbers they are public.
_RESERVED: Final = (ip_network("168.63.129.16"), ip_network("192.0.0.0/24"), ip_network("3fff::/20"))
_UNICAST: Final = ip_network("2000::/3")  # all that IANA has assigned as global; Python takes unknown rests for public
_MAPPED: Final = ip_network("::ffff:0:0/96")
_NAT64: Final = ip_network("64:ff9b::/96")


class AddressRefusedError(OSError):
    """An address that requests may not be sent to."""


class AddressGuard:
    """Refuses connections to private addresses, by the address that is connected to.

    A check of the URL would not do: a name can resolve to another address at each look-up.

    Args:
        allowed: Private addresses and networks that are allowed.
        setting: The setting that names them, for errors.

    Raises:
        SettingsInvalidError: One of them is neither an address nor a network.
    """

    def __init__(self, allowed: Iterable[str] = (), *, setting: str = "outgoing_networks") -> None:
        self._allowed = [_network(text, setting) for text in allowed]
        self._setting = setting

    def allows(self, text: str) -> bool:
        """Return whether an address may be connected to."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        carried = [address, *_carried(address)]
        if any(one in network for one in carried for network in self._allowed):
            return True
        return all(_is_public(one) for one in carried)

    def socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for one of a name's addresses.

        Raises:
            AddressRefusedError: The address is not allowed.
        """
        family, kind, protocol, _, address = info
        if not self.allows(str(address[0])):
            raise AddressRefusedError(errno.EACCES, f"{address[0]} is a private address; {self._setting} can allow it")
        return socket.socket(family, kind, protocol)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return address in _MAPPED or address in _NAT64  # if the IPv4 address that it carries is public
    reserved = any(address in network for network in _RESERVED)
    return address.is_global and not address.is_multicast and not reserved


def _carried(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address.packed[:12] == bytes(12):
        found.append(IPv4Address(address.packed[12:]))
    return [one for one in found if one is not None]


def _network(text: str, setting: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise SettingsInvalidError(
            f"expected addresses or networks in {setting}, got {text!r}",
            hint="Write addresses or networks, such as 10.0.0.7 or 10.0.0.0/8; names are not resolved.",
        ) from None
