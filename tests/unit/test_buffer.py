"""The bounded buffer: the limits, and each policy for an entry that finds no room."""

from __future__ import annotations

import asyncio
import threading

import pytest

from wakeline.buffer import Buffer, WhenFull


def filled(
    when_full: WhenFull,
    *entries: str,
    max_items: int | None = 3,
    max_bytes: int | None = None,
    always_coalesces: bool = False,
) -> Buffer[str]:
    """A buffer of entries such as `a1`, each with its first letter as the key."""
    buffer = Buffer[str](
        len, max_items=max_items, max_bytes=max_bytes, when_full=when_full, always_coalesces=always_coalesces
    )
    for entry in entries:
        dropped = buffer.put(entry, entry[0])
        assert dropped is not None
        buffer.finish(len(dropped))
    return buffer


def content(buffer: Buffer[str]) -> list[str]:
    taken = buffer.take()
    assert buffer.bytes == 0
    assert buffer.taken - buffer.done == len(taken), "a flush waits for these counts"
    return taken


@pytest.mark.parametrize("when_full", ["error", "block"])
def test_an_entry_without_room_is_not_added(when_full: WhenFull) -> None:
    buffer = filled(when_full, "a1", "a2", "a3")
    assert buffer.put("a4", "a") is None
    assert content(buffer) == ["a1", "a2", "a3"]


def test_the_oldest_is_dropped() -> None:
    buffer = filled("drop_oldest", "a1", "b2", "a3", "a4", "a5")
    assert (buffer.discarded, content(buffer)) == (2, ["a3", "a4", "a5"])


def test_as_many_are_dropped_as_it_takes() -> None:
    buffer = filled("drop_oldest", "a1", "a2", "a3", "axx", max_items=None, max_bytes=6)
    assert (buffer.discarded, content(buffer)) == (2, ["a3", "axx"])


def test_the_latest_of_its_topic_is_replaced() -> None:
    buffer = filled("coalesce", "a1", "a2", "b3", "a4")
    assert (buffer.discarded, content(buffer)) == (1, ["a1", "a4", "b3"])


def test_as_many_of_its_topic_are_replaced_as_it_takes() -> None:
    buffer = filled("coalesce", "a1", "b2", "a3", "axxx", max_items=None, max_bytes=6)
    assert (buffer.discarded, content(buffer)) == (2, ["b2", "axxx"])


def test_nothing_of_its_topic_to_replace() -> None:
    buffer = filled("coalesce", "a1", "a2", "a3")
    assert buffer.put("b4", "b") is None
    assert content(buffer) == ["a1", "a2", "a3"]


def test_with_room_only_a_buffer_that_always_coalesces_replaces() -> None:
    assert content(filled("coalesce", "a1", "a2")) == ["a1", "a2"]
    buffer = filled("coalesce", "a1", "b2", "a3", always_coalesces=True)
    buffer.add("a4")
    target = buffer.taken
    assert buffer.take(1) == ["a3"]
    buffer.finish(1)
    assert buffer.done < target, "a replaced entry must not let a flush return too early"
    assert content(buffer) == ["b2", "a4"]
    buffer.finish(2)
    assert buffer.put("a5", "a") == []
    assert content(buffer) == ["a5"]


def test_entries_that_are_put_back_come_first() -> None:
    buffer = filled("coalesce", "a1", "b2", "a3")
    buffer.put_back(buffer.take(2))
    assert content(buffer) == ["a1", "b2", "a3"]


def test_one_larger_than_the_limit_waits_alone() -> None:
    buffer = filled("error", "a" + "x" * 1000, max_items=None, max_bytes=10)
    assert not buffer.offer("a1")
    assert content(buffer) == ["a" + "x" * 1000]
    assert buffer.offer("a1")


def test_a_batch_is_bounded_in_bytes_except_for_a_single_entry() -> None:
    buffer = filled("block", *["axx"] * 5, "a" * 20, max_items=None)
    assert [len(buffer.take(500, 6)) for _ in range(5)] == [2, 2, 1, 1, 0]


def test_a_thread_waits_for_room() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    thread = threading.Thread(target=buffer.put, args=("a4",), kwargs={"may_block": True})
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert len(buffer.take(1)) == 1
    thread.join(60)
    assert not thread.is_alive()
    assert buffer.take() == ["a2", "a3", "a4"]


async def test_each_free_place_wakes_the_task_that_waits_longest() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    waiting = [asyncio.create_task(buffer.room("a4")) for _ in range(3)]
    await asyncio.sleep(0)
    buffer.take(1)
    await asyncio.wait_for(waiting[0], 60)
    assert not waiting[1].done()
    buffer.wake()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)


async def test_a_cancelled_task_passes_its_place_on() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    cancelled, waiting = [asyncio.create_task(buffer.room("a4")) for _ in range(2)]
    await asyncio.sleep(0)
    buffer.take(1)
    cancelled.cancel()
    await asyncio.wait_for(waiting, 60)


async def test_a_task_in_another_loop_is_woken() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    waiting = asyncio.create_task(asyncio.to_thread(asyncio.run, buffer.room("a4")))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    buffer.take(1)
    await asyncio.wait_for(waiting, 60)


def test_a_task_whose_loop_is_closed_does_not_keep_the_place() -> None:
    async def leave() -> None:
        waiting = buffer.room("a4")
        waiting.send(None)
        left.append(waiting)

    async def wait() -> None:
        task = asyncio.create_task(buffer.room("a4"))
        await asyncio.sleep(0)
        buffer.take(1)
        await asyncio.wait_for(task, 60)

    buffer = filled("block", "a1", "a2", "a3")
    left: list[object] = []
    asyncio.run(leave())
    asyncio.run(wait())


def test_a_thread_does_not_wait_where_nobody_sends_any_more() -> None:
    buffer, refused = filled("block", "a1", "a2", "a3"), threading.Event()

    def put() -> None:
        assert buffer.put("a4", may_block=True) is None
        refused.set()

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    buffer.set_attended(False)
    thread.join(60)
    assert refused.is_set()
    assert content(buffer) == ["a1", "a2", "a3"]
