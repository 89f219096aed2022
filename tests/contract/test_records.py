from __future__ import annotations

import asyncio

import pytest

from wakeline.errors import RecordConflictError, RecordTooLargeError
from wakeline.gateway.log import MAX_RECORD_BYTES, Engine


async def test_a_record_is_read_back_and_changed_at_its_revision(engine: Engine) -> None:
    assert await engine.get_record("k") is None
    first = await engine.put_record("k", b"one", revision=0)
    second = await engine.put_record("k", b"two", revision=first.revision)
    assert await engine.get_record("k") == second
    assert second.value == b"two"


async def test_a_stale_revision_is_refused(engine: Engine) -> None:
    first = await engine.put_record("k", b"one", revision=0)
    await engine.put_record("k", b"two", revision=first.revision)
    for revision in (0, first.revision):
        with pytest.raises(RecordConflictError):
            await engine.put_record("k", b"stale", revision=revision)
        with pytest.raises(RecordConflictError):
            await engine.delete_record("k", revision=revision)
    with pytest.raises(RecordConflictError):
        await engine.delete_record("absent", revision=0)


async def test_only_a_record_that_is_unchanged_is_removed(engine: Engine) -> None:
    first = await engine.put_record("k", b"one", revision=0)
    second = await engine.put_record("k", b"two", revision=first.revision)
    await engine.remove(first)
    assert await engine.get_record("k") == second
    for _ in range(2):
        await engine.remove(second)
        assert await engine.get_record("k") is None


async def test_a_revision_is_never_used_twice(engine: Engine) -> None:
    first = await engine.put_record("k", b"one", revision=0)
    await engine.delete_record("k", revision=first.revision)
    second = await engine.put_record("k", b"two", revision=0)
    assert second.revision != first.revision


async def test_one_of_many_racing_writers_wins(engine: Engine) -> None:
    async def write(n: int) -> bool:
        try:
            await engine.put_record("k", str(n).encode(), revision=0)
        except RecordConflictError:
            return False
        return True

    assert sum(await asyncio.gather(*(write(n) for n in range(20)))) == 1


async def test_records_are_listed_by_prefix(engine: Engine) -> None:
    keys = [
        "other",
        "runs",
        "runs/",
        "runs/a",
        "runs/b",
        "runs/\U0010ffff",
        "runs/\U0010ffff\U0010ffff",
        "runs0",
        "\ue000",
    ]
    for key in reversed(keys):
        await engine.put_record(key, key.encode(), revision=0)
    assert [r.key for r in await engine.records("runs/")] == keys[2:7]
    assert [r.key for r in await engine.records("runs/\U0010ffff")] == keys[5:7]
    assert [r.key for r in await engine.records("\ud7ff")] == []
    assert [r.key for r in await engine.records("")] == keys


async def test_records_are_read_together(engine: Engine) -> None:
    a = await engine.put_record("a", b"1", revision=0)
    c = await engine.put_record("c'\"[é", b"3", revision=0)
    assert await engine.get_records(["c'\"[é", "b", "a", "a"]) == {"a": a, "c'\"[é": c}
    assert await engine.get_records([]) == {}


async def test_a_record_over_the_greatest_size_is_refused_and_changes_nothing(engine: Engine) -> None:
    largest = await engine.put_record("k", b"x" * MAX_RECORD_BYTES, revision=0)
    with pytest.raises(RecordTooLargeError, match=f"at most {MAX_RECORD_BYTES} bytes in record 'k', got"):
        await engine.put_record("k", b"x" * (MAX_RECORD_BYTES + 1), revision=largest.revision)
    assert await engine.get_record("k") == largest


async def test_records_are_read_by_ranges_and_counted_without_their_values(engine: Engine) -> None:
    keys = ["a", "m", "m/1", "m/2", "m/3", "m0", "z\U0010ffff"]
    for key in reversed(keys):
        await engine.put_record(key, key.encode() * 2, revision=0)
    assert [r.key for r in await engine.records_after("", prefix="m/", limit=2)] == ["m/1", "m/2"]
    assert [r.key for r in await engine.records_after("m/2", prefix="m/")] == ["m/3"]
    assert [r.key for r in await engine.records_after("m/3", prefix="m/")] == []
    assert [r.key for r in await engine.records_after("", prefix="m", limit=1)] == ["m"]
    assert [r.key for r in await engine.records_after("m0")] == ["z\U0010ffff"]
    assert [r.key for r in await engine.records_after("")] == keys
    assert await engine.count_records("m/") == (3, 18)
    assert await engine.count_records("n") == (0, 0)
    assert (await engine.count_records(""))[0] == len(keys)
    await engine.remove((await engine.get_records(["m/1"]))["m/1"])
    assert await engine.count_records("m/") == (2, 12)
