"""The sending side against a server that fails as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors.publishing import BufferFullError
from wakeline.retry import Backoff
from wakeline.streams import flusher as flushing
from wakeline.streams.errors import PublishDroppedError
from wakeline.streams.flusher import Flusher
from wakeline.streams.wire import PublishInput, decode_payload

HOUR = timedelta(hours=1)


class FakeHost:
    """Takes signals as a host does: whole batches, each sequence once."""

    def __init__(self) -> None:
        self.id = "w"
        self.calls: list[PublishInput] = []
        self.log: list[bytes] = []
        self.sizes: list[int] = []
        self.sequence = 0
        # One a call, before or after the batch is taken; None for a call that goes well.
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.refuse: Callable[[PublishInput], Exception | None] = lambda batch: None

    async def signal(self, name: str, batch: PublishInput, **_: Any) -> None:
        self.calls.append(batch)
        await asyncio.sleep(0)
        if error := self.before.pop(0) if self.before else self.refuse(batch):
            raise error
        if batch.sequence > self.sequence:
            self.sequence = batch.sequence
            self.sizes.append(len(batch.items))
            self.log += [decode_payload(item.data).data for item in batch.items]
        await asyncio.sleep(0)
        if self.after and (error := self.after.pop(0)):
            raise error


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "backoff", lambda: Backoff(0.0))


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def flusher(host: Any, **options: Any) -> Flusher:
    defaults: dict[str, Any] = {
        "batch_interval": HOUR,
        "max_batch_size": None,
        "max_retry_duration": HOUR,
        "on_dropped": None,
    }
    return Flusher(host, DataConverter.default.payload_converter, **(defaults | options))


def publish(sender: Flusher, *values: Any, force_flush: bool = False) -> None:
    for value in values:
        sender.accept("t", value, force_flush=force_flush)


def failure(status: RPCStatusCode, message: str = "failed") -> RPCError:
    return RPCError(message, status, b"")


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_event_after_a_pause_goes_at_once(host: FakeHost) -> None:
    sender = flusher(host)
    await sender.start()
    publish(sender, 1)
    await turns()
    assert host.log == [b"1"]
    publish(sender, 2, 3)
    await turns()
    assert host.log == [b"1"]
    await sender.stop(failing=False)
    assert (host.log, host.sizes) == ([b"1", b"2", b"3"], [1, 2])


async def test_force_flush_does_not_wait(host: FakeHost) -> None:
    sender = flusher(host)
    await sender.start()
    publish(sender, 1)
    await turns()
    publish(sender, 2)
    publish(sender, 3, force_flush=True)
    await turns()
    assert host.log == [b"1", b"2", b"3"]
    await sender.stop(failing=False)


def test_an_event_without_room_is_refused_with_what_waits(host: FakeHost) -> None:
    sender = flusher(host, max_buffered_items=2)
    publish(sender, 1, 2)
    with pytest.raises(
        BufferFullError, match=r"topic 't', got 2 events of .* bytes that wait to be sent to workflow w"
    ):
        publish(sender, 3)


@pytest.mark.parametrize("limit", ["max_buffered_items", "max_buffered_bytes"])
def test_a_limit_of_nothing_is_refused(host: FakeHost, limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} of at least 1, got 0"):
        flusher(host, **{limit: 0})


def test_the_high_water_mark_is_logged_once(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flushing, "_HIGH_WATER_BYTES", 400)
    sender = flusher(host)
    publish(sender, "x" * 50)
    assert caplog.messages == []
    publish(sender, *["x" * 200] * 3)
    assert caplog.messages == ["Over 0 MB wait to be sent to workflow w"]


async def test_tasks_that_wait_for_room_go_on_when_one_of_them_is_told_of_a_failure(host: FakeHost) -> None:
    host.before = [failure(RPCStatusCode.PERMISSION_DENIED, "not you")]
    sender = flusher(host, max_buffered_items=1)
    await sender.start()
    publish(sender, 1)
    waiting = [asyncio.create_task(sender.accept_waiting("t", n, force_flush=True)) for n in (2, 3, 4)]
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert [type(outcome) for outcome in outcomes].count(PublishDroppedError) == 1
    await sender.stop(failing=False)
    assert len(host.log) == 2


async def test_batches_are_cut_by_bytes(host: FakeHost) -> None:
    sender = flusher(host)
    publish(sender, *["x" * 300_000] * 5)
    await sender.flush()
    assert host.sizes == [2, 2, 1]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_transient_failure_neither_loses_nor_doubles(host: FakeHost, where: str) -> None:
    setattr(host, where, [failure(RPCStatusCode.UNAVAILABLE), failure(RPCStatusCode.RESOURCE_EXHAUSTED), None])
    sender = flusher(host)
    publish(sender, 1, 2)
    await sender.flush()
    publish(sender, 3)
    await sender.flush()
    assert host.log == [b"1", b"2", b"3"]
    assert [call.sequence for call in host.calls] == [1, 1, 1, 2]


async def test_the_background_goes_on_after_a_batch_was_given_up(host: FakeHost) -> None:
    host.before = [failure(RPCStatusCode.PERMISSION_DENIED, "not you")]
    sender = flusher(host)
    await sender.start()
    publish(sender, 1)
    await turns()
    with pytest.raises(PublishDroppedError, match="not you") as caught:
        publish(sender, 2)
    assert [event.payload.data for event in caught.value.events] == [b"1"]
    publish(sender, 3, force_flush=True)
    await turns()
    assert host.log == [b"3"]
    await sender.stop(failing=False)


async def test_given_up_after_the_retry_duration(host: FakeHost) -> None:
    host.refuse = lambda batch: failure(RPCStatusCode.UNAVAILABLE)
    sender = flusher(host, max_retry_duration=timedelta(0))
    publish(sender, 1)
    with pytest.raises(TimeoutError):
        await sender.flush()
    host.refuse = lambda batch: None
    publish(sender, 2)
    await sender.flush()
    assert host.log == [b"2"]


async def test_what_the_server_finds_too_large_is_halved(host: FakeHost) -> None:
    message = "Blob data size exceeds limit."
    host.refuse = lambda batch: failure(RPCStatusCode.INVALID_ARGUMENT, message) if len(batch.items) > 3 else None
    sender = flusher(host)
    publish(sender, *range(10))
    await sender.flush()
    assert host.log == [str(number).encode() for number in range(10)]


async def test_a_codec_that_fails_for_a_while_loses_nothing(host: FakeHost) -> None:
    host.before = [ConnectionError("no key server"), ValueError("no key"), None]
    sender = flusher(host, max_batch_size=1)
    publish(sender, 1, 2)
    await sender.flush()
    assert host.log == [b"1", b"2"]


async def test_a_codec_that_fails_for_longer_than_is_retried_costs_one_batch(host: FakeHost) -> None:
    host.before = [ValueError("no key")]
    sender = flusher(host, max_batch_size=1, max_retry_duration=timedelta(0))
    publish(sender, 1, 2)
    with pytest.raises(PublishDroppedError, match="1 events for workflow w were abandoned: no key"):
        await sender.flush()
    assert host.log == [b"2"]


async def test_on_dropped_is_told_instead(host: FakeHost) -> None:
    told: list[PublishDroppedError] = []
    host.before = [failure(RPCStatusCode.NOT_FOUND)]
    sender = flusher(host, on_dropped=told.append)
    publish(sender, 1)
    await sender.flush()
    assert [event.topic for error in told for event in error.events] == ["t"]


async def test_an_error_on_its_way_is_not_hidden(host: FakeHost) -> None:
    host.before = [failure(RPCStatusCode.NOT_FOUND)]
    sender = flusher(host)
    await sender.start()
    publish(sender, 1)
    await sender.stop(failing=True)


@pytest.mark.parametrize("turn", range(8))
async def test_cancelled_at_any_turn(host: FakeHost, turn: int) -> None:
    sender = flusher(host, max_batch_size=2)
    publish(sender, *range(5))
    flush = asyncio.create_task(sender.flush())
    await turns(turn)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    publish(sender, 5)
    await sender.flush()
    assert host.log == [str(number).encode() for number in range(6)]


async def test_sending_goes_on_after_an_unexpected_error(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wakeline.background._FIRST_PAUSE", 0.0)
    sender, errors = flusher(host, max_batch_size=1), [KeyError("unexpected")]

    async def look() -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(sender._budget, "look", look)
    await sender.start()
    publish(sender, 1)
    await turns()
    publish(sender, 2, force_flush=True)
    await turns()
    assert host.log == [b"1", b"2"]
    assert "publishing to workflow w failed" in caplog.text
    await sender.stop(failing=False)


async def test_leaving_ends_the_background_task(host: FakeHost) -> None:
    before = asyncio.all_tasks()
    sender = flusher(host)
    await sender.start()
    await sender.start()
    publish(sender, 1)
    await sender.stop(failing=False)
    assert len(asyncio.all_tasks() - before) == 1
    await sender.stop(failing=False)
    await turns()
    assert not asyncio.all_tasks() - before


async def test_on_flushed_is_told_of_each_batch_that_was_taken(host: FakeHost) -> None:
    told: list[str] = []
    host.before = [failure(RPCStatusCode.UNAVAILABLE), None, failure(RPCStatusCode.NOT_FOUND)]
    sender = flusher(host, max_batch_size=1, on_dropped=lambda _: None, on_flushed=told.append)
    publish(sender, 1, 2, 3)
    await sender.flush()
    assert host.log == [b"1", b"3"]
    assert told == ["w", "w"]
    await sender.flush()
    assert told == ["w", "w"], "nothing was sent"


async def test_an_on_flushed_that_fails_breaks_nothing(host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    def fail(workflow_id: str) -> None:
        raise RuntimeError(workflow_id)

    sender = flusher(host, on_flushed=fail)
    publish(sender, 1)
    await sender.flush()
    publish(sender, 2)
    await sender.flush()
    assert host.log == [b"1", b"2"]
    assert [record.message for record in caplog.records] == ["on_flushed failed"] * 2


async def test_who_waits_for_room_is_not_left_behind_where_sending_ends(host: FakeHost) -> None:
    sender = flusher(host, max_buffered_items=1)
    await sender.start()
    waiting = [asyncio.create_task(sender.accept_waiting("t", value, force_flush=False)) for value in range(6)]
    await asyncio.sleep(0)
    await sender.stop(failing=False)
    done, left = await asyncio.wait(waiting, timeout=60)
    for task in left:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(done) == 6
    await sender.flush()
    assert sorted(host.log) == [b"0", b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("after", range(5))
async def test_sending_ends_also_where_it_is_hurried_just_then(host: FakeHost, after: int) -> None:
    before = asyncio.all_tasks()
    sender = flusher(host)
    await sender.start()
    publish(sender, 1)
    await turns()
    sender._urgent.set()
    await turns(after)
    assert sender._task is not None
    sender._task.cancel()
    await turns()
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert not left
