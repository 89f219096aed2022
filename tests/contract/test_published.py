"""The publication of an event, found by its offset."""

from __future__ import annotations

import random

import pytest

from tests.support import publish
from wakeline.gateway.log import Engine, Published
from wakeline.gateway.log.engines.memory import MemoryEngine


async def of_each(engine: Engine, session: str, *, first: int = 0) -> list[Published | None]:
    state = await engine.found(session)
    return [await engine.published(session, at, epoch=state.epoch) for at in range(first, state.next_offset)]


async def test_each_event_has_its_publisher_attempt_and_sequence(engine: Engine) -> None:
    await publish(engine, "a", 1, 2, publisher="p")
    await publish(engine, "a", "alone")
    await publish(engine, "a", "gap", publisher="q", covers=40)
    await publish(engine, "a", 3, publisher="p", sequence=2)
    await publish(engine, "a", 4, publisher="q", sequence=40)
    await publish(engine, "b", 5, publisher="q")
    assert await of_each(engine, "a") == [
        Published("p", 1, 0),
        Published("p", 1, 1),
        None,
        Published("q", 1, 0),
        Published("p", 1, 2),
        Published("q", 1, 40),
    ]


async def test_all_events_of_one_request_of_a_producer_share_its_sequence(engine: Engine) -> None:
    for sequence, values in enumerate(([1, 2, 3], [4], [5, 6])):
        await publish(engine, "a", *values, publisher="producer:p", sequence=sequence, covers=1)
    assert await of_each(engine, "a") == [Published("producer:p", 1, sequence) for sequence in (0, 0, 0, 1, 2, 2)]


async def test_of_an_earlier_attempt_only_the_publisher_is_known_and_nothing_if_it_is_superseded(
    engine: Engine,
) -> None:
    await publish(engine, "a", 1, 2, publisher="kept")
    await publish(engine, "a", 3, publisher="superseded")
    await publish(engine, "a", 4, publisher="kept", attempt=2)
    await publish(engine, "a", 5, publisher="superseded", attempt=3, supersedes=True)
    assert await of_each(engine, "a") == [
        Published("kept"),
        Published("kept"),
        None,
        Published("kept", 2, 0),
        None,  # $attempt.superseded
        Published("superseded", 3, 0),
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_every_engine_finds_what_was_published(engine: Engine, seed: int) -> None:
    chance, sequences = random.Random(seed), dict[tuple[str, int], int]()
    attempts = dict.fromkeys("pqrs", 1)
    model = MemoryEngine()
    for _ in range(120):
        name = chance.choice("ppqrs")
        if chance.random() < 0.05:
            attempts[name] += 1
        key = (name, attempts[name])
        count, covers = chance.randrange(1, 4), None
        if chance.random() < 0.1:
            count, covers = chance.randrange(2), chance.randrange(1, 1000)
        elif chance.random() < 0.2:
            covers = 1  # one request of a Durable Streams producer
        at = sequences.get(key, 0)
        sequences[key] = at + (covers or count)
        how = {
            "publisher": name,
            "attempt": attempts[name],
            "sequence": at,
            "covers": covers,
            "supersedes": name == "s",
        }
        for each in (model, engine):
            await publish(each, "a", *range(count), **how)
    first = chance.randrange(80)
    await engine.trim("a", first, epoch=(await engine.found("a")).epoch)
    assert await of_each(engine, "a", first=first) == await of_each(model, "a", first=first)
