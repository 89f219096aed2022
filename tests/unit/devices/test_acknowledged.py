from __future__ import annotations

import asyncio
from contextlib import ExitStack

import msgspec
import pytest

from tests.support import publish
from tests.unit.devices.conftest import Counting, listed
from wakeline.errors import (
    CursorAheadError,
    CursorInvalidError,
    EpochChangedError,
    SessionNotFoundError,
    StorageFailedError,
)
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.devices.records import PARTS
from wakeline.gateway.log import SessionState


async def test_what_is_acknowledged_is_stored(engine: Counting, epoch: str, kept: Positions) -> None:
    position = await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    assert (position.user, position.device, position.seen, position.delivered) == ("alice", "phone", f"{epoch}-7", None)
    assert (position.lag, position.connected) == (3, False)
    async with Positions(engine, Presence()) as other:
        assert await other.seen("s", epoch, "alice", "phone") == 7
        assert await other.devices("s") == [position]


async def test_a_device_that_has_seen_more_than_the_state_that_was_read_has_no_lag(
    engine: Counting, epoch: str, kept: Positions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-10")
    state = await engine.found("s")

    async def found(_: str) -> SessionState:
        return msgspec.structs.replace(state, next_offset=8)

    monkeypatch.setattr(engine, "found", found)
    assert (await listed(kept))["phone"].lag == 0


async def test_an_older_cursor_changes_nothing(epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    assert (await kept.acknowledge("s", "alice", "phone", f"{epoch}-3")).seen == f"{epoch}-7"
    assert await kept.seen("s", epoch, "alice", "phone") == 7


async def test_users_devices_and_sessions_do_not_meet(engine: Counting, epoch: str, kept: Positions) -> None:
    other = (await publish(engine, "t", *range(5))).epoch
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-1")
    await kept.acknowledge("s", "bob", "phone", f"{epoch}-2")
    await kept.acknowledge("s", "alice", "laptop", f"{epoch}-3", everywhere=False)
    await kept.acknowledge("t", "alice", "phone", f"{other}-4", everywhere=True)
    assert [(p.user, p.device, p.seen) for p in await kept.devices("s")] == [
        ("alice", "laptop", f"{epoch}-3"),
        ("alice", "phone", f"{epoch}-1"),
        ("bob", "phone", f"{epoch}-2"),
    ]
    assert [p.user for p in await kept.devices("s", "bob")] == ["bob"]
    assert await kept.seen("s", epoch, "alice", "tablet") is None


@pytest.mark.parametrize(
    ("cursor", "error"),
    [
        ("", CursorInvalidError),
        ("7", CursorInvalidError),
        ("{epoch}--1", CursorInvalidError),
        ("{epoch}-07", CursorInvalidError),
        ("{epoch}-9223372036854775808", CursorInvalidError),
        ("{epoch}-11", CursorAheadError),
        ("{epoch}-900000000000000000", CursorAheadError),
        ("aaaaaaaaaa-1", EpochChangedError),
    ],
)
async def test_a_cursor_that_is_none_of_this_session(
    engine: Counting, epoch: str, kept: Positions, cursor: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await kept.acknowledge("s", "alice", "phone", cursor.format(epoch=epoch), everywhere=True)
    assert engine.writes == 0
    assert await kept.devices("s") == []


async def test_a_session_that_is_not_there(epoch: str, kept: Positions) -> None:
    with pytest.raises(SessionNotFoundError):
        await kept.acknowledge("none", "alice", "phone", f"{epoch}-1")
    with pytest.raises(SessionNotFoundError):
        await kept.devices("none")
    with pytest.raises(SessionNotFoundError):
        await kept.forget("none", "alice", "phone")
    assert not kept._parts


async def test_everywhere_raises_the_users_other_devices(epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "ahead", f"{epoch}-9")
    await kept.acknowledge("s", "alice", "behind", f"{epoch}-1")
    await kept.acknowledge("s", "bob", "bobs", f"{epoch}-2")
    with kept.connected("s", epoch, "alice", "there", lambda: 3):
        await kept.acknowledge("s", "alice", "phone", f"{epoch}-6", everywhere=True)
        assert {device: p.seen for device, p in (await listed(kept)).items()} == {
            "ahead": f"{epoch}-9",
            "behind": f"{epoch}-6",
            "bobs": f"{epoch}-2",
            "phone": f"{epoch}-6",
            "there": f"{epoch}-6",
        }
    assert await kept.seen("s", epoch, "alice", "there") == 6


async def test_two_gateways_on_one_engine_converge(engine: Counting, epoch: str, kept: Positions) -> None:
    async with Positions(engine, Presence()) as other:
        for n in range(9):
            gateways = (kept, other) if n % 2 else (other, kept)
            await asyncio.gather(
                *(
                    gateway.acknowledge("s", "alice", device, f"{epoch}-{n + more}")
                    for more, gateway in enumerate(gateways)
                    for device in ("phone", "laptop", *map(str, range(20)))
                )
            )
            assert {p.seen for p in await kept.devices("s")} == {f"{epoch}-{n + 1}"}
        with other.connected("s", epoch, "alice", "phone", lambda: 5):
            await other.save()
        assert (await listed(kept))["phone"].delivered == f"{epoch}-5"
        assert (await listed(kept))["phone"].seen == f"{epoch}-9"


async def test_everywhere_reaches_devices_that_another_gateway_knows(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    async with Positions(engine, Presence()) as other:
        with ExitStack() as connected:
            for n in range(100):  # so that `kept` has read every part before the others come
                connected.enter_context(kept.connected("s", epoch, "bob", str(n), lambda: 0))
            await kept.save()
            assert len(kept._parts) == PARTS
            for n in range(3 * PARTS):
                await other.acknowledge("s", "alice", str(n), f"{epoch}-1")
            await kept.acknowledge("s", "alice", "phone", f"{epoch}-4", everywhere=True)
        assert {p.seen for p in await other.devices("s", "alice")} == {f"{epoch}-4"}


async def test_what_comes_during_a_write_goes_into_the_next(engine: Counting, epoch: str, kept: Positions) -> None:
    engine.delay = 0.02
    acknowledging = []
    for n in range(500):
        acknowledging.append(asyncio.ensure_future(kept.acknowledge("s", "alice", "phone", f"{epoch}-{n % 11}")))
        if n % 10 == 0:
            await asyncio.sleep(0.001)
    answers = await asyncio.gather(*acknowledging)
    assert answers[-1].seen == f"{epoch}-10"
    assert 2 <= engine.writes <= 25


async def test_a_thousand_devices_at_once_are_a_write_for_each_part(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    await asyncio.gather(*(kept.acknowledge("s", f"user-{n}", "phone", f"{epoch}-{n % 11}") for n in range(1000)))
    assert engine.writes <= PARTS
    assert len(await kept.devices("s")) == 1000


async def test_a_store_that_fails_is_told_and_delivered_waits(engine: Counting, epoch: str, kept: Positions) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 5):
        pass
    engine.failing = True
    with pytest.raises(StorageFailedError):
        await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    with pytest.raises(StorageFailedError):
        await kept.save()
    engine.failing = False
    phone = (await listed(kept))["phone"]
    assert (phone.seen, phone.delivered) == (None, f"{epoch}-5")
    assert (await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")).delivered == f"{epoch}-5"
    await kept.save()
    assert not kept._parts


async def test_one_who_leaves_takes_nothing_from_the_others(engine: Counting, epoch: str, kept: Positions) -> None:
    engine.delay = 0.5
    first, second = (asyncio.ensure_future(kept.acknowledge("s", "alice", "phone", f"{epoch}-{n}")) for n in (3, 5))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).seen == f"{epoch}-5"
    with pytest.raises(asyncio.CancelledError):
        await first
