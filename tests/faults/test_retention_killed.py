"""SIGKILL while retention trims, sessions are deleted and files are imported: what is there is dense, exact and whole.

Publishers with a sequence publish into sessions of which little is kept; others fill sessions, delete them and fill them anew.
Every event says which life of its session it belongs to and which number it is.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateways import GatewayProcess
from tests.soak import BETWEEN, times
from tests.support import TIME, Served

KILLS = times(2, 3)
KEPT = 50
MORTALS = 3
GONE = (aiohttp.ClientError, TimeoutError, AssertionError)


class Load:
    """What was published, deleted and imported, and acknowledged."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.stopping = False
        self.acknowledged: dict[str, dict[int, Any]] = {}
        self.sequences: dict[tuple[str, str], int] = {}
        self.deletions = 0
        self.erased: list[str] = []
        self.imports = 0

    async def call(self, method: str, path: str, **how: Any) -> tuple[int, Any]:
        """Ask until there is an answer."""
        while True:
            try:
                return await self.served.call(method, path, timeout=aiohttp.ClientTimeout(10), **how)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.02)

    async def publish(self, session: str, publisher: str, chance: random.Random) -> None:
        """On and on, into a session of which the last events are kept."""
        at = self.acknowledged.setdefault(session, {})
        sequence = 0
        while not self.stopping:
            size = chance.randint(1, 20)
            data = [{"p": publisher, "n": n, "pad": "x" * (n * 37 % 300)} for n in range(sequence, sequence + size)]
            status, answer = await self.call(
                "POST",
                f"/v1/sessions/{session}/events",
                json={"events": [{"topic": "t", "data": d} for d in data]},
                headers={"Wakeline-Publisher": publisher, "Wakeline-Sequence": str(sequence)},
            )
            assert status == 200, answer
            if answer["next_offset"] - answer["first_offset"] == size:
                at |= dict(zip(range(answer["first_offset"], answer["next_offset"]), data, strict=True))
            sequence += size
            self.sequences[session, publisher] = sequence
            await asyncio.sleep(BETWEEN)

    async def live_and_die(self, session: str, chance: random.Random) -> None:
        """Fill a session, delete it, and fill it anew; at the end it stays deleted."""
        life = 0
        while True:
            life += 1
            mark = f"erased-{session}-{life}-"
            for number in range(chance.randint(1, 6)):
                data = f"{mark}{number}" + "z" * chance.choice([0, 200, 5000])
                events = [{"topic": "t", "data": data}] * chance.randint(1, 100)
                headers = {"Wakeline-Publisher": f"{mark}p", "Wakeline-Sequence": "0"} if number == 0 else {}
                status, answer = await self.call(
                    "POST", f"/v1/sessions/{session}/events", json={"events": events}, headers=headers
                )
                assert status == 200
                if number == 0:
                    # A life begins at 0, unless a deletion that nobody heard of had not taken effect.
                    assert answer["first_offset"] == 0
            status, _ = await self.call("DELETE", f"/v1/sessions/{session}")
            assert status in (204, 404)  # 404: it took effect, and the answer was lost
            self.deletions += 1
            self.erased.append(mark)
            if self.stopping:
                return
            await asyncio.sleep(BETWEEN)

    async def load(self, chance: random.Random) -> None:
        """Import files, under a name each; each is there whole or not at all."""
        while not self.stopping:
            self.imports += 1
            count = chance.randint(0, 3000)
            ndjson = {"Content-Type": "application/x-ndjson"}
            path = f"/v1/sessions/import-{self.imports}-{count}/import"
            try:
                status, answer = await self.served.call("POST", path, data=file(count), headers=ndjson)
            except (aiohttp.ClientError, TimeoutError):
                continue
            assert status == 201, answer
            await asyncio.sleep(BETWEEN)


async def file(count: int) -> AsyncIterator[bytes]:
    head = {"wakeline_export": 1, "session": "s", "epoch": "e", "first_offset": 0, "next_offset": count}
    yield json.dumps({**head, "created": TIME, "closed": True, "retention": {}, "runs": []}).encode() + b"\n"
    for start in range(0, count, 100):
        lines = [{"offset": n, "topic": "t", "data": n, "time": TIME} for n in range(start, min(count, start + 100))]
        yield b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        await asyncio.sleep(0.001)
    yield b'{"wakeline_export_end":%d}\n' % count


@pytest.mark.timeout(480 + 12 * KILLS)
async def test_what_is_kept_is_dense_and_what_is_gone_is_gone(kept_in: Mapping[str, str], tmp_path: Path) -> None:
    chance = random.Random(7)
    environment = {"WAKELINE_RETENTION_EVENTS": str(KEPT), "WAKELINE_ERASE_WITHIN": "3", **kept_in}
    gateway = GatewayProcess(tmp_path / "data", environment=environment)
    await gateway.start()
    async with Served(gateway.url) as served:
        load = Load(served)
        tasks = [asyncio.ensure_future(load.publish(s, f"p{n}", random.Random(n))) for s in ("a", "b") for n in (1, 2)]
        tasks += [asyncio.ensure_future(load.live_and_die(f"mortal{n}", random.Random(n))) for n in range(MORTALS)]
        tasks.append(asyncio.ensure_future(load.load(random.Random(9))))
        for _ in range(KILLS):
            await gateway.ready()
            await asyncio.sleep(chance.uniform(0, 2.5))
            for task in tasks:
                assert not task.done(), task.exception()
            await gateway.kill()
            await gateway.start(wait=False)
        await gateway.ready()
        async with asyncio.timeout(60):
            while load.deletions <= 3 or load.imports <= 3:  # on a busy machine there is little between two kills
                for task in tasks:
                    assert not task.done(), task.exception()
                await asyncio.sleep(0.05)
        load.stopping = True
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        await until_trimmed(served)
        for session, acknowledged in load.acknowledged.items():
            await check_kept(served, session, acknowledged, load)
        await check_imports(served)
        for number in range(MORTALS):
            assert (await served.call("GET", f"/v1/sessions/mortal{number}"))[0] == 404
        if not kept_in:  # the other engines leave it to their servers when they free the space
            await until_erased(tmp_path / "data", load.erased)
    assert await gateway.stop() == 0


async def until_trimmed(served: Served) -> None:
    async with asyncio.timeout(60):
        for session in ("a", "b"):
            while True:
                _, state = await served.call("GET", f"/v1/sessions/{session}")
                if state["next_offset"] - state["first_offset"] <= KEPT:
                    break
                await asyncio.sleep(0.1)


async def check_kept(served: Served, session: str, acknowledged: dict[int, Any], load: Load) -> None:
    _, state = await served.call("GET", f"/v1/sessions/{session}")
    _, page = await served.call("GET", f"/v1/sessions/{session}/events")
    gap, *events = page["events"]
    first, end = state["first_offset"], state["next_offset"]
    assert (gap["topic"], gap["data"]["missed"], gap["data"]["first_available"]) == ("$gap", first, first)
    assert [e["offset"] for e in events] == list(range(first, end)), "what is kept is dense"
    assert end - first == KEPT
    assert max(acknowledged) < end
    for event in events:
        if event["offset"] in acknowledged:
            assert event["data"] == acknowledged[event["offset"]]
    # Exactly once, whatever of it is gone: a retry of the last event is recognised, and the next one goes on behind it.
    for (of, publisher), sequence in load.sequences.items():
        if of == session:
            numbers = [e["data"]["n"] for e in events if e["data"]["p"] == publisher]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            again = await served.publish(session, {"topic": "t"}, publisher=publisher, sequence=str(sequence - 1))
            assert again["duplicate"]


async def check_imports(served: Served) -> None:
    _, listed = await served.call("GET", "/v1/sessions?limit=1000&after=import-")
    there = [state for state in listed["sessions"] if state["session"].startswith("import-")]
    assert there
    for state in there:
        assert state["next_offset"] == int(state["session"].rsplit("-", 1)[1])
        assert state["closed"]


async def until_erased(data: Path, marks: list[str]) -> None:
    """No file holds anything of a life whose deletion was acknowledged."""
    async with asyncio.timeout(60):
        while True:
            content = b"".join(path.read_bytes() for path in sorted(data.iterdir()))
            left = [mark for mark in marks if mark.encode() in content]
            if not left:
                return
            await asyncio.sleep(0.2)
