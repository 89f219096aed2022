"""The records of a session's runs."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.sharing import Faults, SharedStore
from wakeline.errors import RecordConflictError, RecordTooLargeError, StorageFailedError
from wakeline.gateway.log import Engine, values
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Run, Runs, has_ended, run_records


def run(number: int, **how: object) -> Run:
    return msgspec.structs.replace(
        Run("chat", f"run-{number}", f"run-{number}", f"run-{number}", "Chat", "2026-11-21T05:14:43.123Z"), **how
    )


def test_a_run_has_ended_until_a_reset_begins_its_chain_again() -> None:
    ended, running = run(1, status="failed", earlier=("run-0",)), run(2)
    assert has_ended([ended, running], "run-1")
    assert has_ended([ended, running], "run-0"), "an earlier Temporal run of it"
    assert not has_ended([ended, running], "run-2")
    assert not has_ended([ended, run(3, chain="run-1")], "run-1")
    assert has_ended([ended, run(3, chain="run-1", status="completed")], "run-1")
    assert not has_ended([ended], None)
    assert not has_ended([ended], "of its own naming")


async def test_the_record_keeps_what_is_open_or_owed_and_the_last_of_what_is_over() -> None:
    engine = MemoryEngine()
    await engine.open()
    runs = Runs(engine)
    ended = [run(number, status="completed") for number in range(2, 990)]
    await runs.restore("s", [run(0), run(1, status="failed", owed=True), *ended])
    await runs.restore("other", [run(number, status="completed") for number in range(2, 1002)])
    for number in range(990, 1002):
        await runs.put("s", run(number, status="completed"))
    assert len(await runs.of("s")) == 1002
    for number in range(1002, 1012):
        await runs.put("s", run(number))
        await runs.put("s", run(number, status="terminated"))
    kept = [each.run for each in await runs.of("s")]
    assert kept == ["run-0", "run-1", *(f"run-{number}" for number in range(12, 1012))]
    assert len(await runs.of("other")) == 1000
    assert {each.run for session, each in await runs.unfinished() if session == "s"} == {"run-0", "run-1"}


async def store_as_before(engine: Engine, session: str, runs: list[Run]) -> None:
    """Store runs as earlier versions did: one record for all of them, whatever its size."""
    value = msgspec.json.encode({"runs": {each.run: each for each in runs}})
    await engine.put_record(f"runs/{session}", value, revision=0)


@pytest.fixture
def divided_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "UNDIVIDED_BYTES", 4_000)


async def names(runs: Runs, session: str = "s") -> list[str]:
    return [each.run for each in await runs.of(session)]


async def test_the_record_of_an_earlier_version_is_read_and_divided_by_the_first_change() -> None:
    engine = MemoryEngine()
    old = [run(0), run(1, status="failed", owed=True), *(run(number, status="completed") for number in range(2, 500))]
    await store_as_before(engine, "s", old)
    runs = Runs(engine)
    assert await runs.of("s") == old
    assert await runs.of_each(["t", "s"], 1) == [[], old]
    assert await runs.unfinished() == [("s", old[0]), ("s", old[1])]
    assert await runs.latest("s", "run-7") == old[7]
    assert not await runs.settled("s")
    await runs.put("s", run(0, status="terminated"))
    await runs.put("s", run(500))
    assert {record.key for record in await engine.records("runs")} == {"runs/s", *(f"runs.{n}/s" for n in range(8))}
    assert max(len(record.value) for record in await engine.records("runs")) < 40_000
    assert await names(runs) == [f"run-{number}" for number in range(501)]
    assert {each.run for _, each in await runs.unfinished()} == {"run-1", "run-500"}
    await runs.forget("s")
    assert await engine.records("runs") == []


class CutShort(MemoryEngine):
    """Ends a process at a write of a record."""

    left = 1_000_000

    async def change_record(self, key: str, value: bytes | None, *, revision: int, erase: bool = False) -> int:
        self.left -= 1
        if self.left < 0:
            raise StorageFailedError("the process ended")
        return await super().change_record(key, value, revision=revision, erase=erase)


@pytest.mark.usefixtures("divided_early")
@pytest.mark.parametrize("writes", range(10))
async def test_a_division_that_is_cut_short_is_read_and_continued(writes: int) -> None:
    engine = CutShort()
    old = [run(number, **({} if number % 3 else {"status": "failed"})) for number in range(60)]
    await store_as_before(engine, "s", old)
    engine.left = writes
    ended = run(1, status="completed")
    with pytest.raises(StorageFailedError):
        await Runs(engine).put("s", ended)
    engine.left = 1_000_000
    runs = Runs(engine)
    assert await runs.of("s") == old
    assert sorted(each.run for _, each in await runs.unfinished()) == sorted(each.run for each in old if each.open)
    await runs.put("s", ended)
    assert await runs.of("s") == [old[0], ended, *old[2:]]


@pytest.mark.usefixtures("divided_early")
@pytest.mark.parametrize("seed", range(4))
async def test_two_gateways_that_change_runs_at_once_lose_none(seed: int) -> None:
    store = SharedStore()
    first, second = (Runs(store.engine(Faults(latency=0.003), 2 * seed + n)) for n in range(2))
    await store_as_before(store.memory, "s", [run(number) for number in range(8)])

    async def begin_and_end(number: int) -> None:
        await (first, second)[number % 2].put("s", run(number))
        await (first, second)[number // 2 % 2].put("s", run(number, status="completed"))

    await asyncio.gather(*(begin_and_end(number) for number in range(40)))
    assert await store.memory.get_record("runs.0/s") is not None
    for runs in (first, second):
        found = await runs.of("s")
        assert {each.run for each in found} == {f"run-{number}" for number in range(40)}
        assert {each.status for each in found} == {"completed"}
        assert (await names(runs))[:8] == [f"run-{number}" for number in range(8)]


@pytest.mark.usefixtures("divided_early")
async def test_no_record_is_large_and_ended_runs_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 8_000
    for module in (run_records, values):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", largest)
    engine = MemoryEngine()
    runs = Runs(engine)
    for number in range(400):
        await runs.put("s", run(number, status="completed" if number % 4 else "running"))
    assert len([each for each in await runs.of("s") if each.open]) == 100
    assert 100 < len(await runs.of("s")) < 400
    assert (await names(runs))[-30:] == [f"run-{number}" for number in range(370, 400)]

    async def open_more() -> None:
        for number in range(400, 1000):
            await runs.put("s", run(number))

    with pytest.raises(RecordTooLargeError):
        await open_more()
    assert max(len(record.value) for record in await engine.records("runs")) <= largest


ONE = Run("chat", "one", "one", "one", "Chat", "2026-11-30T00:00:00.000Z")
TWO = msgspec.structs.replace(ONE, run_id="two", earlier=("one",))
THREE = msgspec.structs.replace(ONE, run_id="three", earlier=("one", "two"))


@pytest.mark.parametrize(
    ("known", "written", "is_behind"),
    [
        pytest.param(ONE, TWO, False, id="the chain continues"),
        pytest.param(TWO, msgspec.structs.replace(TWO, waiting={"for": "input"}), False, id="a state is reported"),
        pytest.param(TWO, msgspec.structs.replace(TWO, status="completed"), False, id="the chain ends"),
        pytest.param(TWO, msgspec.structs.replace(TWO, stream="two"), False, id="a stream is begun"),
        pytest.param(TWO, ONE, True, id="the chain has continued"),
        pytest.param(THREE, TWO, True, id="the chain has continued once more"),
        pytest.param(msgspec.structs.replace(TWO, status="failed"), TWO, True, id="the chain has ended"),
        pytest.param(msgspec.structs.replace(ONE, stream_attempt=2), ONE, True, id="a later attempt has begun"),
    ],
)
async def test_a_gateway_that_was_stopped_writes_nothing_that_others_have_left_behind(
    known: Run, written: Run, is_behind: bool
) -> None:
    runs = Runs(MemoryEngine())
    await runs.put("s", known)
    if is_behind:
        with pytest.raises(RecordConflictError, match="has come further"):
            await runs.put("s", written)
    else:
        await runs.put("s", written)
    assert await runs.of("s") == [known if is_behind else written]


async def test_a_run_that_two_gateways_find_at_once_is_added_once() -> None:
    runs = Runs(MemoryEngine())
    assert await runs.add("s", ONE) == ONE
    await runs.put("s", TWO)
    assert await runs.add("s", ONE) == TWO
    assert await runs.of("s") == [TWO]


async def test_a_session_that_has_runs_is_not_given_those_of_an_import() -> None:
    runs = Runs(MemoryEngine())
    await runs.put("s", run(0))
    with pytest.raises(RecordConflictError):
        await runs.restore("s", [run(number) for number in range(1, 20)])
    assert await runs.of("s") == [run(0)]
    with pytest.raises(RecordConflictError):
        await runs.restore("s", [run(number) for number in range(1, 200)])
    assert await runs.of("s") == [run(0)]
    for session, count in (("t", 20), ("u", 200)):
        await runs.restore(session, [run(number) for number in range(count)])
        assert await names(runs, session) == [f"run-{number}" for number in range(count)]
