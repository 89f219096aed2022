from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import ExitStack
from functools import partial

import msgspec
import pytest

from tests.support import publish
from tests.unit.devices.conftest import Counting, listed
from wakeline.gateway.devices import Positions, Presence, positions
from wakeline.gateway.devices import parts as position_parts
from wakeline.gateway.devices import records as position_records
from wakeline.gateway.devices.records import PARTS
from wakeline.gateway.log import MAX_RECORD_BYTES, Record


async def test_delivered_is_asked_for_and_not_counted(engine: Counting, epoch: str, kept: Positions) -> None:
    offset = 0
    with kept.connected("s", epoch, "alice", "phone", lambda: offset):
        await kept.save()
        assert engine.writes == 1
        for offset in range(9):
            assert (await listed(kept))["phone"].delivered == f"{epoch}-{offset}"
        assert engine.writes == 1
        await kept.save()
        await kept.save()
        assert engine.writes == 2
        offset = 10
    assert (await listed(kept))["phone"].delivered == f"{epoch}-10"
    assert engine.writes == 2, "a device that leaves is no commit of its own"
    await kept.save()
    assert engine.writes == 3
    assert not kept._parts, "a session that nobody uses is dropped"
    async with Positions(engine, Presence()) as other:
        assert (await listed(other))["phone"].delivered == f"{epoch}-10"
        assert (await listed(other))["phone"].seen is None


async def test_delivered_is_saved_by_itself(engine: Counting, epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "SAVE_SECONDS", 0.01)
    async with Positions(engine, Presence()) as kept, asyncio.timeout(60):
        with kept.connected("s", epoch, "alice", "phone", lambda: 4):
            while not engine.writes:
                await asyncio.sleep(0.01)
        while kept._parts:
            await asyncio.sleep(0.01)


async def test_delivered_is_saved_at_the_end(engine: Counting, epoch: str) -> None:
    async with Positions(engine, Presence()) as kept:
        with kept.connected("s", epoch, "alice", "phone", lambda: 4):
            pass
        kept.delivered("s", epoch, "alice", "laptop", 6)
    async with Positions(engine, Presence()) as other:
        assert {p.device: p.delivered for p in await other.devices("s")} == {
            "phone": f"{epoch}-4",
            "laptop": f"{epoch}-6",
        }


async def test_of_several_connections_the_furthest_counts(epoch: str, kept: Positions) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 2):
        with kept.connected("s", epoch, "alice", "phone", lambda: 8):
            assert (await listed(kept))["phone"].delivered == f"{epoch}-8"
        phone = (await listed(kept))["phone"]
        assert (phone.delivered, phone.connected) == (f"{epoch}-8", True)
        await kept.save()
    phone = (await listed(kept))["phone"]
    assert (phone.delivered, phone.connected) == (f"{epoch}-8", False)


async def test_each_connection_has_its_own_transport_when_another_ends(epoch: str, kept: Positions) -> None:
    offsets = {"first": 2, "second": 8, "third": 5}
    connections = {
        name: kept.connected("s", epoch, "alice", "phone", partial(offsets.__getitem__, name), transport)
        for name, transport in {"first": "sse", "second": "websocket", "third": "sse"}.items()
    }
    with connections["first"], connections["second"]:
        with connections["third"]:
            assert kept.written("s", epoch, "alice", "phone") == [("sse", 2), ("websocket", 8), ("sse", 5)]
        assert kept.written("s", epoch, "alice", "phone") == [("sse", 2), ("websocket", 8)]
    assert kept.written("s", epoch, "alice", "phone") == []


async def test_positions_only_grow_when_a_device_reads_again(epoch: str, kept: Positions) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 8):
        await kept.save()
    with kept.connected("s", epoch, "alice", "phone", lambda: 1):
        await kept.save()
        assert (await listed(kept))["phone"].delivered == f"{epoch}-8"
    await kept.save()
    assert (await listed(kept))["phone"].delivered == f"{epoch}-8"


async def test_what_is_delivered_during_a_save_goes_into_the_next(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    engine.delay = 0.02
    kept.delivered("s", epoch, "alice", "phone", 3)
    saving = asyncio.ensure_future(kept.save())
    await asyncio.sleep(0.01)
    kept.delivered("s", epoch, "alice", "phone", 6)
    await saving
    await kept.save()
    async with Positions(engine, Presence()) as other:
        assert (await listed(other))["phone"].delivered == f"{epoch}-6"


async def test_lag_counts_what_is_kept(engine: Counting, epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-2")
    await kept.acknowledge("s", "alice", "laptop", f"{epoch}-9")
    with kept.connected("s", epoch, "alice", "tablet", lambda: 1):
        assert {d: p.lag for d, p in (await listed(kept)).items()} == {"phone": 8, "laptop": 1, "tablet": 10}
        await publish(engine, "s", 10, 11)
        assert await engine.trim("s", 4, epoch=epoch) == 4
        assert {d: p.lag for d, p in (await listed(kept)).items()} == {"phone": 8, "laptop": 3, "tablet": 8}


async def test_last_active_is_when_it_was_last_heard_of(
    epoch: str, kept: Positions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1_767_225_600_000
    monkeypatch.setattr(position_parts, "now", lambda: clock)
    monkeypatch.setattr(positions, "now", lambda: clock)
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-2")
    with kept.connected("s", epoch, "alice", "laptop", lambda: 1):
        clock += 5_000
        assert {d: p.last_active for d, p in (await listed(kept)).items()} == {
            "phone": "2026-01-01T00:00:00.000Z",
            "laptop": "2026-01-01T00:00:05.000Z",
        }
    clock += 5_000
    assert (await listed(kept))["laptop"].last_active == "2026-01-01T00:00:05.000Z"


async def test_a_full_record_forgets_those_who_were_away_longest(
    engine: Counting, epoch: str, kept: Positions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_records, "MAX_RECORD_BYTES", 1000)
    clock = 0

    def tick() -> int:
        nonlocal clock
        clock += 1
        return clock

    monkeypatch.setattr(position_parts, "now", tick)
    monkeypatch.setattr(positions, "now", tick)
    for n in range(1000):
        await kept.acknowledge("s", "alice", f"device-{n}", f"{epoch}-1")
    assert all(len(record.value) <= 1000 for record in await engine.records("positions/"))
    known = {p.device for p in await kept.devices("s")}
    assert 100 < len(known) < 16 * 30
    assert {f"device-{n}" for n in range(980, 1000)} <= known


async def test_a_record_that_was_stored_before_the_limit_is_read_and_shortened_by_the_next_write(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    number = position_records.part_of(("alice", "phone"))
    entries = {
        ("", f"device-{n:0100}"): position_records.Entry("", f"device-{n:0100}", None, 3, active=n) for n in range(3000)
    }
    value = msgspec.json.encode({"epoch": epoch, "devices": list(entries.values())})
    assert len(value) > MAX_RECORD_BYTES
    key = position_records.record_key("s", number)
    engine._records[key] = Record(key, value, 1)  # as an earlier version could write it
    assert len(await kept.devices("s")) == 3000
    assert (await kept.acknowledge("s", "alice", "phone", f"{epoch}-1")).seen == f"{epoch}-1"
    record = await engine.get_record(key)
    assert record is not None
    assert len(record.value) <= MAX_RECORD_BYTES
    known = {position.device for position in await kept.devices("s")}
    assert {"phone", f"device-{2999:0100}"} <= known
    assert f"device-{0:0100}" not in known


async def test_ten_thousand_devices_are_bounded_and_leave_nothing(engine: Counting, epoch: str) -> None:
    count = 10_000
    names = [f"device-{n}" for n in range(count)]
    async with Positions(engine, Presence()) as kept:
        tracemalloc.start()
        try:
            with ExitStack() as connected:
                for name in names:
                    connected.enter_context(kept.connected("s", epoch, name, "phone", lambda: 5))
                await kept.save()
                held, _ = tracemalloc.get_traced_memory()
                assert engine.writes == PARTS
            await kept.save()
            assert not kept._parts
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        stored = sum(len(record.value) for record in await engine.records("positions/"))
        assert held / count < 1_500
        assert left < 2 * stored + 500_000
        assert len(await kept.devices("s")) == count
