"""What positions cost. `python -m benchmarks.positions` measures acknowledgements and what is delivered, on the SQLite engine.

Devices are asyncio tasks that each wait for the answer to their last acknowledgement before they send the next. Nothing goes
over HTTP: what is measured is the work of `gateway/devices/positions.py` and the engine below it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from wakeline.events import compose, timestamp
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.devices.records import part_of
from wakeline.gateway.log import Append, Record
from wakeline.gateway.log.engines.sqlite import SqliteEngine

EVENTS = 1_000


class Counting(SqliteEngine):
    """Counts commits, and the writes of records that share them."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.writes = self.written_bytes = self.commits = 0
        commit = self._writer._commit

        def counted(group: list[Any]) -> None:
            self.commits += 1
            commit(group)

        self._writer._commit = counted  # type: ignore[method-assign] # there is no other place that knows

    def reset(self) -> None:
        self.writes = self.written_bytes = self.commits = 0

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        self.writes += 1
        self.written_bytes += len(value)
        return await super().put_record(key, value, revision=revision)


@asynccontextmanager
async def opened(folder: str, sessions: int) -> AsyncIterator[tuple[Counting, Positions, str]]:
    """An engine in a folder of its own, with sessions `0`, `1` …; gives the epoch of the first."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        engine = Counting(Path(directory))
        await engine.open()
        try:
            event = compose("t", b"1", time=timestamp())
            appended = await engine.append(Append("0", (event,) * EVENTS))
            for number in range(1, sessions):
                await engine.append(Append(str(number), (event,)))
            async with Positions(engine, Presence()) as positions:
                yield engine, positions, appended.epoch
        finally:
            await engine.close()


async def acknowledgements(folder: str, devices: int, known: int, seconds: float) -> str:
    """`devices` acknowledge as fast as they are answered, in a session that knows `known` devices."""
    async with opened(folder, 1) as (engine, positions, epoch):
        await asyncio.gather(
            *(positions.acknowledge("0", f"user-{n}", f"device-{n}", f"{epoch}-0") for n in range(known))
        )
        connected = ExitStack()
        for n in range(devices):
            connected.enter_context(positions.connected("0", epoch, f"user-{n}", f"device-{n}", lambda: 0))
        await positions.save()
        engine.reset()
        latencies: list[float] = []
        began, used = time.perf_counter(), time.process_time()

        async def acknowledge(number: int) -> None:
            offset = 0
            while (sent := time.perf_counter()) < began + seconds:
                offset = min(offset + 1, EVENTS)
                await positions.acknowledge("0", f"user-{number}", f"device-{number}", f"{epoch}-{offset}")
                latencies.append(time.perf_counter() - sent)

        with connected:
            await asyncio.gather(*map(acknowledge, range(devices)))
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        latencies.sort()
        count = len(latencies)
        return (
            f"{known:>8}{devices:>10}{count / elapsed:>12,.0f}{latencies[count // 2] * 1000:>9.2f}"
            f"{latencies[count * 99 // 100] * 1000:>9.2f}{engine.commits / count:>13.3f}{engine.writes / count:>12.3f}"
            f"{engine.written_bytes / engine.writes / 1024:>11.1f}{used / count * 1e6:>11.0f}"
        )


async def longest_turn(work: Coroutine[Any, Any, None]) -> float:
    """Do it; the longest time for which it kept everybody else from the loop. Of CPU, so that neighbours do not count."""
    longest = 0.0
    task = asyncio.ensure_future(work)
    while not task.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    return longest


async def delivered(folder: str, devices: int, sessions: int, rounds: int) -> str:
    """What it costs to ask `devices` live devices, and to store what they were given since the last time."""
    async with opened(folder, sessions) as (engine, positions, epoch):
        epochs = [epoch]
        for number in range(1, sessions):
            state = await engine.state(str(number))
            assert state is not None
            epochs.append(state.epoch)
        offset = 0
        with ExitStack() as connected:
            for number in range(devices):
                at = number % sessions
                who = (f"user-{number}", f"device-{number}")
                connected.enter_context(positions.connected(str(at), epochs[at], *who, lambda: offset))
            await positions.save()
            engine.reset()
            idle = time.process_time()
            for _ in range(rounds):
                await positions.save()
            idle = time.process_time() - idle
            assert engine.writes == 0
            busy = time.process_time()
            for _ in range(rounds):
                offset += 1
                await positions.save()
            busy = time.process_time() - busy
            writes, commits = engine.writes / rounds, engine.commits / rounds
            offset += 1
            slowest = await longest_turn(positions.save())
        return (
            f"{sessions:>9}{devices:>10}{idle / rounds * 1000:>13.2f}{busy / rounds * 1000:>13.1f}"
            f"{writes:>10.0f}{commits:>10.0f}{slowest * 1000:>17.1f}"
        )


async def main(folder: str, seconds: float) -> None:
    spread = len({part_of((f"user-{n}", f"device-{n}")) for n in range(1_000)})
    print(f"a session's devices are in {spread} records\n")
    print("   known   devices      acks/s   p50 ms   p99 ms  commits/ack  writes/ack  KB a write  CPU us/ack")
    for known, devices in ((1, 1), (50, 50), (1_000, 1), (1_000, 50), (1_000, 1_000), (10_000, 1_000)):
        print(await acknowledgements(folder, devices, known, seconds), flush=True)
    print("\n sessions   devices  CPU ms, idle  CPU ms, new    writes   commits  longest turn ms")
    for devices, sessions in ((1_000, 1), (10_000, 1), (1_000, 500), (10_000, 5_000)):
        print(await delivered(folder, devices, sessions, 10), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of acknowledgements")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk that is to be measured")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.folder, arguments.seconds))
