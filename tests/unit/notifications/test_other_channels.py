"""Channels of other packages: found by their entry points, as the guide shows for ntfy and Apprise."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Any

import pytest

from tests.docs.pages import blocks
from tests.receivers import Receiver, status
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications import Channel, Notification, Outcome, Outgoing
from wakeline.gateway.notifications.channels import kinds
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.kinds import channels_of
from wakeline.gateway.rules import Notify

GUIDE = "docs/how-to/other-channels.md"
NOTIFICATION = Notification("msg_1", "ada", "s", b"{}", title="order-1", text="failed", url="https://app.example.com")


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    async with Outgoing(AddressGuard(["127.0.0.0/8"]), timeout=60.0) as found:
        yield found


class Services(ModuleType):
    """Stands for `apprise`: it knows `json://` and fails to reach `json://gone`."""

    sent: list[tuple[str, dict[str, str]]]

    def Apprise(self) -> Sender:  # noqa: N802 - the name of the class that it stands for
        return Sender(self.sent)


class Sender:
    def __init__(self, sent: list[tuple[str, dict[str, str]]]) -> None:
        self.url = ""
        self._sent = sent

    def add(self, url: str) -> bool:
        self.url = url
        return url.startswith("json://")

    def notify(self, **message: str) -> bool:
        with pytest.raises(RuntimeError):  # it blocks, so it is in a thread of its own
            asyncio.get_running_loop()
        self._sent.append((self.url, message))
        return self.url != "json://gone"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    found = Services("apprise")
    found.sent = []
    monkeypatch.setitem(sys.modules, "apprise", found)
    return found


@pytest.fixture
def installed(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's package is installed, and one whose entry point names no channel."""
    names = {"pyproject.toml": ""}
    for block in blocks(GUIDE):
        if block.file is not None and block.file.endswith(".py"):
            module = ModuleType(block.file.removesuffix(".py").replace("/", "."))
            exec(compile(block.padded(), block.place, "exec"), module.__dict__)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        names |= {block.file or "": block.code}
    monkeypatch.setitem(sys.modules, "my_channels", ModuleType("my_channels"))
    registered: dict[str, str] = tomllib.loads(names["pyproject.toml"])["project"]["entry-points"][kinds.GROUP]
    entries = EntryPoints(
        EntryPoint(name, value, kinds.GROUP)
        for name, value in {**registered, "strange": "json:JSONDecoder", "function": "json:loads"}.items()
    )
    monkeypatch.setattr(kinds, "entry_points", lambda *, group: entries.select(group=group))


def channel(outgoing: Outgoing, **table: Any) -> Channel:
    return channels_of({"team": table}, outgoing)["team"]


@pytest.mark.usefixtures("installed")
async def test_the_guide_s_channel_to_ntfy_sends_by_the_gateway_s_client(hook: Receiver, outgoing: Outgoing) -> None:
    ntfy = channel(outgoing, type="ntfy", url=hook.url, topic="orders", token="tk_1")
    assert await ntfy.send(NOTIFICATION) == Outcome("delivered", "200")
    (request,) = hook.received
    expected = {"topic": "orders", "title": "order-1", "message": "failed", "click": "https://app.example.com"}
    assert json.loads(request.body) == expected
    assert request.headers["authorization"] == "Bearer tk_1"
    hook.answers += [status(429, retry_after="7"), status(413)]
    assert await ntfy.send(NOTIFICATION) == Outcome("failed", "429", 7.0)
    assert await ntfy.send(NOTIFICATION) == Outcome("refused", "413")
    async with Outgoing(AddressGuard([])) as guarded:  # without `outgoing_networks`
        refused = await channel(guarded, type="ntfy", url=hook.url, topic="orders").send(NOTIFICATION)
    assert (refused.verdict, len(hook.received)) == ("failed", 3)


@pytest.mark.usefixtures("installed")
async def test_the_guide_s_channel_to_apprise_sends_in_a_thread(services: Services, outgoing: Outgoing) -> None:
    assert (await channel(outgoing, type="apprise", url="json://here").send(NOTIFICATION)).verdict == "delivered"
    assert services.sent == [("json://here", {"title": "order-1", "body": "failed"})]
    assert (await channel(outgoing, type="apprise", url="json://gone").send(NOTIFICATION)).verdict == "failed"


@pytest.mark.usefixtures("installed")
async def test_a_gateway_notifies_through_a_channel_of_another_package(serve: Serve, hook: Receiver) -> None:
    served = await serve(
        notify={"alerts": Notify(topics=("alert",), users=("ada",), grace=0)},
        channels={"team": {"type": "ntfy", "url": hook.url, "topic": "orders"}},
        outgoing_networks=("127.0.0.1",),
    )
    await served.publish("order-1", {"topic": "alert", "data": "no stock"})
    (request,) = await hook.until(1)
    assert json.loads(request.body) == {"topic": "orders", "title": "order-1", "message": "no stock"}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"type": "strange"}, "expected a subclass of Channel as the kind 'strange', got <class 'json.decoder"),
        ({"type": "function"}, "expected a subclass of Channel as the kind 'function', got <function loads"),
        ({"type": "pigeon"}, "to be one of apprise, function, ntfy, strange, web_push, webhook, got 'pigeon'"),
        ({"type": "ntfy"}, r"expected topic, and url and token, in channels.team, got \[\]"),
        ({"type": "apprise", "url": "nothing"}, "expected a url that Apprise knows in channels.team"),
    ],
)
async def test_what_is_no_channel_is_refused_by_its_name(outgoing: Outgoing, table: dict[str, Any], error: str) -> None:
    with pytest.raises(SettingsInvalidError, match=error):
        channel(outgoing, **table)
