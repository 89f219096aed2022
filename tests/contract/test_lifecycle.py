"""Sessions are created, configured, closed, trimmed and erased; each act is on one life of a session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tests.support import batch, close, data_of, everything, publish
from wakeline.errors import EpochChangedError, SessionClosedError, SessionImportingError, SessionNotFoundError
from wakeline.events import Event, compose, timestamp
from wakeline.gateway.log import Append, Appended, Change, Commit, Engine, NewSession, Publication, SessionState


async def state_of(engine: Engine, session: str) -> SessionState:
    state = await engine.state(session)
    assert state is not None
    return state


class Told:
    """What an engine tells its listeners, in order."""

    def __init__(self, engine: Engine) -> None:
        self.all: list[tuple[str, str]] = []
        engine.feed.listen(self.committed)

    def committed(self, commits: Sequence[Commit]) -> None:
        for _, epoch, events, changes in commits:
            self.all += [(epoch, str(data_of(event))) for event in events]
            self.all += [(epoch, change) for change in changes]


async def test_a_session_is_created_once(engine: Engine) -> None:
    first, created = await engine.create_session(NewSession("a", config=b"one", first_offset=5, deadline=3.5))
    assert created
    assert (first.session, first.first_offset, first.next_offset, first.size) == ("a", 5, 5, 0)
    assert (first.config, first.deadline, first.closed) == (b"one", 3.5, False)
    assert await engine.create_session(NewSession("a", config=b"two", closed=True)) == (first, False)
    assert await engine.state("a") == first
    assert (await publish(engine, "a", 1)).first_offset == 5
    assert await engine.create_session(NewSession("a")) == (await state_of(engine, "a"), False)


async def test_a_session_can_be_created_closed(engine: Engine) -> None:
    await engine.create_session(NewSession("a", closed=True))
    with pytest.raises(SessionClosedError):
        await publish(engine, "a", 1)
    assert (await state_of(engine, "a")).closed


async def test_what_is_set_is_of_one_life(engine: Engine) -> None:
    epoch = (await publish(engine, "a", 1)).epoch
    await engine.configure("a", epoch=epoch, config=b"\x00new")
    await engine.configure("a", epoch=epoch, deadline=7.25)
    state = await state_of(engine, "a")
    assert (state.config, state.deadline) == (b"\x00new", 7.25)
    await engine.configure("a", epoch=epoch, deadline=None)
    assert (await state_of(engine, "a")).deadline is None
    for change in (
        lambda name, epoch: engine.configure(name, epoch=epoch, config=b""),
        lambda name, epoch: engine.configure(name, epoch=epoch, deadline=1),
        lambda name, epoch: engine.trim(name, 1, epoch=epoch),
        lambda name, epoch: engine.offset_within(name, 1, epoch=epoch),
        lambda name, epoch: engine.offset_at(name, 1, epoch=epoch),
        lambda name, epoch: engine.published(name, 0, epoch=epoch),
        lambda name, epoch: engine.read(name, 0, before=1, epoch=epoch),
        lambda name, epoch: engine.read_back(name, 1, epoch=epoch),
    ):
        with pytest.raises(EpochChangedError):
            await change("a", "another")
        with pytest.raises(SessionNotFoundError):
            await change("nowhere", epoch)
    assert (await engine.read("a", 0, before=1, epoch=epoch)).next_offset == 1


async def test_sessions_are_due_by_their_deadline_the_earliest_first(engine: Engine) -> None:
    epochs = {}
    for name, deadline in (("late", 30.0), ("early", 10.0), ("now", 20.0), ("never", None)):
        state, _ = await engine.create_session(NewSession(name, deadline=deadline))
        epochs[name] = state.epoch
    assert await engine.due(9.9) == []
    assert await engine.due(20) == [("early", epochs["early"]), ("now", epochs["now"])]
    assert await engine.due(20, limit=1) == [("early", epochs["early"])]
    await engine.configure("early", epoch=epochs["early"], deadline=None)
    await engine.delete_session("now")
    assert await engine.due(100) == [("late", epochs["late"])]


async def test_an_append_closes_the_session_with_its_events(engine: Engine) -> None:
    told = Told(engine)
    await publish(engine, "a", 1)
    closing = Append("a", batch("a", 2, 3).events, Publication("p"), close=True)
    first = await engine.append(closing)
    assert (first.first_offset, first.next_offset, first.duplicate) == (1, 3, False)
    assert (await state_of(engine, "a")).closed
    again = await engine.append(closing)
    assert again == Appended(1, 3, first.epoch, duplicate=True)
    for refused in (
        batch("a", 4),
        batch("a", 2, 3, 4, publisher="p"),
        batch("a", 4, publisher="p", sequence=2),
        batch("a", 5, publisher="p", sequence=9),
        batch("a", 4, publisher="q"),
        Append("a", (), close=True),
    ):
        with pytest.raises(SessionClosedError):
            await engine.append(refused)
    assert told.all == [(first.epoch, told) for told in ("1", "2", "3", "closed")]


async def test_an_append_closes_without_events_and_creates(engine: Engine) -> None:
    answer = await engine.append(Append("a", (), close=True))
    assert (answer.first_offset, answer.next_offset, answer.duplicate) == (0, 0, False)
    assert (await state_of(engine, "a")).closed


async def test_a_duplicate_that_closes_closes(engine: Engine) -> None:
    append = batch("a", 1, publisher="p")
    first = await engine.append(append)
    closed = await engine.append(Append("a", append.events, append.publication, close=True))
    assert closed == Appended(0, 1, first.epoch, duplicate=True)
    assert (await state_of(engine, "a")).closed


async def test_an_append_of_another_life_is_refused(engine: Engine) -> None:
    with pytest.raises(EpochChangedError):
        await engine.append(Append("a", batch("a", 1).events, epoch="another"))
    assert await engine.state("a") is None
    epoch = (await publish(engine, "a", 1)).epoch
    with pytest.raises(EpochChangedError):
        await engine.append(Append("a", batch("a", 2).events, epoch="another"))
    assert (await engine.append(Append("a", batch("a", 2).events, epoch=epoch))).first_offset == 1


async def test_the_oldest_events_are_trimmed_in_steps(engine: Engine) -> None:
    told = Told(engine)
    epoch = (await publish(engine, "a", *range(10), publisher="p")).epoch
    assert await engine.trim("a", 7, epoch=epoch, limit=4) == 4
    assert await engine.trim("a", 7, epoch=epoch, limit=4) == 7
    assert await engine.trim("a", 7, epoch=epoch, limit=4) == 7
    assert await engine.trim("a", 3, epoch=epoch) == 7
    state = await state_of(engine, "a")
    events = await everything(engine, "a")
    assert [e.offset for e in events] == [7, 8, 9]
    assert [data_of(e) for e in events] == [7, 8, 9]
    assert (state.first_offset, state.next_offset, state.size) == (7, 10, sum(len(e.body) for e in events))
    assert told.all[-2:] == [(epoch, "trimmed")] * 2


async def test_a_session_without_events_goes_on_where_it_was(engine: Engine) -> None:
    first = await publish(engine, "a", 0, 1, 2, publisher="p")
    assert await engine.trim("a", 100, epoch=first.epoch) == 3
    state = await state_of(engine, "a")
    assert (state.first_offset, state.next_offset, state.size) == (3, 3, 0)
    assert await publish(engine, "a", 0, 1, 2, publisher="p") == Appended(0, 3, first.epoch, duplicate=True)
    assert (await publish(engine, "a", 3, publisher="p", sequence=3)).first_offset == 3
    assert [(e.offset, data_of(e)) for e in await everything(engine, "a")] == [(3, 3)]


async def test_a_page_tells_where_it_really_begins(engine: Engine) -> None:
    epoch = (await publish(engine, "a", *range(10))).epoch
    await engine.trim("a", 5, epoch=epoch)

    async def page(offset: int, before: int) -> tuple[int, list[int], int]:
        page = await engine.read("a", offset, before=before)
        return page.began, [e.offset for e in page.events], page.next_offset

    assert await page(0, 10) == (5, [5, 6, 7, 8, 9], 10)
    assert await page(4, 6) == (5, [5], 6)
    assert await page(6, 8) == (6, [6, 7], 8)
    # What is gone reaches past the end of the page: the next one begins with what is gone, too.
    assert await page(0, 3) == (3, [], 3)
    assert await page(10, 12) == (10, [], 10)
    assert await page(12, 12) == (12, [], 12)
    await engine.trim("a", 10, epoch=epoch)
    assert await page(2, 100) == (10, [], 10)


async def test_pages_are_read_backwards(engine: Engine) -> None:
    epoch = (await publish(engine, "a", *range(4), topic="x")).epoch
    await publish(engine, "a", 4, topic="y")
    await publish(engine, "a", *range(5, 8), topic="x")

    async def page(before: int, limit: int, topics: set[str] | None = None) -> tuple[int, list[int], int]:
        page = await engine.read_back("a", before, limit=limit, topics=topics)
        return page.began, [e.offset for e in page.events], page.next_offset

    assert await page(8, 3) == (5, [5, 6, 7], 8)
    assert await page(100, 1) == (7, [7], 100)
    assert await page(5, 10) == (0, [0, 1, 2, 3, 4], 5)
    assert await page(8, 1, {"y"}) == (4, [4], 8)
    assert await page(4, 1, {"y"}) == (0, [], 4)
    assert await page(0, 1) == (0, [], 0)
    await engine.trim("a", 3, epoch=epoch)
    assert await page(5, 10) == (3, [3, 4], 5)
    assert await page(3, 10) == (3, [], 3)
    assert await page(2, 10) == (2, [], 2)


async def test_a_page_read_backwards_ends_early_when_events_are_large(engine: Engine) -> None:
    for n in range(4):
        await publish(engine, "a", n, "x" * 600_000)
    page = await engine.read_back("a", 8, topics={"none"})
    assert page.events == []
    assert 0 < page.began < 8


async def test_what_is_kept_within_a_size_is_told_by_its_oldest_offset(engine: Engine) -> None:
    epoch = (await publish(engine, "a", *("x" * (100 * n) for n in range(20)))).epoch
    events = await everything(engine, "a")
    total = sum(len(e.body) for e in events)
    assert (await state_of(engine, "a")).size == total

    async def expect(size: int, first: int) -> None:
        within = first
        while sum(len(e.body) for e in events[within:]) > size:
            within += 1
        assert await engine.offset_within("a", size, epoch=epoch) == within

    for size in (0, 1, len(events[19].body) - 1, len(events[19].body), 5000, total - 1, total, total + 1):
        await expect(size, 0)
    await engine.trim("a", 15, epoch=epoch)
    for size in (0, 5000, total):
        await expect(size, 15)
    await engine.trim("a", 20, epoch=epoch)
    assert await engine.offset_within("a", 0, epoch=epoch) == 20


@pytest.mark.parametrize("seed", range(8))
async def test_the_first_event_at_or_after_a_moment_is_found_although_times_go_back(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    now, first, name, times = 1_800_000_000_000, 0, "a", list[int]()
    state, _ = await engine.create_session(NewSession(name))
    for _ in range(12):
        now += chance.choice((1, 5, 5, 60_000, -3, -90_000))  # the clock goes on, or is set
        for _ in range(chance.randrange(1, 6)):
            times.append(now)
            now += chance.choice((0, 0, 1, -1))
        new = times[(await state_of(engine, name)).next_offset :]
        texts = [timestamp(datetime.fromtimestamp(time / 1000, UTC)) for time in new]
        await engine.append(Append(name, tuple(compose("t", b"1", time=text) for text in texts)))
        if chance.random() < 0.2:
            first = await engine.trim(name, chance.randrange(first, len(times)), epoch=state.epoch)
        if chance.random() < 0.2:  # an engine that caches sessions reads this one again
            await engine.configure(name, epoch=state.epoch, finish=True)
        for moment in {*times, *(time + 1 for time in times), min(times) - 1}:
            found = next((at for at, time in enumerate(times) if time >= moment), len(times))
            assert await engine.offset_at(name, moment, epoch=state.epoch) == max(found, first)
    state, _ = await engine.create_session(NewSession("empty", first_offset=7))
    assert await engine.offset_at("empty", 0, epoch=state.epoch) == 7


async def test_only_the_life_that_was_meant_is_deleted(engine: Engine) -> None:
    epoch = (await publish(engine, "a", 1)).epoch
    assert not await engine.delete_session("a", epoch="another")
    assert (await state_of(engine, "a")).epoch == epoch
    assert await engine.delete_session("a", epoch=epoch)
    assert await engine.state("a") is None


async def test_a_deletion_is_told_between_the_lives(engine: Engine) -> None:
    told = Told(engine)
    first = (await publish(engine, "a", "before")).epoch
    # All at once: an engine that commits them together still tells the lives apart.
    answers = await asyncio.gather(
        publish(engine, "a", "perhaps"),
        engine.delete_session("a"),
        publish(engine, "a", "after"),
        engine.delete_session("a"),
        publish(engine, "a", "at last"),
    )
    second, third = answers[2].epoch, answers[4].epoch
    assert len({first, second, third}) == 3
    lives = [epoch for epoch, _ in told.all]
    assert lives == sorted(lives, key=[first, second, third].index)
    assert [change for epoch, change in told.all if epoch != third and change == "deleted"] == ["deleted"] * 2
    for epoch in (first, second):
        assert [change for of, change in told.all if of == epoch][-1] == "deleted"
    assert told.all[-1] == (third, "at last")
    assert [data_of(e) for e in await everything(engine, "a")] == ["at last"]


async def test_a_draft_is_found_by_its_epoch_alone_until_it_is_finished(engine: Engine) -> None:
    told = Told(engine)
    draft, created = await engine.create_session(NewSession("a", first_offset=3, deadline=10.0, draft=True))
    assert created
    await engine.append(Append("a", batch("a", 3, 4).events, epoch=draft.epoch))
    assert await engine.state("a") is None
    assert await engine.sessions() == []
    assert not await engine.delete_session("a")
    assert not await engine.delete_session("a", epoch=draft.epoch)
    with pytest.raises(SessionNotFoundError):
        await engine.read("a", 0, before=9)
    for refused in (
        lambda: engine.create_session(NewSession("a")),
        lambda: publish(engine, "a", 5),
        lambda: publish(engine, "a", 5, publisher="p"),
        lambda: engine.open_attempt("a", Publication("p")),
    ):
        with pytest.raises(SessionImportingError):
            await refused()
    assert await engine.due(10.0) == [("a", draft.epoch)]
    assert told.all == []
    await engine.configure("a", epoch=draft.epoch, deadline=None, finish=True)
    assert told.all == [(draft.epoch, "configured")]
    assert await engine.due(10.0) == []
    assert [s.session for s in await engine.sessions()] == ["a"]
    assert [(e.offset, data_of(e)) for e in await everything(engine, "a")] == [(3, 3), (4, 4)]
    assert (await publish(engine, "a", 5)).first_offset == 5
    assert not await engine.delete_session("a", epoch=draft.epoch, draft=True)
    assert await engine.delete_session("a")


async def test_a_draft_is_deleted_unheard(engine: Engine) -> None:
    told = Told(engine)
    draft, _ = await engine.create_session(NewSession("a", draft=True))
    assert not await engine.delete_session("a", epoch="another", draft=True)
    assert await engine.delete_session("a", epoch=draft.epoch, draft=True)
    assert told.all == []
    with pytest.raises(EpochChangedError):
        await engine.append(Append("a", batch("a", 3).events, epoch=draft.epoch))
    assert (await publish(engine, "a", 1)).epoch != draft.epoch


async def test_a_session_is_created_with_its_first_events_at_once(engine: Engine) -> None:
    told = Told(engine)
    state, created = await engine.create_session(NewSession("a", events=batch("a", 1, 2).events, closed=True))
    assert created
    assert (state.next_offset, state.closed) == (2, True)
    assert state == await state_of(engine, "a")
    assert [data_of(e) for e in await everything(engine, "a")] == [1, 2]
    assert told.all == [(state.epoch, "1"), (state.epoch, "2"), (state.epoch, "configured")]
    assert await engine.create_session(NewSession("a", events=batch("a", 3).events)) == (state, False)


async def test_a_subscriber_hears_of_one_session_until_it_ends_that(engine: Engine) -> None:
    heard: list[str] = []

    def listener(session: str, _: str, events: Sequence[Event], changes: Sequence[Change]) -> None:
        heard.extend([session, *(str(data_of(event)) for event in events), *changes])

    unsubscribe = engine.subscribe("a", listener)
    await publish(engine, "a", 1)
    await publish(engine, "b", 2)
    await close(engine, "a")
    assert heard == ["a", "1", "a", "closed"]
    unsubscribe()
    unsubscribe()  # harmless
    await engine.delete_session("a")
    assert heard == ["a", "1", "a", "closed"]
