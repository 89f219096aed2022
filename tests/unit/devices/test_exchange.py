"""Presence of gateways that share a store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from tests.sharing import Faults, SharedEngine, SharedStore
from wakeline.gateway.devices import Exchange, Presence, exchange
from wakeline.gateway.devices.presence import Watch, Who
from wakeline.gateway.log import MAX_RECORD_BYTES
from wakeline.gateway.ownership import Ownership


class Gateway:
    """The part of a gateway that knows who is connected, until its process ends."""

    def __init__(self, engine: SharedEngine, lease: float) -> None:
        self.engine = engine
        self.presence = Presence()
        self.ownership = Ownership(engine, lease, shared=True)
        self.stack = AsyncExitStack()

    async def start(self) -> None:
        await self.ownership.start()
        self.stack.push_async_callback(self.ownership.stop)
        await self.stack.enter_async_context(Exchange(self.presence, self.engine, self.ownership))


class Believed:
    """The devices that a watcher of a session believes to be there."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._there: set[Who] = set()

    def there(self) -> set[Who]:
        for change in self._watch.take():
            who = (change.user, change.device)
            assert (who in self._there) == (change.event == "leave"), "join and leave alternate"
            (self._there.add if change.event == "join" else self._there.remove)(who)
        return self._there


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(exchange, "_CLEAN_SECONDS", 0.1)


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
async def gateways(store: SharedStore, request: pytest.FixtureRequest) -> AsyncIterator[list[Gateway]]:
    """Three gateways, with leases of a minute unless the test is about their end."""
    faults = Faults(latency=0.002, lost_answers=0.1)
    started = [Gateway(store.engine(faults, seed), getattr(request, "param", 60.0)) for seed in range(3)]
    for gateway in started:
        await gateway.start()
    yield started
    for gateway in started:
        gateway.engine.faults = Faults()
        await gateway.stack.aclose()


@pytest.fixture
def watching() -> Iterator[Callable[[Gateway, str], Believed]]:
    with ExitStack() as stack:
        yield lambda gateway, session: Believed(stack.enter_context(gateway.presence.watch(session)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_watcher_comes_to_know_who_is_there(
    gateways: list[Gateway], store: SharedStore, watching: Callable[[Gateway, str], Believed]
) -> None:
    chance = random.Random(7)
    sessions = ["s", "a/b"]
    believed = [(session, watching(gateway, session)) for gateway in gateways for session in sessions]
    connections: list[tuple[Gateway, str, Who]] = []
    there: dict[str, set[Who]] = {}
    for _ in range(5):
        for _ in range(60):
            gateway, who = chance.choice(gateways), ("alice", f"device-{chance.randrange(8)}")
            if connections and chance.random() < 0.45:
                left, session, gone = connections.pop(chance.randrange(len(connections)))
                left.presence.go(session, *gone)
            else:
                session = chance.choice(sessions)
                gateway.presence.come(session, *who)
                connections.append((gateway, session, who))
            await asyncio.sleep(0.001)
        there.update({each: {who for _, session, who in connections if session == each} for each in sessions})
        await until(lambda: all(each.there() == there[session] for session, each in believed))
        for session in sessions:
            for gateway in gateways:
                assert await gateway.presence.everywhere(session) == there[session]
                assert await gateway.presence.is_there(session, "alice", "device-0") == (
                    ("alice", "device-0") in there[session]
                )
    for gateway, session, who in connections:
        gateway.presence.go(session, *who)
    await until(lambda: all(not each.there() for _, each in believed))
    await until(lambda: not [key for key in store.memory._records if key.startswith("presence/")])


async def test_a_device_that_stays_costs_no_writes_and_many_that_come_at_once_few(
    gateways: list[Gateway], store: SharedStore, watching: Callable[[Gateway, str], Believed]
) -> None:
    first, second, _ = gateways
    for gateway in gateways:
        gateway.engine.faults = Faults()
    believed = watching(second, "s")
    writes: list[str] = []
    change = first.engine.change_record

    async def counted(key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        if key.startswith("presence/"):
            writes.append(key)
        return await change(key, value, revision=revision, erase=erase)

    first.engine.change_record = counted  # type: ignore[method-assign]  # of this one engine
    for number in range(500):
        first.presence.come("s", "alice", f"device-{number}")
    await until(lambda: len(believed.there()) == 500)
    assert len(writes) == 1
    await asyncio.sleep(0.3)
    assert len(writes) == 1
    for number in range(10_000):
        first.presence.come("s", "alice", f"another-device-{number:050}")
    await until(lambda: len(believed.there()) == 10_500)
    sizes = [len(record.value) for record in await store.memory.records("presence/")]
    assert len(sizes) > 4
    assert max(sizes) <= MAX_RECORD_BYTES
    assert len(writes) <= 2 * len(sizes)
    assert await second.presence.is_there("s", "alice", "device-7")


@pytest.mark.parametrize("gateways", [1.0], indirect=True)
async def test_the_devices_of_a_gateway_that_vanishes_leave_and_return_with_it(
    gateways: list[Gateway], store: SharedStore, watching: Callable[[Gateway, str], Believed]
) -> None:
    first, second, _ = gateways
    believed = watching(second, "s")
    first.presence.come("s", "alice", "phone")
    await until(lambda: believed.there() == {("alice", "phone")})
    first.engine.cut = True
    await until(lambda: not believed.there())
    await until(lambda: not [key for key in store.memory._records if key.startswith("presence/")])
    first.engine.cut = False
    await until(lambda: believed.there() == {("alice", "phone")})
    first.presence.go("s", "alice", "phone")


async def test_a_gateway_that_starts_removes_what_ended_gateways_have_left(
    gateways: list[Gateway], store: SharedStore
) -> None:
    await store.memory.put_record("presence/0123456789abcdef/0/s", b'{"parts":1,"devices":[["","old"]]}', revision=0)
    another = Gateway(store.engine(seed=9), 60.0)
    await another.start()
    await until(lambda: "presence/0123456789abcdef/0/s" not in store.memory._records)
    assert await another.presence.everywhere("s") == frozenset()
    await another.stack.aclose()
