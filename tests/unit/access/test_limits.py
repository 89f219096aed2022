"""Limits: what is counted of whom, what the one over the limit is told, and that nothing is kept of who has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from tests.clocks import Clock
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.errors import LimitReachedError, SettingsInvalidError
from wakeline.gateway.access import ANYONE, NOBODY, Addresses, Grant, Limits
from wakeline.gateway.access.limits import Rate
from wakeline.gateway.settings import Settings

ALICE = Grant("alice", ("*",), frozenset({"read"}))


class Transport:
    def __init__(self, peer: str) -> None:
        self.peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.peer, 4711) if name == "peername" else default


def request(peer: str = "192.0.2.1", forwarded: Iterable[str] = (), **headers: str) -> Any:
    named = [*headers.items(), *(("X-Forwarded-For", value) for value in forwarded)]
    return make_mocked_request("GET", "/", CIMultiDict(named), transport=Transport(peer))


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "caller"),
    [
        ((), "192.0.2.1", (), "192.0.2.1"),
        ((), "192.0.2.1", ("198.51.100.7",), "192.0.2.1"),
        ((), "127.0.0.1", (), None),
        ((), "127.0.0.1", ("198.51.100.7",), None),
        ((), "::1", (), None),
        ((), "::ffff:192.0.2.1", (), "192.0.2.1"),
        ((), "::ffff:127.0.0.1", (), None),
        ((), "2001:db8:1:2:3:4:5:6", (), "2001:db8:1:2::/64"),
        (("192.0.2.0/24",), "192.0.2.1", ("198.51.100.7",), "198.51.100.7"),
        (("192.0.2.0/24",), "192.0.2.1", (), "192.0.2.1"),
        (("127.0.0.1",), "127.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        (("127.0.0.1",), "127.0.0.1", ("203.0.113.1, 198.51.100.7",), "198.51.100.7"),
        (("127.0.0.1",), "127.0.0.1", ("203.0.113.1", "198.51.100.7"), "198.51.100.7"),
        (("127.0.0.1", "10.0.0.0/8"), "127.0.0.1", ("203.0.113.1, 198.51.100.7, 10.1.2.3",), "198.51.100.7"),
        (("127.0.0.1",), "127.0.0.1", ("[2001:db8::1]",), "2001:db8::/64"),
        (("192.0.2.1",), "192.0.2.1", ("unknown",), "192.0.2.1"),
        (("192.0.2.1",), "192.0.2.1", ("198.51.100.7, nonsense",), "192.0.2.1"),
        (("192.0.2.1",), "192.0.2.1", ("",), "192.0.2.1"),
        (("192.0.2.1",), "192.0.2.1", (",".join(["x"] * 5000),), "192.0.2.1"),
    ],
)
def test_the_address_is_the_peer_s_or_what_a_trusted_proxy_says(
    trusted: tuple[str, ...], peer: str, forwarded: tuple[str, ...], caller: str | None
) -> None:
    assert Addresses(trusted).caller(request(peer, forwarded)) == caller


@pytest.mark.parametrize("trusted", ["proxy.example", "10.0.0.0/33", ""])
def test_proxies_are_named_by_address(trusted: str) -> None:
    with pytest.raises(SettingsInvalidError, match="trusted_proxies"):
        Addresses([trusted])


def limits(**changed: Any) -> Limits:
    return Limits(Settings(**changed), Addresses())


def test_connections_of_a_user_are_counted_while_they_are_held() -> None:
    counted = limits(user_connections=2)
    with ExitStack() as held:
        for peer in ("192.0.2.1", "192.0.2.2"):
            held.enter_context(counted.connection(request(peer), ALICE))
        with pytest.raises(LimitReachedError, match="at most 2 connections of one user") as refusal:
            held.enter_context(counted.connection(request("192.0.2.3"), ALICE))
        assert refusal.value.headers() == {"Retry-After": "5"}
        held.enter_context(counted.connection(request("192.0.2.3"), Grant("bob", (), frozenset())))
    assert not counted._users
    assert not counted._callers


def test_connections_of_an_address_are_counted_whoever_the_users_are() -> None:
    counted = limits(address_connections=2)
    with ExitStack() as held:
        for name in ("alice", "bob"):
            held.enter_context(counted.connection(request(), Grant(name, (), frozenset())))
        with pytest.raises(LimitReachedError, match="one address"):
            held.enter_context(counted.connection(request(), Grant("carol", (), frozenset())))
        with pytest.raises(LimitReachedError), counted.address(request()):
            pass
        held.enter_context(counted.address(request("192.0.2.9")))
        assert set(counted._users) == {"alice", "bob"}  # who was refused is not counted
    assert not counted._users
    assert not counted._callers


def test_this_machine_and_zero_are_not_limited() -> None:
    here, elsewhere = request("127.0.0.1"), request()
    with ExitStack() as held:
        counted = limits(address_connections=1, user_connections=1, publish_rate=1, ticket_rate=1)
        for _ in range(100):
            held.enter_context(counted.connection(here, ANYONE))
            counted.publish(here, ANYONE, 1000)
            counted.ticket(here, ANYONE)
        counted = limits(address_connections=0, user_connections=0, publish_rate=0, ticket_rate=0, feed_subscriptions=0)
        for _ in range(100):
            held.enter_context(counted.connection(elsewhere, ALICE))
            counted.publish(elsewhere, ALICE, 1_000_000)
            counted.ticket(elsewhere, ALICE)
            counted.subscribe(10**6)


def test_a_rate_lets_bursts_pass_and_tells_how_long_to_wait() -> None:
    clock = Clock(0.0)
    rate = Rate(100, clock)
    assert rate.draw("a", 499) == 0
    assert rate.draw("a", 1000) == 0  # larger than the bucket: overdrawn, and paid for
    assert rate.draw("a", 1) == pytest.approx(9.99)
    assert rate.draw("b", 1) == 0
    clock.now = 9.9
    assert 0 < rate.draw("a", 1) < 0.2
    clock.now = 10.0
    assert rate.draw("a", 1) == 0
    taken = 0
    for step in range(10_000):  # in the long run it is the rate
        clock.now = 10 + step / 100
        taken += rate.draw("a", 10) == 0 and 10
    assert taken == pytest.approx(100 * 100, rel=0.02)


def test_who_is_limited_can_publish_again_when_it_was_told() -> None:
    counted = limits(publish_rate=10)
    counted.publish(request(), ALICE, 70)
    with pytest.raises(LimitReachedError) as refusal:
        counted.publish(request(), ALICE, 1)
    assert refusal.value.retry_after == 2
    counted.publish(request(), Grant("bob", (), frozenset()), 1)


def test_without_a_user_the_address_pays() -> None:
    counted = limits(publish_rate=10)
    counted.publish(request("192.0.2.1"), ANYONE, 1000)
    with pytest.raises(LimitReachedError):
        counted.publish(request("192.0.2.1"), ANYONE, 1)
    counted.publish(request("192.0.2.2"), ANYONE, 1)
    counted.publish(request("192.0.2.3"), Grant("192.0.2.1", (), frozenset()), 1)  # a user of an address's name


def test_what_is_remembered_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.gateway.access.limits._KEPT", 1000)
    clock = Clock(0.0)
    rate = Rate(100, clock)
    rate.draw("greedy", 10_000)
    for number in range(100_000):
        clock.now += 0.0001
        rate.draw(f"caller-{number}", 1)
        assert len(rate) <= 1000
    assert rate.draw("greedy", 1) > 0


def test_subscriptions_of_one_feed() -> None:
    counted = limits(feed_subscriptions=3)
    counted.subscribe(2)
    with pytest.raises(LimitReachedError, match="at most 3"):
        counted.subscribe(3)
    with counted.address(request()), counted.user(NOBODY), counted.user(ALICE):
        pass


async def test_over_the_limit_the_answer_is_429_and_says_when(serve: Serve) -> None:
    served = await serve(
        token_secret=SECRET, user_connections=2, publish_rate=1.0, ticket_rate=1.0, engine="memory", write_timeout=1.0
    )

    async def refused(served: Served, method: str, path: str, **how: Any) -> bool:
        async with served.http.request(method, path, headers=bearer() | how.pop("headers", {}), **how) as answer:
            if answer.status != 429:
                return False
            body = await answer.json()
            assert body["error"]["code"] == "limit_reached"
            assert int(answer.headers["Retry-After"]) == body["error"]["retry_after"] >= 1
            return True

    events = {"events": [{"topic": "t"}] * 9}
    assert not await refused(served, "POST", "/v1/sessions/s/events", json=events)
    assert await refused(served, "POST", "/v1/sessions/s/events", json=events)
    began = time.monotonic()
    refusals = [await refused(served, "POST", "/v1/tickets") for _ in range(20)]
    # Five, the one that the last draws on, and one for each second since.
    assert not any(refusals[:6])
    assert refusals.count(False) <= 6 + (time.monotonic() - began)

    streams = [await served.stream("s", **bearer()) for _ in range(2)]
    path = "/v1/sessions/s/events"
    assert await refused(served, "GET", path, headers={"Accept": "text/event-stream"})
    assert await refused(served, "GET", f"{path}?from=now&wait=1")
    assert not await refused(served, "GET", path)  # a page is over at once
    assert await refused(served, "GET", f"{path}?view=compact")  # all of the session, however long that takes
    streams.append(await served.stream("s", **bearer(sub="bob")))
    assert streams[2].answer.status == 200
    streams[0].close()
    async with asyncio.timeout(60):
        while await refused(served, "GET", f"{path}?from=now&wait=0.01"):
            await asyncio.sleep(0.05)
    for stream in streams:
        stream.close()


async def test_behind_a_proxy_each_address_has_its_own(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, address_connections=1, trusted_proxies=("127.0.0.1",), engine="memory")
    await served.call("POST", "/v1/sessions/s/events", json={"events": [{"topic": "t"}]}, headers=bearer())
    streams = []
    for peer, status in (("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)):
        stream = await served.stream("s", **bearer(), **{"X-Forwarded-For": peer})
        streams.append(stream)
        assert stream.answer.status == status
    for stream in streams:
        stream.close()
