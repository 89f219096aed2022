"""Requests go to public addresses only, whatever a name resolves to."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp.abc import ResolveResult

from tests.receivers import Receiver, status
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.channels.resolver import Resolver

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1::5db8:d822",
    "::ffff:0:7f00:1",
    "::ffff:0:5db8:d822",
    "::93.184.216.34",
    "fec0::1",
    "100::1",
    "1fff::1",
    "4000::1",
    "5f00::1",
    "2001:db8::1",
    "3fff::1",
    "not an address",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not AddressGuard().allows(address)


PUBLIC = [
    "93.184.216.34",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "3ffe::1",
    "64:ff9b::5db8:d822",
    "::ffff:93.184.216.34",
    "2002:5db8:d822::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressGuard().allows(address)


def test_settings_allow_private_networks() -> None:
    guard = AddressGuard(["10.0.0.0/8", "fd00::1"])
    assert guard.allows("10.1.2.3")
    assert guard.allows("::ffff:10.1.2.3")
    assert guard.allows("fd00::1")
    assert not guard.allows("fd00::2")
    assert not guard.allows("127.0.0.1")


def test_names_are_no_networks() -> None:
    with pytest.raises(SettingsInvalidError, match="outgoing_networks"):
        AddressGuard(["receiver.internal"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
async def test_a_private_receiver_gets_no_request_however_it_is_written(hook: Receiver, host: str) -> None:
    async with Outgoing(AddressGuard()) as outgoing:
        answer = await outgoing.post(hook.url.replace("127.0.0.1", host), b"{}", {})
    assert answer.status == 0
    assert hook.received == []


async def test_a_redirect_is_not_followed(hook: Receiver) -> None:
    hook.answers.append(status(307, Location=hook.url))
    async with Outgoing(AddressGuard(["127.0.0.1"])) as outgoing:
        answer = await outgoing.post(hook.url, b"{}", {})
    assert answer.status == 307
    assert len(hook.received) == 1


async def test_a_name_that_resolves_to_another_address_the_next_time_is_refused(
    hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address that is checked is the one that is connected to."""
    port = int(hook.url.rsplit(":", 1)[1].split("/")[0])
    looked_up: list[str] = []

    async def rebind(self: Resolver, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        address = ["127.0.0.2", "127.0.0.1"][min(len(looked_up), 1)]
        looked_up.append(address)
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    monkeypatch.setattr(Resolver, "resolve", rebind)
    async with Outgoing(AddressGuard(["127.0.0.2"])) as outgoing:  # which stands for a public address
        for _ in range(2):
            answer = await outgoing.post(f"http://rebinding.example:{port}/hook", b"{}", {})
    assert answer.status == 0
    assert "127.0.0.1 is a private address" in answer.reason
    assert looked_up == ["127.0.0.2", "127.0.0.1"]
    assert hook.received == []
