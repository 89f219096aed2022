"""Gateways share a NATS store: each event reaches both, once and in order, and faults lose and double nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest

from tests.nats import NatsStore, connection_to
from tests.nats_wire import wire_to
from tests.shared.hearing import Heard
from tests.support import batch, close, data_of, everything, publish
from wakeline.errors import BatchTooLargeError, RecordConflictError
from wakeline.gateway.log import Appended, Change, Commit, Engine, Publication
from wakeline.gateway.log.engines.nats import NatsEngine, held, tail
from wakeline.gateway.log.engines.nats.messages import token

Open = Callable[..., Awaitable[NatsEngine]]


@pytest.fixture
def address(nats: NatsStore) -> str:
    return nats.address()


@pytest.fixture
async def opened(address: str) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def one(at: str = address) -> NatsEngine:
            engine = NatsEngine(at)
            await engine.open()
            stack.push_async_callback(engine.close)
            return engine

        yield one


async def test_a_listener_hears_the_appends_of_both_gateways_once_in_order(opened: Open) -> None:
    engines = await asyncio.gather(opened(), opened())
    heard = [Heard(engine, "s") for engine in engines]
    chance = random.Random(7)
    for number in range(100):
        some = (
            publish(chance.choice(engines), "s", number, publisher=f"p{n}-{number}")
            for n in range(chance.randint(1, 3))
        )
        await asyncio.gather(*some)
    log = await everything(engines[0], "s")
    assert [event.offset for event in log] == list(range(len(log)))
    epoch = (await close(engines[1], "s")).epoch
    for one in heard:
        await one.until("closed")
        assert one.all == [*((epoch, data_of(event)) for event in log), (epoch, "closed")]


async def test_events_whose_live_messages_are_lost_are_read_from_the_stream(
    opened: Open, nats: NatsStore, address: str
) -> None:
    chance = random.Random(3)
    async with wire_to(nats.servers[0].port) as wire:
        first, second = await opened(), await opened(wire.address(address))
        wire.live = lambda: chance.random() < 0.5
        heard = Heard(second, "s")
        for number in range(60):
            await publish(first, "s", number)
        wire.live = lambda: False
        await publish(first, "s", "last")
        await heard.until("last")
        assert heard.offsets == list(range(61))
        await second.close()


async def test_a_listener_hears_of_the_next_life_after_the_end_of_the_one_before(opened: Open) -> None:
    first, second = await opened(), await opened()
    heard = Heard(second, "s")
    before = (await publish(first, "s", 1)).epoch
    await publish(first, "s", 2)
    await first.delete_session("s")
    after = (await publish(second, "s", 3)).epoch
    await heard.until(3)
    assert heard.all == [(before, 1), (before, 2), (before, "deleted"), (after, 3)]


async def test_a_gateway_that_does_not_watch_a_session_hears_that_there_is_something_new(opened: Open) -> None:
    first, second = await opened(), await opened()
    heard: list[tuple[str, Change]] = []

    def listen(commits: Sequence[Commit]) -> None:
        assert not any(commit.events for commit in commits)
        heard.extend((commit.session, change) for commit in commits for change in commit.changes)

    second.feed.listen(listen)
    await publish(first, "s", 1)
    await first.delete_session("s")
    async with asyncio.timeout(60):
        while ("s", "deleted") not in heard:
            await asyncio.sleep(0.01)
    assert ("s", "appended") in heard


async def test_a_gateway_reads_what_another_has_written_before_it_hears_of_it(
    opened: Open, nats: NatsStore, address: str
) -> None:
    async with wire_to(nats.servers[0].port) as wire:
        first, second = await opened(), await opened(wire.address(address))
        wire.live = lambda: False
        for number in range(20):
            await publish(first, "s", number, publisher="p", sequence=number)
            assert [data_of(e) for e in (await second.read("s", number, before=1 << 40)).events] == [number]
            state = await second.state("s", publisher="p")
            assert state is not None
            assert state.position is not None
            assert (state.next_offset, state.position.next_sequence) == (number + 1, number + 1)
            record = await first.put_record(f"r{number}", b"1", revision=0)
            assert await second.get_record(f"r{number}") == record
        await first.delete_session("s")
        assert await second.state("s") is None
        await second.close()


async def test_the_outcome_of_a_write_whose_answer_is_lost_is_found_out(
    opened: Open, nats: NatsStore, address: str
) -> None:
    async with wire_to(nats.servers[0].port) as wire:
        engine = await opened(wire.address(address))
        heard = Heard(engine, "s")
        for number in range(20):
            # Without a publisher: a second copy would be there for all to see.
            wire.answers_cut, wire.writes_cut = int(number % 2 == 0), int(number % 3 == 0)
            assert isinstance(await publish(engine, "s", number), Appended)
            record = await engine.put_record(f"r{number}", b"1", revision=0)
            assert await engine.get_record(f"r{number}") == record
        assert wire.cuts >= 15
        assert [data_of(event) for event in await everything(engine, "s")] == list(range(20))
        async with asyncio.timeout(60):
            while len(heard.offsets) < 20:
                await asyncio.sleep(0.01)
        assert heard.offsets == list(range(20))
        await engine.close()


async def test_gateways_create_the_same_sessions_and_records(opened: Open) -> None:
    engines = await asyncio.gather(opened(), opened(), opened())

    async def write(engine: Engine, number: int) -> bool:
        try:
            await engine.put_record(f"r{number}", b"", revision=0)
        except RecordConflictError:
            return False
        return True

    names = [f"s{number}" for number in range(30)]
    answers = await asyncio.gather(
        *(
            engine.append_each([batch(name, 1, publisher=f"p{place}") for name in names])
            for place, engine in enumerate(engines)
        )
    )
    assert all(isinstance(outcome, Appended) for answer in answers for outcome in answer)
    for name in names:
        assert len(await everything(engines[0], name)) == 3
    written = await asyncio.gather(*(write(engine, number) for number in range(20) for engine in engines))
    assert sum(written) == 20


async def test_a_gateway_that_starts_knows_all_publishers_of_a_long_session(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "SNAPSHOT_BYTES", 2000)
    first = await opened()
    for number in range(120):
        await publish(first, "s", number, publisher=f"p{number % 5}", sequence=number // 5)
        await publish(first, "s", "x" * 100)
    done = await publish(first, "s", 600, publisher="p0", attempt=2)
    assert await first.trim("s", 100, epoch=done.epoch) == 100
    second = await opened()
    again = await publish(second, "s", 119, publisher="p4", sequence=23)
    assert again == Appended(238, 239, done.epoch, duplicate=True)
    assert await publish(second, "s", 600, publisher="p0", attempt=2) == Appended(240, 241, done.epoch, duplicate=True)
    assert (await second.open_attempt("s", Publication("p0", 2))).earlier_events == 24
    assert (await publish(second, "s", "new", publisher="p3", sequence=24)).first_offset == 241
    assert [event.offset for event in await everything(second, "s")] == list(range(100, 242))


async def test_messages_of_deleted_sessions_and_trimmed_events_leave_the_streams(
    opened: Open, nats: NatsStore, address: str
) -> None:
    engine = await opened()
    for number in range(50):
        await publish(engine, "deleted", number)
        done = await publish(engine, "trimmed", number)
    await engine.delete_session("deleted")
    assert await engine.trim("trimmed", 45, epoch=done.epoch) == 45
    async with asyncio.timeout(60):
        while engine.erasure_pending() or _messages(nats, address) > 5 + 3:
            await asyncio.sleep(0.05)
    assert [event.offset for event in await everything(engine, "trimmed")] == [45, 46, 47, 48, 49]
    assert (await publish(await opened(), "trimmed", 50)).first_offset == 50


def _messages(nats: NatsStore, address: str) -> int:
    """The messages of a store's sessions."""
    name = address.split("/")[3].split("?")[0]
    details = nats.servers[0].variables("jsz?streams=true")["account_details"]
    return sum(
        stream["state"]["messages"]
        for account in details
        for stream in account["stream_detail"]
        if stream["name"].startswith(f"{name}-sessions")
    )


async def test_a_batch_that_is_no_message_is_refused_and_changes_nothing(opened: Open) -> None:
    engine = await opened()
    await publish(engine, "s", 1)
    with pytest.raises(BatchTooLargeError, match="NATS stores it as one message"):
        await publish(engine, "s", *("x" * 1_000_000 for _ in range(9)))
    assert (await publish(engine, "s", *("x" * 1_000_000 for _ in range(7)))).next_offset == 8


async def test_a_gateway_that_was_away_for_long_forgets_what_was_removed_meanwhile(
    opened: Open, nats: NatsStore, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "AWAY_SECONDS", 0.0)  # each poll is one after a long time
    engine = await opened()
    heard = [Heard(engine, name) for name in ("gone", "there")]
    for name in ("gone", "there"):
        await publish(engine, name, 1)
        await engine.put_record(name, b"1", revision=0)
    name = address.split("/")[3].split("?")[0]
    async with connection_to(nats.servers[0]) as connection:
        for stream, kind in (("sessions-0", "sessions.0"), ("sessions-1", "sessions.1"), ("records", "records")):
            removed = msgspec.json.encode({"filter": f"{name}.{kind}.{token('gone')}"})
            await connection.request(f"$JS.API.STREAM.PURGE.{name}-{stream}", removed)
    await heard[0].until("deleted")
    assert [state.session for state in await engine.sessions()] == ["there"]
    assert await engine.state("gone") is None
    async with asyncio.timeout(60):
        while await engine.get_record("gone") is not None:
            await asyncio.sleep(0.05)
    assert (await publish(engine, "gone", 2)).first_offset == 0
    await publish(engine, "there", 2)
    await heard[1].until(2)
    assert heard[1].offsets == [0, 1]
