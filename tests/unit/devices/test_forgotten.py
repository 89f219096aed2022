from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from tests.support import publish
from tests.unit.devices.conftest import Counting, listed
from wakeline.errors import (
    EpochChangedError,
    SessionNotFoundError,
)
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.devices.positions import DevicePosition
from wakeline.gateway.devices.records import PARTS
from wakeline.gateway.log import Record, SessionState


async def test_a_forgotten_device_is_unknown(engine: Counting, epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    with kept.connected("s", epoch, "alice", "phone", lambda: 3):
        pass
    await kept.forget("s", "alice", "phone")
    await kept.forget("s", "alice", "never there")
    await kept.save()
    assert await kept.devices("s") == []
    assert (await kept.acknowledge("s", "alice", "phone", f"{epoch}-2")).seen == f"{epoch}-2"


async def test_a_forgotten_device_that_is_connected_has_seen_nothing(epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    with kept.connected("s", epoch, "alice", "phone", lambda: 8):
        await kept.save()
        await kept.forget("s", "alice", "phone")
        await kept.save()
        phone = (await listed(kept))["phone"]
        assert (phone.seen, phone.delivered, phone.connected) == (None, f"{epoch}-8", True)


async def test_a_device_that_another_gateway_made_known_is_forgotten(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    async with Positions(engine, Presence()) as other:
        with ExitStack() as connected:
            for n in range(100):
                connected.enter_context(kept.connected("s", epoch, "bob", str(n), lambda: 0))
            await kept.save()
            assert len(kept._parts) == PARTS
            await other.acknowledge("s", "alice", "phone", f"{epoch}-1")
            await kept.forget("s", "alice", "phone")
            assert await other.devices("s", "alice") == []


@pytest.mark.parametrize("begun_again", [False, True])
async def test_a_position_that_is_written_during_a_deletion_elsewhere_leaves_nothing(
    engine: Counting, epoch: str, kept: Positions, begun_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_record = engine.put_record

    async def late(key: str, value: bytes, *, revision: int) -> Record:
        async with Positions(engine, Presence()) as elsewhere:
            await engine.delete_session("s")
            if begun_again:
                await publish(engine, "s", *range(10))
            await elsewhere.forget_session("s")
        return await put_record(key, value, revision=revision)

    monkeypatch.setattr(engine, "put_record", late)
    with pytest.raises(EpochChangedError if begun_again else SessionNotFoundError):
        await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    assert await engine.records("positions/") == []


async def test_an_erased_session_leaves_nothing(engine: Counting, epoch: str, kept: Positions) -> None:
    engine.delay = 0.01
    with kept.connected("s", epoch, "alice", "phone", lambda: 3):
        acknowledging = [asyncio.ensure_future(kept.acknowledge("s", "alice", str(n), f"{epoch}-7")) for n in range(50)]
        await asyncio.sleep(0.005)
        await engine.delete_session("s")
        await kept.forget_session("s")
        assert await engine.records("positions/") == []
        answers = await asyncio.gather(*acknowledging, return_exceptions=True)
        assert all(isinstance(answer, DevicePosition | SessionNotFoundError) for answer in answers)
        await kept.save()
    await kept.save()
    assert await engine.records("positions/") == []
    assert not kept._parts


async def test_a_connection_that_outlives_its_session_writes_nothing(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 3):
        await kept.forget("s", "alice", "phone")  # its record has been looked for, and there is none
        await engine.delete_session("s")
        await kept.forget_session("s")
    await kept.save()
    assert await engine.records("positions/") == []
    assert not kept._parts


async def test_the_life_that_follows_keeps_its_positions(engine: Counting, epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    await kept.acknowledge("s", "bob", "phone", f"{epoch}-7")
    await engine.delete_session("s")
    second = (await publish(engine, "s", 1, 2)).epoch
    await kept.acknowledge("s", "alice", "phone", f"{second}-1")
    await kept.forget_session("s")
    assert [(p.user, p.seen) for p in await kept.devices("s")] == [("alice", f"{second}-1")]
    assert len(await engine.records("positions/")) == 1


async def test_positions_of_another_epoch_do_not_count(engine: Counting, epoch: str, kept: Positions) -> None:
    await kept.acknowledge("s", "alice", "phone", f"{epoch}-7")
    with kept.connected("s", epoch, "alice", "laptop", lambda: 3):
        await engine.delete_session("s")  # by another gateway: nobody tells this one
        second = (await publish(engine, "s", 1, 2)).epoch
        with pytest.raises(EpochChangedError):
            await kept.acknowledge("s", "alice", "phone", f"{epoch}-8")
        assert await kept.devices("s") == []
        assert await kept.seen("s", second, "alice", "phone") is None
        assert (await kept.acknowledge("s", "alice", "phone", f"{second}-1")).seen == f"{second}-1"
    await kept.save()
    assert [(p.device, p.seen) for p in await kept.devices("s")] == [("phone", f"{second}-1")]
    assert not kept._parts
    await kept.forget_session("s")
    assert len(await engine.records("positions/")) == 1, "of the old life nothing was written"


async def test_a_part_of_an_old_life_does_not_write_over_the_new_one(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 3):
        await kept.save()
        await engine.delete_session("s")
        second = (await publish(engine, "s", 1, 2)).epoch
        async with Positions(engine, Presence()) as other:
            await other.acknowledge("s", "alice", "phone", f"{second}-2")
    kept.delivered("s", epoch, "alice", "phone", 9)
    await kept.save()
    assert await kept.seen("s", second, "alice", "phone") == 2
    assert not kept._parts


async def test_what_was_not_saved_of_a_session_that_is_erased_takes_no_memory(
    engine: Counting, epoch: str, kept: Positions
) -> None:
    with kept.connected("s", epoch, "alice", "phone", lambda: 3):
        pass
    await engine.delete_session("s")
    await kept.forget_session("s")
    await kept.save()
    assert not kept._parts


class LateState(Counting):
    """Tells how the session was the second time it was asked, a good while later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answer = asyncio.Event()

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        self.asked += 1
        second, state = self.asked == 2, await super().state(session, publisher=publisher)
        if second:
            await self.answer.wait()
        return state


@pytest.mark.parametrize("turns", range(1, 10))
async def test_what_is_being_written_for_one_who_has_left_is_erased_with_its_session(turns: int) -> None:
    engine = LateState()
    epoch = (await publish(engine, "s", *range(10))).epoch
    async with Positions(engine, Presence()) as kept:
        acknowledging = asyncio.create_task(kept.acknowledge("s", "alice", "phone", f"{epoch}-7"))
        for _ in range(turns):
            await asyncio.sleep(0)
        acknowledging.cancel()
        while engine.asked < 2 and not acknowledging.done():
            await asyncio.sleep(0)
        await engine.delete_session("s")
        forgetting = asyncio.create_task(kept.forget_session("s"))
        for _ in range(50):
            await asyncio.sleep(0)
        engine.answer.set()
        await asyncio.wait([acknowledging, forgetting])
        assert not kept._parts
    assert await engine.records("positions/") == []
