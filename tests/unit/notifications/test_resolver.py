"""Names are looked up in threads of their own: users choose the names of push services, and some never resolve."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pushes import channel, push_service
from tests.receivers import Receiver
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.notifications.channels.resolver import MOST_ALIKE, Resolver, looking_up_for
from wakeline.gateway.rules import Notify

HANGS = ".hangs.example"


class Names:
    """The name servers. Those of some names do not answer until the test is over."""

    def __init__(self, real: Any) -> None:
        self.over = threading.Event()
        self.under_way: Counter[str] = Counter()
        self.looked_up: list[str] = []
        self._real = real

    def getaddrinfo(self, host: Any, *args: Any, **how: Any) -> Any:
        if not str(host).endswith(".example"):
            return self._real(host, *args, **how)
        self.looked_up.append(host)
        if host.endswith(HANGS):
            self.under_way[host] += 1
            self.over.wait(60)
            self.under_way[host] -= 1
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.over.set()


async def test_names_that_never_resolve_delay_only_the_user_who_chose_them(
    serve: Serve, hook: Receiver, names: Names
) -> None:
    rules = {
        "alerts": Notify(topics=("alert",), users=("mallory", "bob"), grace=0, channels=("phones",)),
        "news": Notify(topics=("news",), users=("ada",), grace=0, channels=("ops",)),
    }
    ops = {**hook.channel(), "url": hook.url.replace("127.0.0.1", "localhost")}
    served = await serve(
        notify=rules, channels={"phones": channel(), "ops": ops}, token_secret=SECRET, outgoing_networks=("127.0.0.1",)
    )
    async with push_service() as service:
        for number in range(20):
            await subscribe(served, service.browser("m"), "mallory", f"https://p{number}{HANGS}/push", f"p{number}")
        writer = bearer(sub="w", sessions=["*"], allow=["publish"])
        for number in range(4):
            await served.call("POST", f"/v1/sessions/s{number}/events", json={"events": [ALERT]}, headers=writer)
        async with asyncio.timeout(60):
            while names.under_way.total() < MOST_ALIKE:
                await asyncio.sleep(0.02)
        await subscribe(served, service.browser("b"), "bob", "https://quick.example/push", "phone")
        for topic in ("alert", "news"):
            event = {"topic": topic, "data": 1}
            await served.call("POST", "/v1/sessions/t/events", json={"events": [event]}, headers=writer)
        async with asyncio.timeout(60):
            await hook.until(1)
            while "quick.example" not in names.looked_up:
                await asyncio.sleep(0.02)
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 60)
        assert names.under_way.total() == MOST_ALIKE


ALERT = {"topic": "alert", "data": 1}


async def subscribe(served: Any, browser: Any, user: str, endpoint: str, device: str) -> None:
    body = {**browser.subscription(), "endpoint": endpoint}
    headers = bearer(sub=user, sessions=["*"], allow=["ack"])
    code, answer = await served.call("PUT", f"/v1/push/subscriptions/{device}", json=body, headers=headers)
    assert code == 200, answer


async def test_a_look_up_counts_until_it_ends_also_if_nobody_waits_for_it(names: Names) -> None:
    resolver = Resolver()
    with looking_up_for("mallory"):
        left = [asyncio.create_task(resolver.resolve(f"a{number}{HANGS}")) for number in range(3 * MOST_ALIKE)]
        next_one = asyncio.create_task(resolver.resolve("quick.example"))
    async with asyncio.timeout(60):
        while names.under_way.total() < MOST_ALIKE:
            await asyncio.sleep(0.01)
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=60)
    assert [task.cancelled() for task in left] == [True] * len(left)
    await asyncio.wait([next_one], timeout=0.1)
    assert (next_one.done(), names.under_way.total()) == (False, MOST_ALIKE)
    names.over.set()
    with pytest.raises(OSError, match="no such name"):
        await asyncio.wait_for(next_one, 60)


async def test_a_name_resolves_to_its_addresses() -> None:
    found = await Resolver().resolve("localhost", 80, socket.AF_INET)
    assert {(one["host"], one["port"]) for one in found} == {("127.0.0.1", 80)}


async def test_those_who_ask_for_a_name_at_the_same_time_share_the_answer(names: Names) -> None:
    resolver = Resolver()
    asking = [asyncio.create_task(resolver.resolve(f"one{HANGS}")) for _ in range(10)]
    async with asyncio.timeout(60):
        while not names.looked_up:
            await asyncio.sleep(0.01)
    names.over.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in outcomes] == [socket.gaierror] * 10
    assert names.looked_up == [f"one{HANGS}"]
