from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hypothesis import given
from hypothesis import strategies as st

from wakeline.gateway.devices import Change, Presence
from wakeline.gateway.devices.presence import Watch, Who


@contextmanager
def there(presence: Presence, session: str, user: str, device: str) -> Iterator[None]:
    presence.come(session, user, device)
    try:
        yield
    finally:
        presence.go(session, user, device)


def told(watch: Watch) -> list[tuple[str, str, str]]:
    return [(change.event, change.user, change.device) for change in watch.take()]


def test_who_comes_and_goes_is_told_in_order() -> None:
    presence = Presence()
    with presence.watch("s") as watch:
        assert told(watch) == []
        with there(presence, "s", "alice", "phone"):
            assert told(watch) == [("join", "alice", "phone")]
            with there(presence, "s", "bob", "phone"), there(presence, "s", "alice", "laptop"):
                assert told(watch) == [("join", "bob", "phone"), ("join", "alice", "laptop")]
            assert told(watch) == [("leave", "alice", "laptop"), ("leave", "bob", "phone")]
        assert told(watch) == [("leave", "alice", "phone")]


def test_it_begins_with_everyone_who_is_there() -> None:
    presence = Presence()
    with there(presence, "s", "alice", "phone"), there(presence, "s", "", "tab"), there(presence, "t", "bob", "phone"):
        with presence.watch("s") as watch:
            assert told(watch) == [("join", "alice", "phone"), ("join", "", "tab")]
            assert told(watch) == []
        assert presence.present("s") == [("alice", "phone"), ("", "tab")]
        assert presence.devices() == 3


async def test_a_device_is_there_while_one_of_its_connections_is() -> None:
    presence = Presence()
    with presence.watch("s") as watch, ExitStack() as second:
        with there(presence, "s", "alice", "phone"):
            second.enter_context(there(presence, "s", "alice", "phone"))
            assert told(watch) == [("join", "alice", "phone")]
        assert told(watch) == []
        assert await presence.is_there("s", "alice", "phone")
        second.close()
        assert told(watch) == [("leave", "alice", "phone")]
        assert not await presence.is_there("s", "alice", "phone")


def test_nothing_is_kept_of_sessions_without_anyone() -> None:
    presence = Presence()
    with there(presence, "s", "alice", "phone"), presence.watch("s"), presence.watch("t"):
        pass
    assert not presence._rooms
    assert presence.devices() == 0


def test_who_is_slow_is_told_what_is_true_then_and_holds_an_entry_a_device() -> None:
    presence = Presence()
    with (
        there(presence, "s", "alice", "stays"),
        there(presence, "s", "alice", "returns") as _,
        presence.watch("s") as slow,
    ):
        for _ in range(1000):
            with there(presence, "s", "bob", "flaps"):
                pass
        assert told(slow) == [("join", "alice", "stays"), ("join", "alice", "returns")]
        with ExitStack() as flapping:
            for _ in range(1000):
                flapping.enter_context(there(presence, "s", "bob", "flaps"))
                flapping.close()
                flapping.enter_context(there(presence, "s", "bob", "flaps"))
            assert len(slow._pending) == 1
            assert told(slow) == [("join", "bob", "flaps")]
        assert told(slow) == [("leave", "bob", "flaps")]


async def test_next_waits_for_a_change() -> None:
    presence = Presence()
    with presence.watch("s") as watch:
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        with there(presence, "s", "alice", "phone"):
            assert await waiting == [Change("join", "alice", "phone")]
            again = asyncio.ensure_future(watch.next())
            await asyncio.sleep(0)
            assert not again.done()
        assert await again == [Change("leave", "alice", "phone")]


async def test_next_is_not_woken_for_nothing() -> None:
    presence = Presence()
    with presence.watch("s") as watch:
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        with there(presence, "s", "alice", "phone"):
            pass
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        with there(presence, "s", "bob", "phone"):
            assert await waiting == [Change("join", "bob", "phone")]


Act = tuple[int, int, bool]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=60))
def test_whenever_it_is_taken_it_leads_to_what_is_there(acts: list[Act]) -> None:
    presence = Presence()
    connections: dict[Who, list[ExitStack]] = {}
    believed: set[Who] = set()
    with presence.watch("s") as watch:
        for device, take, comes in acts:
            who = ("alice", str(device))
            held = connections.setdefault(who, [])
            if comes:
                held.append(ExitStack())
                held[-1].enter_context(there(presence, "s", *who))
            elif held:
                held.pop(0).close()
            if take == 0:
                for change in watch.take():
                    about = (change.user, change.device)
                    assert (about in believed) == (change.event == "leave"), "join and leave alternate"
                    (believed.add if change.event == "join" else believed.remove)(about)
                assert believed == {who for who, there in connections.items() if there}
            assert len(watch._pending) <= len(connections)
    for held in connections.values():
        for connection in held:
            connection.close()
    assert not presence._rooms
