from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from tests.support import batch, close, data_of, everything, publish
from wakeline.errors import (
    AttemptFencedError,
    EpochChangedError,
    SequenceGapError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    StreamConflictError,
)
from wakeline.gateway.log import Append, Appended, Commit, Engine, Publication


async def test_offsets_are_dense_from_zero_and_per_session(engine: Engine) -> None:
    first = await publish(engine, "a", 1, 2)
    second = await publish(engine, "a", 3)
    other = await publish(engine, "b", 4)
    assert (first.first_offset, first.next_offset) == (0, 2)
    assert (second.first_offset, second.next_offset) == (2, 3)
    assert (other.first_offset, other.next_offset) == (0, 1)
    assert first.epoch == second.epoch != other.epoch


async def test_what_was_acknowledged_is_read_byte_for_byte(engine: Engine) -> None:
    append = batch("a", {"text": "Grüße \u2028 \U0001f44b", "n": 1e300}, "x" * 70_000)
    await engine.append(append)
    events = await everything(engine, "a")
    assert [(e.offset, e.topic, e.body) for e in events] == [(i, e.topic, e.body) for i, e in enumerate(append.events)]


async def test_concurrent_appends_are_each_contiguous(engine: Engine) -> None:
    answers = await asyncio.gather(*(publish(engine, "a", n, n, n) for n in range(200)))
    events = await everything(engine, "a")
    assert [e.offset for e in events] == list(range(600))
    for n, answer in enumerate(answers):
        assert [data_of(e) for e in events[answer.first_offset : answer.next_offset]] == [n, n, n]


async def test_a_retry_gets_the_first_offsets_and_no_second_copy(engine: Engine) -> None:
    first = await publish(engine, "a", 1, 2, 3, publisher="p")
    await publish(engine, "a", "other")
    later = await publish(engine, "a", 4, publisher="p", sequence=3)
    again = await publish(engine, "a", 1, 2, 3, publisher="p")
    assert again == Appended(first.first_offset, first.next_offset, first.epoch, duplicate=True)
    assert await publish(engine, "a", 4, publisher="p", sequence=3) == Appended(4, 5, first.epoch, duplicate=True)
    assert later.first_offset == 4
    assert [data_of(e) for e in await everything(engine, "a")] == [1, 2, 3, "other", 4]


async def test_a_retry_with_other_batch_boundaries_is_trimmed_from_the_front(engine: Engine) -> None:
    await publish(engine, "a", 0, 1, publisher="p")
    await publish(engine, "a", "between")
    answer = await publish(engine, "a", 1, 2, 3, publisher="p", sequence=1)
    assert (answer.first_offset, answer.next_offset, answer.duplicate) == (1, 5, False)
    assert [data_of(e) for e in await everything(engine, "a")] == [0, 1, "between", 2, 3]
    across = await publish(engine, "a", 0, 1, 2, publisher="p")
    assert (across.first_offset, across.next_offset, across.duplicate) == (0, 4, True)


async def test_a_gap_in_the_sequence_is_refused_with_the_expected_one(engine: Engine) -> None:
    await publish(engine, "a", 0, publisher="p")
    with pytest.raises(SequenceGapError) as refused:
        await publish(engine, "a", 2, publisher="p", sequence=2)
    assert refused.value.expected == 1
    with pytest.raises(SequenceGapError):
        await publish(engine, "a", 1, publisher="unknown", sequence=1)
    assert len(await everything(engine, "a")) == 1


async def test_a_publisher_that_goes_on_where_there_is_no_session_creates_none(engine: Engine) -> None:
    await publish(engine, "a", 0, publisher="p")
    await engine.delete_session("a")
    with pytest.raises(SessionDeletedError):
        await publish(engine, "a", 1, publisher="p", sequence=1)
    assert await engine.state("a") is None


async def test_an_earlier_attempt_is_refused_for_good(engine: Engine) -> None:
    await publish(engine, "a", "one", publisher="p", attempt=1)
    await publish(engine, "a", "two", publisher="p", attempt=2)
    for sequence in (0, 1):
        with pytest.raises(AttemptFencedError) as refused:
            await publish(engine, "a", "zombie", publisher="p", attempt=1, sequence=sequence)
        assert refused.value.attempt == 2
    assert [data_of(e) for e in await everything(engine, "a")] == ["one", "two"]


async def test_a_new_attempt_counts_from_zero(engine: Engine) -> None:
    await publish(engine, "a", 0, 1, publisher="p", attempt=1)
    with pytest.raises(SequenceGapError) as refused:
        await publish(engine, "a", 2, publisher="p", attempt=2, sequence=2)
    assert refused.value.expected == 0
    await publish(engine, "a", "again", publisher="p", attempt=2)
    retried = await publish(engine, "a", "again", publisher="p", attempt=2)
    assert (retried.first_offset, retried.duplicate) == (2, True)


async def test_publishers_and_sessions_do_not_share_positions(engine: Engine) -> None:
    await publish(engine, "a", 1, publisher="p")
    await publish(engine, "a", 1, publisher="q")
    await publish(engine, "b", 1, publisher="p")
    assert len(await everything(engine, "a")) == 2
    assert len(await everything(engine, "b")) == 1


async def test_one_event_can_stand_for_a_range_of_sequences(engine: Engine) -> None:
    await publish(engine, "a", 0, publisher="p")
    gap = await publish(engine, "a", "gap", publisher="p", sequence=1, covers=5)
    await publish(engine, "a", 6, publisher="p", sequence=6)
    again = await publish(engine, "a", "gap", publisher="p", sequence=1, covers=5)
    assert again == Appended(gap.first_offset, gap.next_offset, gap.epoch, duplicate=True)
    assert (await publish(engine, "a", 4, 5, 6, publisher="p", sequence=4)).duplicate
    with pytest.raises(SequenceGapError):
        await publish(engine, "a", "gap", publisher="p", sequence=6, covers=5)
    assert [data_of(e) for e in await everything(engine, "a")] == [0, "gap", 6]


async def test_a_publisher_can_pass_over_what_the_log_has_from_another(engine: Engine) -> None:
    await publish(engine, "a", 0, publisher="p")
    await publish(engine, "a", "another's")
    passed = await publish(engine, "a", publisher="p", sequence=1, covers=3)
    assert passed == Appended(2, 2, passed.epoch)
    assert (await publish(engine, "a", publisher="p", sequence=1, covers=3)).duplicate
    assert (await publish(engine, "a", publisher="p", sequence=2, covers=2)).duplicate
    await publish(engine, "a", 4, publisher="p", sequence=4)
    for sequence, covers in ((9, 1), (4, 2)):
        with pytest.raises(SequenceGapError):
            await publish(engine, "a", publisher="p", sequence=sequence, covers=covers)
    assert [data_of(e) for e in await everything(engine, "a")] == [0, "another's", 4]


async def test_a_publisher_can_begin_by_passing_over(engine: Engine) -> None:
    await publish(engine, "a", publisher="p", covers=3)
    await publish(engine, "a", "another's")
    answer = await publish(engine, "a", 3, publisher="p", sequence=3)
    assert (await publish(engine, "a", 3, publisher="p", sequence=3)).first_offset == answer.first_offset == 1


async def test_appends_with_an_order_must_increase_it(engine: Engine) -> None:
    async def ordered(order: str, sequence: int | None = None) -> Appended:
        publication = None if sequence is None else Publication("p", 1, sequence)
        return await engine.append(Append("s", batch("s", order).events, publication, order=order))

    await ordered("b")
    for order in ("b", "a", "B"):
        with pytest.raises(StreamConflictError, match="after 'b'"):
            await ordered(order)
    await publish(engine, "s", "without")
    results = await asyncio.gather(*(ordered("c") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Appended) for result in results) == 1
    assert sum(isinstance(result, StreamConflictError) for result in results) == 4
    first = await ordered("d", 0)
    assert await ordered("d", 0) == msgspec.structs.replace(first, duplicate=True)
    with pytest.raises(StreamConflictError):
        await ordered("d", 1)
    assert [data_of(event) for event in await everything(engine, "s")] == ["b", "without", "c", "d"]
    await engine.delete_session("s")
    await ordered("a")


async def test_a_closed_session_takes_nothing_and_is_still_read(engine: Engine) -> None:
    await publish(engine, "a", 1)
    await close(engine, "a")
    with pytest.raises(SessionClosedError):
        await publish(engine, "a", 2)
    assert len(await everything(engine, "a")) == 1
    state = await engine.state("a")
    assert state is not None
    assert state.closed


async def test_a_session_created_again_has_another_epoch_and_starts_at_zero(engine: Engine) -> None:
    first = await publish(engine, "a", 1, 2, publisher="p")
    assert await engine.delete_session("a")
    assert not await engine.delete_session("a")
    with pytest.raises(SessionNotFoundError):
        await engine.read("a", 0, before=10)
    second = await publish(engine, "a", "new", publisher="p")
    assert second.epoch != first.epoch
    assert (second.first_offset, second.duplicate) == (0, False)


async def test_listeners_hear_every_commit_once_in_order_and_after_it_is_durable(engine: Engine) -> None:
    heard: list[int] = []
    readable: list[asyncio.Task[bool]] = []

    async def can_be_read(offset: int) -> bool:
        return len((await engine.read("a", offset, before=offset + 1)).events) == 1

    def listener(commits: Sequence[Commit]) -> None:
        for event in (event for commit in commits for event in commit.events):
            heard.append(event.offset)
            readable.append(asyncio.ensure_future(can_be_read(event.offset)))

    engine.feed.listen(listener)
    await asyncio.gather(*(publish(engine, "a", n, publisher=f"p{n}") for n in range(50)))
    await publish(engine, "a", 0, publisher="p0")
    async with asyncio.timeout(60):
        while len(heard) < 50:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    assert heard == list(range(50))
    assert all(await asyncio.gather(*readable))


async def test_batches_of_several_sessions_are_decided_one_by_one_in_their_order(engine: Engine) -> None:
    epoch = (await publish(engine, "b", 0)).epoch
    outcomes = await engine.append_each(
        [
            batch("a", "one", publisher="p"),
            batch("a", "two", publisher="p", sequence=1),
            batch("a", "gap", publisher="p", sequence=5),
            msgspec.structs.replace(batch("b", "of another life", publisher="p"), epoch="other"),
            msgspec.structs.replace(batch("b", "of this life", publisher="p"), epoch=epoch),
            batch("a", "two", "three", publisher="p", sequence=1),
        ]
    )
    answers = [(o.first_offset, o.next_offset) if isinstance(o, Appended) else type(o) for o in outcomes]
    assert answers == [(0, 1), (1, 2), SequenceGapError, EpochChangedError, (1, 2), (1, 3)]
    assert [data_of(event) for event in await everything(engine, "a")] == ["one", "two", "three"]
    assert [data_of(event) for event in await everything(engine, "b")] == [0, "of this life"]


async def test_a_forgotten_publisher_begins_again_and_its_events_stay(engine: Engine) -> None:
    epoch = (await publish(engine, "a", 1, publisher="p")).epoch
    await publish(engine, "a", 2, publisher="p", sequence=1)
    await publish(engine, "a", 3, publisher="q")
    await engine.forget_publisher("a", "p", epoch=epoch)
    assert await engine.position("a", "p") is None
    await engine.forget_publisher("a", "p", epoch=epoch)  # a second time changes nothing
    with pytest.raises(SequenceGapError):
        await publish(engine, "a", 5, publisher="p", sequence=1)
    again = await publish(engine, "a", 4, publisher="p")
    assert (again.first_offset, again.duplicate) == (3, False)
    assert (await publish(engine, "a", 4, publisher="p")).duplicate
    assert (await publish(engine, "a", 3, publisher="q")).duplicate
    assert [data_of(event) for event in await everything(engine, "a")] == [1, 2, 3, 4]
    with pytest.raises(EpochChangedError):
        await engine.forget_publisher("a", "p", epoch="aaaaaaaaaa")
    with pytest.raises(SessionNotFoundError):
        await engine.forget_publisher("b", "p", epoch=epoch)
