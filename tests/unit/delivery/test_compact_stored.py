"""What is stored of compact forms: it says what the log says, whoever stored it and wherever they were stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak import times
from tests.support import everything, publish
from wakeline.compact import Fold
from wakeline.errors import SessionNotFoundError, StorageFailedError
from wakeline.events import Event, MessagePiece, NewEvent, compose
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.delivery.compact import compacts as compacts_module
from wakeline.gateway.delivery.compact import session, store
from wakeline.gateway.delivery.pages import Pages
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Append, Engine, Feed, Publication, Record
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Deletions, Keeper, Retention, Runs

TIME = "2026-11-21T05:14:43.123Z"


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Blocks of a few events, in records of a few bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "BLOCK_EVENTS", 4)
        patch.setattr(store, "RECORD_BYTES", 300)
        patch.setattr(compacts_module, "STORE_SECONDS", 0.1)
        yield


class Failing(MemoryEngine):
    """Fails when it has written so many records, as if the process had ended there."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1 << 30

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        self._count()
        return await super().put_record(key, value, revision=revision)

    async def delete_record(self, key: str, *, revision: int, erase: bool = False) -> None:
        self._count()
        await super().delete_record(key, revision=revision, erase=erase)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StorageFailedError("the process has ended")


def event(kind: str, number: int) -> NewEvent:
    data = b'"%d "' % number
    match kind:
        case "text":
            return compose("t", data, time=TIME, message=MessagePiece(f"m{number % 2}", "text"))
        case "key":
            return compose("t", data, time=TIME, key="k")
    return compose("t", data, time=TIME)


async def add(engine: Engine, *events: NewEvent, attempt: int = 1, sequence: int = 0) -> None:
    publication = Publication("p", attempt, sequence, supersedes=True, run="r", activity="a")
    await engine.append(Append("s", events, publication))


async def told(engine: Engine, compacts: Compacts) -> list[bytes]:
    state = await engine.state("s")
    assert state is not None
    snapshot = await compacts.snapshot("s", state.epoch, state.next_offset)
    assert snapshot.offset == state.next_offset
    pages = Pages(engine, "s", state.epoch, state.created)
    found: list[bytes] = []
    at = 0
    while at < snapshot.offset:
        page = await pages.compact(snapshot, at, topics=None, encode=lines, form="lines")
        found += page.chunk.splitlines()
        at = page.next_offset
    return found


def lines(events: Sequence[Event]) -> bytes:
    return b"\n".join(event.json() for event in events)


async def expected(engine: Engine, gone: list[Event] | None = None) -> list[bytes]:
    fold = Fold()
    for one in [*(gone or []), *await everything(engine, "s")]:
        fold.add(one)
    return [event.json() for event in fold.events()]


async def keys(engine: Engine) -> list[str]:
    return [record.key for record in await engine.records("compact/")]


_kinds = st.sampled_from(["text", "text", "text", "key", "plain"])
_acts = st.lists(
    st.tuples(st.just("add"), st.lists(_kinds, min_size=1, max_size=9))
    | st.tuples(st.sampled_from(["attempt", "look", "store", "restart", "fail", "other"]), st.integers(0, 6)),
    max_size=16,
)


@settings(max_examples=times(30, 40), deadline=None)
@given(_acts)
async def test_it_says_what_the_log_says_whatever_happens(acts: list[tuple[str, Any]]) -> None:
    engine = Failing()
    compacts, other = Compacts(engine), Compacts(engine)
    attempt = sequence = number = 0
    attempt = 1
    for act, how in [*acts, ("look", 0), ("other", 0), ("restart", 0), ("look", 0)]:
        state = await engine.state("s")
        match act:
            case "add":
                await add(
                    engine, *(event(kind, number + i) for i, kind in enumerate(how)), attempt=attempt, sequence=sequence
                )
                number, sequence = number + len(how), sequence + len(how)
            case "attempt":
                attempt, sequence = attempt + 1, 0
            case "look" | "other" if state is not None:
                assert await told(engine, compacts if act == "look" else other) == await expected(engine)
            case "store" if state is not None:
                await compacts.store("s", state.epoch, state.next_offset)
            case "fail" if state is not None:
                engine.left = how
                with suppress(StorageFailedError):
                    await compacts.store("s", state.epoch, state.next_offset)
                engine.left = 1 << 30
                compacts = Compacts(engine)
            case "restart":
                compacts = Compacts(engine)


@settings(max_examples=times(20, 30), deadline=None)
@given(_acts, st.lists(st.integers(0, 15), min_size=3, max_size=3))
async def test_it_outlives_the_log_where_it_is_to(acts: list[tuple[str, Any]], trims: list[int]) -> None:
    engine = MemoryEngine()
    compacts = Compacts(engine, lambda _: True)
    gone: list[Event] = []
    attempt, sequence, number = 1, 0, 0
    for at, (act, how) in enumerate(acts):
        state = await engine.state("s")
        match act:
            case "add":
                events = (event(kind, number + i) for i, kind in enumerate(how))
                await add(engine, *events, attempt=attempt, sequence=sequence)
                number, sequence = number + len(how), sequence + len(how)
            case "attempt":
                attempt, sequence = attempt + 1, 0
            case "restart":
                compacts = Compacts(engine, lambda _: True)
            case _ if state is not None:
                upto = min(trims[at % 3] * 3, await compacts.store("s", state.epoch, state.next_offset))
                gone += [one for one in await everything(engine, "s") if one.offset < upto]
                await engine.trim("s", upto, epoch=state.epoch)
        if await engine.state("s") is not None:
            assert await told(engine, compacts) == await expected(engine, gone)


class Waits(MemoryEngine):
    """Returns the head of the blocks to its first reader only after `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.release = asyncio.Event(), asyncio.Event()

    async def get_record(self, key: str) -> Record | None:
        record = await super().get_record(key)
        if key.endswith("/head") and record is not None and not self.reading.is_set():
            self.reading.set()
            await self.release.wait()
        return record


async def test_blocks_that_another_gateway_has_replaced_are_not_erased() -> None:
    engine = Waits()
    await add(engine, *(event("text", number) for number in range(3)), event("plain", 3), event("key", 4))
    state = await engine.state("s")
    assert state is not None
    await Compacts(engine).store("s", state.epoch, state.next_offset)  # from before the compact form was to be kept
    whole = await expected(engine)
    other = Compacts(engine, lambda _: True)
    late = asyncio.create_task(other.store("s", state.epoch, state.next_offset))
    await engine.reading.wait()
    compacts = Compacts(engine, lambda _: True)
    reached = await compacts.store("s", state.epoch, state.next_offset)
    await engine.trim("s", reached, epoch=state.epoch)
    engine.release.set()
    await late
    assert await told(engine, Compacts(engine, lambda _: True)) == whole


async def test_a_gateway_that_does_not_know_of_a_trim_yet_reads_what_another_has_stored() -> None:
    engine, outlives = MemoryEngine(), False
    late = Compacts(engine, lambda _: outlives)
    await add(engine, event("text", 0), event("plain", 1), event("text", 2))
    whole = await told(engine, late)
    outlives = True
    engine.feed = Feed()  # its notifications are on their way from here on
    other = Compacts(engine, lambda _: outlives)
    state = await engine.state("s")
    assert state is not None
    assert await other.store("s", state.epoch, 3) == 3
    await engine.trim("s", 3, epoch=state.epoch)
    assert await told(engine, late) == whole


async def test_it_is_stored_while_it_is_published_and_read_again_after_a_restart() -> None:
    engine = MemoryEngine()
    async with Compacts(engine) as compacts, asyncio.timeout(60):
        for number in range(50):
            await add(engine, event("text", number), sequence=number)
        while not await keys(engine):
            await asyncio.sleep(0.01)
        assert await told(engine, compacts) == await expected(engine)
    state = await engine.state("s")
    assert state is not None
    blocks = store.Store(engine, state.epoch)
    await blocks.open()
    assert blocks.next_offset == 50
    assert len(blocks._blocks) < 6
    looked: list[int] = []
    read = engine.read

    async def reading(name: str, offset: int, **how: Any) -> Any:
        looked.append(offset)
        return await read(name, offset, **how)

    engine.read = reading  # type: ignore[assignment] # to see what is read
    again = Compacts(engine)
    snapshot = await again.snapshot("s", state.epoch, 50)
    assert (snapshot.offset, looked) == (50, [])


@pytest.mark.parametrize("opened", [False, True])
async def test_a_session_that_has_nothing_to_fold_has_nothing_stored(opened: bool) -> None:
    engine = MemoryEngine()
    async with Compacts(engine):
        if opened:  # a session without events, as publishers on a WebSocket create it
            await engine.open_attempt("s", Publication("p"))
        await publish(engine, "s", *range(100))
    assert await keys(engine) == []


async def test_a_session_of_plain_events_is_not_folded_as_it_grows() -> None:
    engine = MemoryEngine()
    async with Compacts(engine) as compacts, asyncio.timeout(60):
        await engine.open_attempt("s", Publication("p"))
        while compacts._folds:  # until it is known that nothing is stored
            await asyncio.sleep(0.01)
        await publish(engine, "s", *range(100))
        assert not compacts._folds
        await add(engine, event("key", 1))
        assert compacts._folds
        assert await told(engine, compacts) == await expected(engine)


async def test_nothing_is_left_of_a_session_that_was_deleted() -> None:
    engine = MemoryEngine()
    async with Compacts(engine) as compacts:
        await add(engine, *(event("text", number) for number in range(30)))
        state = await engine.state("s")
        assert state is not None
        await compacts.store("s", state.epoch, 30)
        assert await keys(engine)
        storing = asyncio.create_task(compacts.store("s", state.epoch, 30))
        await engine.delete_session("s")
        await compacts.forget("s", state.epoch)
        with suppress(SessionNotFoundError):
            await storing
        with pytest.raises(SessionNotFoundError):
            await compacts.snapshot("s", state.epoch, 30)
    assert await keys(engine) == []


async def test_who_was_not_asked_for_longest_is_forgotten_and_read_again() -> None:
    engine = MemoryEngine()
    compacts = Compacts(engine, memory_bytes=2_000)
    for name in ("a", "b", "c"):
        await engine.append(Append(name, tuple(event("key", number) for number in range(40))))
        await engine.append(Append(name, tuple(event("text", number) for number in range(400))))
    async with compacts:
        states = [await engine.state(name) for name in ("a", "b", "c")]
        for state in [*states, *states]:
            assert state is not None
            snapshot = await compacts.snapshot(state.session, state.epoch, state.next_offset)
            assert snapshot.offset == 440
        async with asyncio.timeout(60):
            while len(compacts._folds) == 3:  # not before it is stored
                await asyncio.sleep(0.01)


async def test_those_who_come_together_have_it_made_once() -> None:
    engine = MemoryEngine()
    compacts = Compacts(engine)
    await add(engine, *(event("text", number) for number in range(30)))
    state = await engine.state("s")
    assert state is not None
    snapshots = await asyncio.gather(*(compacts.snapshot("s", state.epoch, 30) for _ in range(20)))
    assert len({id(snapshot) for snapshot in snapshots}) == 1


async def test_who_joins_while_nothing_can_be_stored_has_the_compact_form() -> None:
    engine = Failing()
    compacts = Compacts(engine)
    await add(engine, *(event("text", number) for number in range(9)))
    engine.left = 0
    assert await told(engine, compacts) == await expected(engine)
    engine.left = 1 << 30
    await add(engine, *(event("text", number) for number in range(9)), sequence=9)
    assert await told(engine, compacts) == await expected(engine)


async def stored(engine: Engine, compacts: Compacts) -> str:
    """A session of 9 events whose compact form is stored; its epoch."""
    await add(engine, *(event("text", number) for number in range(9)))
    state = await engine.state("s")
    assert state is not None
    await compacts.store("s", state.epoch, 9)
    assert await keys(engine)
    return state.epoch


async def test_what_could_not_be_erased_after_a_trim_is_in_nobody_s_form_and_goes_later() -> None:
    engine = Failing()
    async with Compacts(engine) as compacts, asyncio.timeout(60):
        epoch = await stored(engine, compacts)
        engine.left = 0
        await engine.trim("s", 5, epoch=epoch)
        while engine.left >= 0:
            await asyncio.sleep(0.01)
        snapshot = await compacts.snapshot("s", epoch, 9)
        assert b"0 2 4" not in b"".join(event.body for event in snapshot._events)
        engine.left = 1 << 30
        while await keys(engine):
            await asyncio.sleep(0.01)


async def test_what_a_trim_left_when_the_process_ended_goes_after_the_next_start() -> None:
    engine = MemoryEngine()
    epoch = await stored(engine, Compacts(engine))
    engine.feed = Feed()  # the process has ended
    await engine.trim("s", 9, epoch=epoch)
    runs, metrics = Runs(engine), Metrics()
    deletions = Deletions(engine, runs, Positions(engine, Presence()), metrics)
    async with Compacts(engine) as compacts, asyncio.timeout(60):
        keeper = Keeper(engine, runs, deletions, Retention(), metrics, compacts=compacts)
        keeper.start()
        while await keys(engine):
            await asyncio.sleep(0.01)
        await keeper.stop()


class Yielding(MemoryEngine):
    """Lets others have their turn before and after each record, as an engine on another thread does."""

    async def get_record(self, key: str) -> Record | None:
        await asyncio.sleep(0)
        record = await super().get_record(key)
        await asyncio.sleep(0)
        return record

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        await asyncio.sleep(0)
        record = await super().put_record(key, value, revision=revision)
        await asyncio.sleep(0)
        return record

    async def delete_record(self, key: str, *, revision: int, erase: bool = False) -> None:
        await asyncio.sleep(0)
        await super().delete_record(key, revision=revision, erase=erase)
        await asyncio.sleep(0)


async def test_whoever_is_cut_short_while_storing_leaves_nothing_that_is_stored_twice() -> None:
    finished = False
    turns = 0
    while not finished:
        engine = Yielding()
        compacts = Compacts(engine)
        epoch = await stored(engine, compacts)
        await add(engine, *(event("text", number) for number in range(9, 12)), sequence=9)
        storing = asyncio.create_task(compacts.store("s", epoch, 12))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = storing.done()
        storing.cancel()
        await asyncio.wait([storing])
        await compacts.store("s", epoch, 12)
        for reader in (compacts, Compacts(engine)):
            assert await told(engine, reader) == await expected(engine), f"after {turns} turns"
        turns += 1
    assert turns > 10


async def test_what_cannot_be_removed_is_not_stored_twice() -> None:
    for left in range(12):
        engine = Failing()
        compacts = Compacts(engine)
        epoch = await stored(engine, compacts)
        await add(engine, *(event("text", number) for number in range(9, 12)), sequence=9)
        engine.left = left
        for _ in range(2):
            with suppress(StorageFailedError):
                await compacts.store("s", epoch, 12)
        engine.left = 1 << 30
        await compacts.store("s", epoch, 12)
        for reader in (compacts, Compacts(engine)):
            assert await told(engine, reader) == await expected(engine), f"after {left} records"


async def test_what_cannot_be_read_and_not_be_erased_is_folded_from_the_log() -> None:
    engine = Failing()
    compacts = Compacts(engine)
    epoch = await stored(engine, compacts)
    block = next(key for key in await keys(engine) if not key.endswith("/head"))
    record = await engine.get_record(block)
    assert record is not None
    await engine.delete_record(block, revision=record.revision)
    engine.left = 0
    with suppress(StorageFailedError):
        await compacts.snapshot("s", epoch, 9)
    engine.left = 1 << 30
    assert await told(engine, compacts) == await expected(engine)


async def test_a_block_that_is_stored_after_a_deletion_that_was_not_heard_of_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = MemoryEngine()
    compacts = Compacts(engine)
    await add(engine, event("text", 0), event("text", 1))
    state = await engine.state("s")
    assert state is not None
    await compacts.snapshot("s", state.epoch, 2)
    assert await engine.records("compact/") == []
    monkeypatch.setattr(engine.feed, "announce_all", lambda commits: None)
    await engine.delete_session("s")
    with pytest.raises(SessionNotFoundError):
        await compacts.store("s", state.epoch, 2)
    assert await engine.records("compact/") == []
