"""SIGKILL at random moments under load, held against what publishers were told and what devices saw.

Every event says which publisher's how-manieth it is, so the final log can be checked against invariants 1 to 4 of the design:
what was acknowledged is there at its offset, offsets are dense, nothing is there twice, what was not acknowledged is there
whole or not at all, and what a device saw is the log from its start on, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import GatewayProcess
from tests.soak import BETWEEN, times
from wakeline.client import RefusedError, SessionClient, SessionEvent
from wakeline.errors import UnavailableError

KILLS = times(4, 12)
SESSIONS = ["one", "two", "three"]


class Load:
    """Publishers that count what they were told, and devices that keep what they saw."""

    def __init__(self, client: SessionClient) -> None:
        self.client = client
        self.stopping = False
        self.acknowledged: dict[str, dict[int, Any]] = {session: {} for session in SESSIONS}
        self.attempted: dict[str, Counter[str]] = {session: Counter() for session in SESSIONS}
        self.seen: list[tuple[str, list[SessionEvent[Any]]]] = []

    async def idempotent(self, session: str, publisher: str, chance: random.Random) -> None:
        """Publish on and on under a sequence, in batches whose boundaries change with every retry."""
        sequence = 0
        while not self.stopping:
            size = chance.randint(1, 8)
            # What an event says does not change when it is sent again in another batch.
            data = [{"p": publisher, "n": n, "pad": "x" * (n * 37 % 300)} for n in range(sequence, sequence + size)]
            try:
                answer = await self.client.session(session).publish_many(
                    [("t", d) for d in data], publisher=publisher, sequence=sequence
                )
            except UnavailableError:
                await asyncio.sleep(0.02)
                continue
            # A retry may be answered with offsets that another publisher's events lie between.
            if answer.next_offset - answer.first_offset == size:
                for at, d in zip(range(answer.first_offset, answer.next_offset), data, strict=True):
                    self.acknowledged[session][at] = d
            else:
                self.acknowledged[session][answer.first_offset] = data[0]
                self.acknowledged[session][answer.next_offset - 1] = data[-1]
            sequence += size
            await asyncio.sleep(BETWEEN)
        self.attempted[session][publisher] = sequence

    async def plain(self, session: str, publisher: str, chance: random.Random) -> None:
        """Publish batches without a sequence, each once: acknowledged or not, all or nothing."""
        number = 0
        while not self.stopping:
            size = chance.randint(2, 6)
            data = [{"p": publisher, "n": number, "part": part, "of": size} for part in range(size)]
            number += 1
            try:
                answer = await self.client.session(session).publish_many([("plain", d) for d in data])
            except UnavailableError:
                await asyncio.sleep(0.02)
                continue
            assert not answer.duplicate
            for at, d in zip(range(answer.first_offset, answer.next_offset), data, strict=True):
                self.acknowledged[session][at] = d
            await asyncio.sleep(BETWEEN)

    async def device(self, session: str, begin: float) -> None:
        """Watch from the beginning, through every kill; whoever begins late is waited for, too."""
        seen: list[SessionEvent[Any]] = []
        self.seen.append((session, seen))
        await asyncio.sleep(begin)
        with suppress(asyncio.CancelledError):
            while True:
                with suppress(RefusedError):  # not there yet
                    position = seen[-1].cursor if seen else "beginning"
                    async for event in self.client.session(session).events(from_=position):
                        seen.append(event)
                await asyncio.sleep(0.05)


@pytest.mark.timeout(480 + 4 * KILLS)
async def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(tmp_path: Path) -> None:
    chance = random.Random(5)
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    # The publishers here try again by themselves, each time with other batch boundaries.
    async with SessionClient(gateway.url, retry_timeout=timedelta(0)) as client:
        load = Load(client)
        publishers = [
            asyncio.ensure_future(publish(session, f"{publish.__name__}-{n}", random.Random(n)))
            for session in SESSIONS
            for publish in (load.idempotent, load.plain)
            for n in range(3)
        ]
        devices = [asyncio.ensure_future(load.device(s, begin)) for s in SESSIONS for begin in (0, 1, 5)]
        for _ in range(KILLS):
            # Now and then it is killed while it starts, or recovers from the kill before.
            early = chance.random() < 0.2
            if not early:
                await gateway.ready()
            await asyncio.sleep(chance.uniform(0, 0.5))
            await gateway.kill()
            await gateway.start(wait=False)
        await gateway.ready()
        load.stopping = True
        await asyncio.gather(*publishers)
        logs = {session: await whole_log(client, session) for session in SESSIONS}
        await until_seen(load, logs)
        for device in devices:
            device.cancel()
        await asyncio.gather(*devices)
    assert await gateway.stop() == 0
    for session, log in logs.items():
        check(session, log, load)


async def whole_log(client: SessionClient, session: str) -> list[SessionEvent[Any]]:
    end = await next_offset(client, session)
    log: list[SessionEvent[Any]] = []
    async for event in client.session(session).events():
        log.append(event)
        if event.offset == end - 1:
            break
    return log


async def next_offset(client: SessionClient, session: str) -> int:
    """The end of a session, once the store can be read: after a fault it may need a while to elect a leader."""
    async with asyncio.timeout(60):
        while True:
            with suppress(UnavailableError):
                return (await client.session(session).state()).next_offset
            await asyncio.sleep(0.1)


async def until_seen(load: Load, logs: dict[str, list[SessionEvent[Any]]]) -> None:
    async with asyncio.timeout(60):
        while any(len(seen) < len(logs[session]) for session, seen in load.seen):
            await asyncio.sleep(0.05)


def check(session: str, log: list[SessionEvent[Any]], load: Load) -> None:
    assert [e.offset for e in log] == list(range(len(log))), "offsets are dense"
    at = {e.offset: e.data for e in log}
    assert load.acknowledged[session], "the load has done something"
    for offset, data in load.acknowledged[session].items():
        assert at[offset] == data, "what was acknowledged is at its offset"
    for publisher, count in load.attempted[session].items():
        numbers = [d["n"] for d in at.values() if d["p"] == publisher]
        # Past `count` there can be a batch whose answer nobody heard.
        assert numbers == list(range(len(numbers))), "each event of an idempotent publisher is there once, in order"
        assert len(numbers) >= count, "every acknowledged event is there"
    parts = Counter((d["p"], d["n"], d["of"]) for d in at.values() if "of" in d)
    for (publisher, number, size), there in parts.items():
        assert there == size, f"batch {number} of {publisher} is whole"
    devices = [seen for watched, seen in load.seen if watched == session]
    assert devices
    for seen in devices:
        assert [e.raw for e in seen] == [e.raw for e in log[: len(seen)]], "a device saw the log, byte for byte"
