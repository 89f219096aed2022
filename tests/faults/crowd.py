"""Publishers that count what is acknowledged, and devices that keep what they saw: as little as possible of each event.

`Load` in `test_gateway_killed.py` keeps all of it. Here an event is a number, so that a soak may append some hundred thousand.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

from tests.faults.test_gateway_killed import next_offset
from tests.soak import SOAK
from wakeline.background import cancel_all
from wakeline.client import RefusedError, SessionClient, SessionEvent
from wakeline.errors import UnavailableError
from wakeline.publisher import SessionPublisher

SESSIONS = ["one", "two", "three"]
BURST = 20
# Seconds between two batches of a publisher: every run of the tests tries the faults, a soak the load, too.
PACE, BETWEEN = (0.2, 0.1) if SOAK == 1 else (0.05, 0.0)


def mark(data: Any) -> int:
    """What is kept of an event."""
    return hash((data["p"], data["n"], data.get("part", 0)))


class Crowd:
    """Publishers and devices at every address of a group of gateways.

    Args:
        clients: A client for each address.
        token: What they log in with.

    Attributes:
        batches: How many batches were acknowledged.
        events: How many events.
        longest: The longest time in seconds without one.
    """

    def __init__(self, clients: Sequence[SessionClient], token: str) -> None:
        self.batches = 0
        self.events = 0
        self.longest = 0.0
        self._last = monotonic()
        self._clients = clients
        self._token = token
        self._stopping = False
        self._acknowledged: dict[str, dict[int, int]] = {session: {} for session in SESSIONS}
        self._sent: dict[str, dict[str, int]] = {session: {} for session in SESSIONS}
        self._seen: list[tuple[str, array[int]]] = []
        self._publishers: list[asyncio.Task[None]] = []
        self._devices: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Publish to every session at every address, and watch each session at some of them."""
        for at, client in enumerate(self._clients):
            self._publishers.append(asyncio.create_task(self._steady(client.url, SESSIONS[at % 3], f"steady-{at}")))
            for place, session in enumerate(SESSIONS):
                for publish in (self._idempotent, self._plain):
                    publisher, chance = f"{publish.__name__}-{at}", random.Random(at)
                    self._publishers.append(asyncio.create_task(publish(client, session, publisher, chance)))
                if SOAK == 1 or at in (place, place + 1):
                    self._devices.append(asyncio.create_task(self._device(client, session)))

    async def stop(self) -> None:
        """Return when the last appends are acknowledged."""
        self._stopping = True
        await asyncio.gather(*self._publishers)

    async def cancel(self) -> None:
        """End everything."""
        await cancel_all(*self._publishers, *self._devices)

    def _count(self, events: int) -> None:
        now = monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now
        self.batches += 1
        self.events += events

    def _acknowledge(self, session: str, events: dict[int, Any]) -> None:
        self._count(len(events))
        known = self._acknowledged[session]
        for offset, data in events.items():
            assert known.setdefault(offset, mark(data)) == mark(data), "no offset is acknowledged twice"

    async def _steady(self, url: str, session: str, publisher: str) -> None:
        """Publish by a `SessionPublisher`, which comes back after every fault by itself."""
        number = 0
        async with SessionPublisher(url, self._token, session=session, publisher=publisher) as publishing:
            topic = publishing.topic("t")
            while not self._stopping:
                for _ in range(BURST):
                    await topic.publish({"p": publisher, "n": number})
                    number += 1
                await publishing.flush()
                self._count(BURST)
                self._sent[session][publisher] = number
                await asyncio.sleep(PACE)

    async def _idempotent(self, client: SessionClient, session: str, publisher: str, chance: random.Random) -> None:
        """Publish under a sequence, in batches whose boundaries change with every retry."""
        sequence = 0
        while not self._stopping:
            size = chance.choice((1, 1, 1, 2, 3))
            data = [{"p": publisher, "n": n, "pad": "x" * (n * 37 % 200)} for n in range(sequence, sequence + size)]
            try:
                answer = await client.session(session).publish_many(
                    [("t", one) for one in data], publisher=publisher, sequence=sequence
                )
            except UnavailableError:
                await asyncio.sleep(0.02)
                continue
            if answer.next_offset - answer.first_offset == size:
                self._acknowledge(session, dict(zip(range(answer.first_offset, answer.next_offset), data, strict=True)))
            else:  # events of others lie between those of a retry
                self._acknowledge(session, {answer.first_offset: data[0], answer.next_offset - 1: data[-1]})
            sequence += size
            self._sent[session][publisher] = sequence
            await asyncio.sleep(BETWEEN)

    async def _plain(self, client: SessionClient, session: str, publisher: str, chance: random.Random) -> None:
        """Publish batches without a sequence, each once: acknowledged or not, all or nothing."""
        number = 0
        while not self._stopping:
            size = chance.choice((1, 1, 2, 3))
            data = [{"p": publisher, "n": number, "part": part, "of": size} for part in range(size)]
            number += 1
            try:
                answer = await client.session(session).publish_many([("plain", one) for one in data])
            except UnavailableError:
                await asyncio.sleep(0.02)
                continue
            assert not answer.duplicate
            self._acknowledge(session, dict(zip(range(answer.first_offset, answer.next_offset), data, strict=True)))
            await asyncio.sleep(BETWEEN)

    async def _device(self, client: SessionClient, session: str) -> None:
        """Watch from the beginning, through every fault."""
        seen: array[int] = array("q")
        self._seen.append((session, seen))
        position = "beginning"
        while True:
            try:
                async for event in client.session(session).events(from_=position):
                    seen.append(hash(event.raw))
                    position = event.cursor
            except (RefusedError, UnavailableError):  # not there yet, or a gateway that is away
                pass
            await asyncio.sleep(0.05)

    async def check(self, client: SessionClient) -> int:
        """Hold the logs against what was acknowledged and seen; return how many events there are."""
        return sum([await self._check(client, session) for session in SESSIONS])

    async def _check(self, client: SessionClient, session: str) -> int:
        end = await next_offset(client, session)
        log = _Log(self._acknowledged[session])
        async for event in client.session(session).events():
            log.add(event)
            if event.offset == end - 1:
                break
        log.finish(self._sent[session])
        devices = [seen for watched, seen in self._seen if watched == session]
        assert devices
        async with asyncio.timeout(60 if SOAK == 1 else 300):
            while any(len(seen) < end for seen in devices):
                await asyncio.sleep(0.05)
        assert all(seen == log.hashes for seen in devices), "a device saw the log, byte for byte"
        return end


class _Log:
    """What is checked of a session's log, event by event."""

    def __init__(self, acknowledged: dict[int, int]) -> None:
        self.hashes: array[int] = array("q")
        self._acknowledged = acknowledged
        self._found = 0
        self._next: Counter[str] = Counter()
        self._batch: tuple[str, int] | None = None
        self._missing = 0
        self._batches: set[tuple[str, int]] = set()

    def add(self, event: SessionEvent[Any]) -> None:
        data = event.data
        assert event.offset == len(self.hashes), "offsets are dense"
        self.hashes.append(hash(event.raw))
        expected = self._acknowledged.get(event.offset)
        if expected is not None:
            assert expected == mark(data), "what was acknowledged is at its offset"
            self._found += 1
        if "of" not in data:
            assert data["n"] == self._next[data["p"]], "each event of an idempotent publisher is there once, in order"
            self._next[data["p"]] += 1
            assert not self._missing, "a batch is whole"
            return
        batch = data["p"], data["n"]
        if not self._missing:
            assert batch not in self._batches, "a batch is there once"
            self._batches.add(batch)
            self._batch, self._missing = batch, data["of"]
        assert (batch, data["part"]) == (self._batch, data["of"] - self._missing), "a batch is whole"
        self._missing -= 1

    def finish(self, sent: dict[str, int]) -> None:
        assert not self._missing
        assert self._found == len(self._acknowledged) > 0, "everything that was acknowledged is there"
        for publisher, count in sent.items():
            # Past `count` there can be a batch whose answer nobody heard.
            assert self._next[publisher] >= count, "every acknowledged event is there"
