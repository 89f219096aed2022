"""A publisher goes on while its gateway is killed about every second: each event is in the log once, in order, or told of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import GatewayProcess
from tests.soak import SOAK, times
from wakeline.client import SessionClient
from wakeline.publisher import PublishDroppedError, SessionPublisher, UnavailableError
from wakeline.publisher.drain import drain
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Spool

EVENTS = times(1_500, 10_000)  # at least: there must be enough kills, too
# Events between two pauses, and seconds of a pause after a hundred: a soak publishes nearly as fast as it goes.
RUN, PAUSE = (60, 0.02) if SOAK == 1 else (200, 0.005)
PATIENCE = 90 + 30 * SOAK
KILLS = times(2, 3)
pytestmark = pytest.mark.timeout(480 + PATIENCE)


async def kill(gateway: GatewayProcess, chance: random.Random, kills: list[float]) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.4, 1.6))
        await gateway.kill()
        kills.append(asyncio.get_running_loop().time())
        await asyncio.sleep(chance.choice([0, 0.2]))
        await gateway.start()


@asynccontextmanager
async def killed(data: Path, *arguments: str) -> AsyncIterator[tuple[GatewayProcess, list[float]]]:
    """A gateway that is killed as long as the block lasts, and is there at its end."""
    gateway = GatewayProcess(data, *arguments)
    kills: list[float] = []
    await gateway.start()
    killing = asyncio.create_task(kill(gateway, random.Random(11), kills))
    try:
        async with asyncio.timeout(PATIENCE):
            yield gateway, kills
    finally:
        killing.cancel()
        await asyncio.wait([killing])
        await gateway.kill()


@asynccontextmanager
async def alive(gateway: GatewayProcess) -> AsyncIterator[SessionClient]:
    """The same gateway's log, when nobody kills it any more."""
    await gateway.start()
    try:
        async with SessionClient(gateway.url) as client:
            yield client
    finally:
        await gateway.kill()


async def log(client: SessionClient, session: str, topics: str | None = None) -> list[Any]:
    data: list[Any] = []
    page = await client.session(session).page(limit=10_000, topics=topics)
    while page.events:
        data += [event.data for event in page.events]
        page = await client.session(session).page(limit=10_000, topics=topics, from_=page.cursor)
    return data


def pace(chance: random.Random) -> float:
    """Some as fast as it goes, now and then as a language model does."""
    return chance.choice([0] * RUN + [0.02, 0.05])


async def publish(publishing: SessionPublisher, events: int, kills: list[float], least_kills: int) -> int:
    """Publish numbers until there are enough, and enough kills; returns how many."""
    chance = random.Random(5)
    number = 0
    async with publishing as session:
        topic = session.topic("t")
        while number < events or len(kills) < least_kills:
            await topic.publish(number)
            number += 1
            if wait := pace(chance):
                await asyncio.sleep(wait)
            if chance.random() < 0.002:
                await session.flush()
    return number


async def test_each_event_is_there_once_and_in_order(tmp_path: Path) -> None:
    async with killed(tmp_path / "data") as (gateway, kills):
        publishers = [SessionPublisher(gateway.url, session=f"s{n}") for n in range(3)]
        numbers = await asyncio.gather(*(publish(one, EVENTS // 3, kills, KILLS) for one in publishers))
    assert len(kills) >= KILLS
    async with alive(gateway) as client:
        for n, number in enumerate(numbers):
            assert await log(client, f"s{n}") == list(range(number))


async def test_what_is_not_there_was_told(tmp_path: Path) -> None:
    """`error`: an event is in the log, or in an error; one whose outcome is unknown may be in both."""
    told: set[int] = set()
    number = 0
    async with killed(tmp_path / "data") as (gateway, kills):
        dropped: list[PublishDroppedError] = []
        while True:
            try:
                publishing = SessionPublisher(
                    gateway.url, session="s", on_unavailable="error", on_dropped=dropped.append, max_buffer=200
                )
                async with publishing as session:
                    while number < EVENTS or len(kills) < KILLS:
                        number += 1
                        await session.topic("t").publish(number - 1)
                        if number % 100 == 0:
                            await asyncio.sleep(PAUSE)
                break
            except PublishDroppedError as error:
                dropped.append(error)
            except UnavailableError:
                await asyncio.sleep(0.05)
        told = {event.data for error in dropped for event in error.events}
    async with alive(gateway) as client:
        data = await log(client, "s")
    assert data == sorted(set(data))
    assert set(range(number)) <= set(data) | told
    assert told


async def test_with_a_spool_each_event_is_there_once_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "spool.db"
    async with killed(tmp_path / "data") as (gateway, kills):
        publishing = SessionPublisher(gateway.url, session="s", on_unavailable="spool", spool=file)
        number = await publish(publishing, EVENTS, kills, KILLS)
    assert len(kills) >= KILLS
    async with alive(gateway) as client:
        refused: list[PublishDroppedError] = []
        await asyncio.wait_for(drain(Spool.at(file), shared_connection(gateway.url, None), refused), 60)
        assert not refused
        assert await log(client, "s") == list(range(number))
        assert Spool.at(file).waiting() == 0


async def test_giving_up_and_going_on_loses_nothing_unsaid(tmp_path: Path) -> None:
    dropped: list[PublishDroppedError] = []
    async with killed(tmp_path / "data") as (gateway, kills):
        publishing = SessionPublisher(
            gateway.url, session="s", max_retry_duration=timedelta(seconds=0.2), on_dropped=dropped.append
        )
        number = await publish(publishing, EVENTS // 2, kills, KILLS)
    async with alive(gateway) as client:
        data = await log(client, "s")
    told = {event.data for error in dropped for event in error.events}
    assert data == sorted(set(data))
    assert set(range(number)) <= set(data) | told
