"""What waits to be sent: how much may, and what happens to the next event."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from wakeline.streams import buffer as buffering
from wakeline.streams.buffer import Buffer, WhenFull
from wakeline.streams.errors import BufferFullError
from wakeline.streams.wire import PublishEntry, wire_size

SIZE = wire_size("a", "0")


def entry(topic: str, data: str) -> PublishEntry:
    return PublishEntry(topic, data)


def filled(when_full: WhenFull, *entries: str, max_items: int | None = 3, max_bytes: int | None = None) -> Buffer:
    """A buffer with entries written as topic and data, such as `a1`."""
    buffer = Buffer("workflow w", max_items=max_items, max_bytes=max_bytes, when_full=when_full)
    for text in entries:
        buffer.add(entry(text[0], text[1:]), may_block=False)
    return buffer


def content(buffer: Buffer) -> list[str]:
    taken = [found.topic + found.data for found in buffer.take(None, 10**9)]
    assert buffer.bytes == 0
    # Whoever waits for a flush counts on this.
    assert buffer.taken - buffer.done == len(taken)
    return taken


@pytest.mark.parametrize("when_full", ["error", "block"])
def test_no_room(when_full: WhenFull) -> None:
    buffer = filled(when_full, "a1", "a2", "a3")
    with pytest.raises(BufferFullError, match=f"3 events of {3 * SIZE} bytes that wait to be sent to workflow w"):
        buffer.add(entry("a", "4"), may_block=False)
    assert content(buffer) == ["a1", "a2", "a3"]


def test_the_oldest_is_dropped() -> None:
    buffer = filled("drop_oldest", "a1", "b2", "a3", "a4", "a5")
    assert (buffer.discarded, content(buffer)) == (2, ["a3", "a4", "a5"])


def test_as_many_are_dropped_as_it_takes() -> None:
    buffer = filled("drop_oldest", "a1", "a2", "a3", "a" + "x" * SIZE, max_items=None, max_bytes=3 * SIZE)
    assert (buffer.discarded, content(buffer)) == (2, ["a3", "a" + "x" * SIZE])


def test_the_latest_of_its_topic_is_replaced() -> None:
    buffer = filled("coalesce", "a1", "a2", "b3", "a4")
    assert (buffer.discarded, content(buffer)) == (1, ["a1", "a4", "b3"])


def test_as_many_of_its_topic_are_replaced_as_it_takes() -> None:
    buffer = filled("coalesce", "a1", "b2", "a3", "a" + "x" * SIZE, max_items=None, max_bytes=3 * SIZE)
    assert (buffer.discarded, content(buffer)) == (2, ["b2", "a" + "x" * SIZE])


def test_nothing_of_its_topic_to_replace() -> None:
    buffer = filled("coalesce", "a1", "a2", "a3")
    with pytest.raises(BufferFullError):
        buffer.add(entry("b", "4"), may_block=False)
    assert content(buffer) == ["a1", "a2", "a3"]


def test_one_larger_than_the_limit_waits_alone() -> None:
    buffer = filled("error", "a" + "x" * 1000, max_items=None, max_bytes=10)
    assert not buffer.offer(entry("a", "1"))
    assert content(buffer) == ["a" + "x" * 1000]
    assert buffer.offer(entry("a", "1"))


def test_a_thread_waits_for_room() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    thread = threading.Thread(target=buffer.add, args=(entry("a", "4"),), kwargs={"may_block": True})
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert len(buffer.take(1, 10**9)) == 1
    thread.join(20)
    assert not thread.is_alive()
    assert [found.data for found in buffer.take(None, 10**9)] == ["2", "3", "4"]


async def test_a_task_waits_for_room_and_may_be_cancelled() -> None:
    buffer = filled("block", "a1", "a2", "a3")
    given_up = asyncio.create_task(buffer.room(entry("a", "4")))
    waiting = asyncio.create_task(buffer.room(entry("a", "4")))
    await asyncio.sleep(0.01)
    given_up.cancel()
    buffer.take(1, 10**9)
    await asyncio.wait_for(waiting, 60)


def test_who_waited_in_a_loop_that_is_closed_does_not_keep_others_from_being_sent() -> None:
    async def wait() -> None:
        waiting = asyncio.create_task(buffer.room(entry("a", "4")))
        await asyncio.sleep(0)
        waiting.cancel()

    async def leave() -> None:
        waiting = buffer.room(entry("a", "4"))
        waiting.send(None)
        left.append(waiting)

    buffer = filled("block", "a1", "a2", "a3")
    left: list[object] = []
    asyncio.run(wait())
    asyncio.run(leave())
    assert content(buffer) == ["a1", "a2", "a3"]
    buffer.wake()


def test_a_thread_does_not_wait_where_nobody_sends_any_more() -> None:
    buffer, refused = filled("block", "a1", "a2", "a3"), threading.Event()

    def add() -> None:
        with pytest.raises(BufferFullError):
            buffer.add(entry("a", "4"), may_block=True)
        refused.set()

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    buffer.attended(False)
    thread.join(20)
    assert refused.is_set()
    assert content(buffer) == ["a1", "a2", "a3"]
    buffer.attended(True)


@pytest.mark.parametrize("limits", [{"max_items": 0}, {"max_bytes": 0}])
def test_a_limit_of_nothing_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Buffer("workflow w", **limits)  # type: ignore[arg-type]  # mypy takes the values for any argument's


def test_the_high_water_mark_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(buffering, "_HIGH_WATER_BYTES", 5 * SIZE)
    with caplog.at_level(logging.WARNING):
        buffer = filled("block", *["a1"] * 5, max_items=None)
        assert caplog.messages == []
        for _ in range(3):
            buffer.offer(entry("a", "1"))
    assert caplog.messages == ["Over 0 MB wait to be sent to workflow w"]
