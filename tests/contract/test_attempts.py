"""Attempts: the later one ends the earlier ones, and says what of them no longer counts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import batch, close, data_of, everything, new_event, publish
from wakeline.errors import (
    AttemptFencedError,
    PublisherTakenError,
    RequestInvalidError,
    SessionClosedError,
    SessionDeletedError,
)
from wakeline.gateway.log import CLAIM, Append, Engine, Opened, Owner, Publication, plan
from wakeline.gateway.log.engines.sqlite import SqliteEngine


def attempt(number: int, *, supersedes: bool = True) -> Publication:
    return Publication("p", number, supersedes=supersedes, run="run-1", activity="answer")


async def said(engine: Engine, number: int, *data: Any, sequence: int = 0, supersedes: bool = True) -> None:
    await publish(engine, "a", *data, publisher="p", attempt=number, sequence=sequence, supersedes=supersedes)


async def whole(engine: Engine) -> list[Any]:
    """What the session says: data, and of what was superseded the offsets."""
    return [
        {"superseded": data_of(event)["offsets"]} if event.topic == "$attempt.superseded" else data_of(event)
        for event in await everything(engine, "a")
    ]


async def test_opening_a_later_attempt_names_what_no_longer_counts_before_it_says_anything(engine: Engine) -> None:
    opened = await engine.open_attempt("a", attempt(1))
    await said(engine, 1, "one")
    await publish(engine, "a", "another publisher's")
    await said(engine, 1, "two", "three", sequence=1)
    again = await engine.open_attempt("a", attempt(2))
    assert opened == Opened(1, 0, 0, opened.epoch)
    assert again == Opened(2, 0, 0, opened.epoch)
    await said(engine, 2, "anew")
    expected = ["one", "another publisher's", "two", "three", {"superseded": [[0, 0], [2, 3]]}, "anew"]
    assert await whole(engine) == expected


async def test_what_is_told_carries_whose_attempt_it_is(engine: Engine) -> None:
    await said(engine, 1, "one")
    await engine.open_attempt("a", attempt(2))
    told = json.loads((await everything(engine, "a"))[1].json())
    assert told["data"] == {"activity": "answer", "attempt": 2, "offsets": [[0, 0]]}
    assert (told["topic"], told["run"], told["activity"], told["attempt"]) == (
        "$attempt.superseded", "run-1", "answer", 2,
    )  # fmt: skip


async def test_an_attempt_that_appends_without_opening_supersedes_in_the_same_step(engine: Engine) -> None:
    told: list[list[str]] = []
    engine.feed.listen(lambda commits: told.extend([event.topic for event in commit.events] for commit in commits))
    await said(engine, 1, "one")
    answer = await engine.append(batch("a", "anew", "more", publisher="p", attempt=2, supersedes=True))
    assert (answer.first_offset, answer.next_offset) == (2, 4)
    assert told == [["t"], ["$attempt.superseded", "t", "t"]]
    assert await engine.append(batch("a", "anew", "more", publisher="p", attempt=2, supersedes=True)) == type(answer)(
        2, 4, answer.epoch, duplicate=True
    )


async def test_opening_twice_is_harmless_and_tells_what_has_arrived(engine: Engine) -> None:
    await said(engine, 1, "one")
    for _ in range(2):
        await engine.open_attempt("a", attempt(2))
    await said(engine, 2, "anew", "more")
    assert (await engine.open_attempt("a", attempt(2))).next_sequence == 2
    assert await whole(engine) == ["one", {"superseded": [[0, 0]]}, "anew", "more"]


async def test_the_earlier_attempt_is_refused_once_the_later_one_has_opened(engine: Engine) -> None:
    await said(engine, 1, "one")
    await engine.open_attempt("a", attempt(2))
    for refused in (said(engine, 1, "zombie", sequence=1), engine.open_attempt("a", attempt(1))):
        with pytest.raises(AttemptFencedError) as error:
            await refused
        assert error.value.attempt == 2
    assert await whole(engine) == ["one", {"superseded": [[0, 0]]}]


async def test_an_attempt_that_keeps_the_earlier_output_says_nothing_and_learns_how_much_there_is(
    engine: Engine,
) -> None:
    await said(engine, 1, "one", "two")
    opened = await engine.open_attempt("a", attempt(2, supersedes=False))
    assert opened.earlier_events == 2
    await said(engine, 2, "three", supersedes=False)
    assert (await engine.open_attempt("a", attempt(3, supersedes=False))).earlier_events == 3
    assert await whole(engine) == ["one", "two", "three"]


async def test_one_that_does_not_keep_supersedes_what_all_earlier_ones_have_kept(engine: Engine) -> None:
    await said(engine, 1, "one")
    await publish(engine, "a", "between")
    await said(engine, 2, "two", supersedes=False)
    await engine.open_attempt("a", attempt(4))
    assert await whole(engine) == ["one", "between", "two", {"superseded": [[0, 0], [2, 2]]}]
    await engine.open_attempt("a", attempt(5))
    assert len(await whole(engine)) == 4  # nothing counted any more


async def test_where_there_is_nothing_to_supersede_nothing_is_told(engine: Engine) -> None:
    await engine.open_attempt("a", attempt(1))
    await engine.open_attempt("a", attempt(2))
    assert await whole(engine) == []
    assert (await engine.state("a")) is not None


async def test_events_after_an_opening_stand_where_they_are_though_others_came_between(engine: Engine) -> None:
    await engine.open_attempt("a", attempt(1))
    await publish(engine, "a", "between")
    await said(engine, 1, "one")
    await publish(engine, "a", "between")
    answer = await publish(engine, "a", "one", publisher="p", supersedes=True)
    assert (answer.first_offset, answer.duplicate) == (1, True)
    await engine.open_attempt("a", attempt(2))
    assert (await whole(engine))[-1] == {"superseded": [[1, 1]]}


async def test_very_many_stretches_are_told_by_several_events_in_one_step(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 10_000 if isinstance(engine, SqliteEngine) else 1_000  # the others take the plan as it comes
    monkeypatch.setattr(plan, "_MAX_RANGES", most)
    for n in range(0, most + 500, 100):
        await asyncio.gather(
            *(
                coroutine
                for sequence in range(n, n + 100)
                for coroutine in (
                    publish(engine, "a", sequence, publisher="p", sequence=sequence),
                    publish(engine, "a", -1),
                )
            )
        )
    told: list[int] = []
    engine.feed.listen(lambda commits: told.extend(len(commit.events) for commit in commits))
    await engine.open_attempt("a", attempt(2))
    ranges = [data_of(event)["offsets"] for event in (await everything(engine, "a"))[2 * (most + 500) :]]
    assert told == [2]
    assert [len(one) for one in ranges] == [most, 500]
    assert [first for one in ranges for first, _ in one] == list(range(0, 2 * (most + 500), 2))


async def test_a_closed_session_opens_only_attempts_that_have_begun(engine: Engine) -> None:
    await said(engine, 1, "one")
    await close(engine, "a")
    assert (await engine.open_attempt("a", attempt(1))).next_sequence == 1
    for refused in (attempt(2), Publication("another")):
        with pytest.raises(SessionClosedError):
            await engine.open_attempt("a", refused)


async def test_nothing_of_a_publisher_is_left_when_its_session_lives_again(engine: Engine) -> None:
    await said(engine, 1, "one")
    await engine.open_attempt("a", attempt(2, supersedes=False))
    await engine.delete_session("a")
    opened = await engine.open_attempt("a", attempt(1))
    assert (opened.next_sequence, opened.earlier_events) == (0, 0)


ALICE, MALLORY = Owner("user:alice"), Owner("user:mallory")


def owned(owner: Owner | None, number: int, sequence: int = 0) -> Publication:
    return Publication("p", number, sequence, supersedes=True, owner=owner)


async def say(engine: Engine, what: str, publication: Publication) -> None:
    await engine.append(Append("a", (new_event(what),), publication))


async def test_a_publisher_belongs_to_the_user_that_opened_it(engine: Engine) -> None:
    await engine.open_attempt("a", owned(ALICE, 1))
    await say(engine, "one", owned(ALICE, 1))
    for number in (1, 2):
        with pytest.raises(PublisherTakenError):
            await engine.open_attempt("a", owned(MALLORY, number))
        with pytest.raises(PublisherTakenError):
            await say(engine, "other", owned(MALLORY, number, 1))
    await say(engine, "two", owned(ALICE, 1, 1))
    await engine.open_attempt("a", owned(None, 2))  # the gateway itself, after a reset
    with pytest.raises(PublisherTakenError):
        await engine.open_attempt("a", owned(MALLORY, 3))
    assert await whole(engine) == ["one", "two", {"superseded": [[0, 1]]}]


async def test_the_owner_of_a_publisher_survives_a_restart(tmp_path: Path) -> None:
    for by, taken in ((ALICE, False), (MALLORY, True), (ALICE, False)):
        engine = SqliteEngine(tmp_path, durability="process")
        await engine.open()
        try:
            await engine.open_attempt("a", owned(by, 1))
        except PublisherTakenError:
            assert taken
        finally:
            await engine.close()


async def test_a_publisher_without_an_owner_belongs_to_its_first_user(engine: Engine) -> None:
    await say(engine, "one", owned(None, 1))
    await say(engine, "two", owned(ALICE, 1, 1))
    with pytest.raises(PublisherTakenError):
        await say(engine, "three", owned(MALLORY, 1, 2))
    await say(engine, "elsewhere", Publication("q", 1, 0))
    await engine.open_attempt("a", Publication("q", 1, 0, owner=MALLORY))
    with pytest.raises(PublisherTakenError):
        await engine.open_attempt("a", Publication("q", 1, 0, owner=ALICE))


async def test_tokens_that_name_a_publisher_take_it_over_from_its_opener(engine: Engine) -> None:
    await say(engine, "squatted", owned(MALLORY, 7))
    await engine.open_attempt("a", owned(Owner(CLAIM), 1))
    await say(engine, "one", owned(Owner(CLAIM), 1))
    for number in (7, 8):
        with pytest.raises(PublisherTakenError):
            await say(engine, "more", owned(MALLORY, number, 1))
    await say(engine, "two", owned(Owner(CLAIM), 2))
    with pytest.raises(AttemptFencedError):
        await say(engine, "zombie", owned(Owner(CLAIM), 1, 1))
    assert await whole(engine) == ["squatted", {"superseded": [[0, 0]]}, "one", {"superseded": [[2, 2]]}, "two"]


async def test_a_token_with_fewer_topics_does_not_fence_one_with_more(engine: Engine) -> None:
    chat, more = Owner("user:alice", ("chat",)), Owner("user:alice", ("chat", "st*"))
    await say(engine, "one", owned(chat, 1))
    await say(engine, "two", owned(more, 1, 1))
    await say(engine, "three", owned(Owner("user:alice", ("chat", "status", "st*")), 1, 2))
    for fewer in (chat, Owner("user:alice", ("chat", "status"))):
        with pytest.raises(PublisherTakenError):
            await engine.open_attempt("a", owned(fewer, 2))
    await say(engine, "four", owned(ALICE, 1, 3))
    with pytest.raises(PublisherTakenError):
        await say(engine, "five", owned(more, 1, 4))


async def test_attempts_do_not_jump(engine: Engine) -> None:
    for number in (1_000_001, 2**53 - 1):
        with pytest.raises(RequestInvalidError, match="at most 1000000"):
            await engine.open_attempt("a", attempt(number))
        with pytest.raises(RequestInvalidError, match="at most 1000000"):
            await said(engine, number, "x")
    assert await engine.state("a") is None
    await engine.open_attempt("a", attempt(1_000_000))
    await said(engine, 2_000_000, "x")


async def test_an_attempt_opened_in_a_deleted_session_does_not_bring_it_back(engine: Engine) -> None:
    opened = await engine.open_attempt("a", attempt(1))
    assert await engine.open_attempt("a", attempt(1), epoch=opened.epoch) == opened
    await engine.delete_session("a")
    with pytest.raises(SessionDeletedError):
        await engine.open_attempt("a", attempt(1), epoch=opened.epoch)
    assert await engine.state("a") is None
    await publish(engine, "a", "another life", publisher="another")
    for number in (1, 2):
        with pytest.raises(SessionDeletedError):
            await engine.open_attempt("a", attempt(number), epoch=opened.epoch)
    assert await engine.position("a", "p") is None
    assert await whole(engine) == ["another life"]


async def test_an_attempt_goes_on_in_another_epoch_that_knows_its_publisher(engine: Engine) -> None:
    await said(engine, 1, "one")
    assert (await engine.open_attempt("a", attempt(1), epoch="another")).next_sequence == 1
    assert (await engine.open_attempt("a", attempt(2, supersedes=False), epoch="another")).earlier_events == 1
    with pytest.raises(AttemptFencedError):
        await engine.open_attempt("a", attempt(1), epoch="another")
