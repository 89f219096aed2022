"""What publishers notice while a million events are trimmed, or erased: `python -m benchmarks.retention`.

Fifty publishers append to a hundred sessions, at a steady rate, so that what is measured is how long each waits, not how much
fits through. The same is measured before anything is removed, while retention trims, while a deleted session is
erased, and while the file is rebuilt.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from wakeline.events import NewEvent, compose
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import Append, NewSession, Publication
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.sessions import Deletions, Keeper, Retention, Runs

PUBLISHERS = 50
SESSIONS = 100
ERASE_WITHIN = 1.0  # seconds: the file is rebuilt when the rows of the deleted session are gone
BODY = b'"' + b"x" * 200 + b'"'


def event() -> NewEvent:
    return compose("t", BODY, time="2026-11-21T05:14:43.123Z")


class Publishing:
    """Publishers at a steady rate, and how long each append took."""

    def __init__(self, engine: SqliteEngine, rate: float) -> None:
        self.engine = engine
        self.every = PUBLISHERS / rate
        self.took: list[float] = []
        self.sequences = [0] * PUBLISHERS

    async def one(self, number: int) -> None:
        due = time.perf_counter() + self.every * number / PUBLISHERS
        while True:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            publication = Publication(f"p{number}", 1, self.sequences[number])
            # From when it was due: one that waits behind a slow one has waited, too.
            await self.engine.append(Append(f"s{number % SESSIONS}", (event(),), publication))
            self.sequences[number] += 1
            self.took.append(time.perf_counter() - due)
            due += self.every

    async def during(self, name: str, work: Awaitable[object]) -> None:
        self.took.clear()
        tasks = [asyncio.create_task(self.one(number)) for number in range(PUBLISHERS)]
        began = time.perf_counter()
        await work
        seconds = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        took = sorted(self.took)
        at = [1e3 * took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99, 0.999, 1)]
        print(
            f"{name:34} {seconds:7.1f} s  {len(took):7} appends   p50 {at[0]:6.2f}  p99 {at[1]:6.2f}"
            f"  p99.9 {at[2]:6.2f}  max {at[3]:6.2f} ms",
            flush=True,
        )


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await done():
            return
        await asyncio.sleep(0.1)


async def fill(engine: SqliteEngine, names: list[str], count: int) -> None:
    """Sessions whose events lie among each other."""
    events = tuple(event() for _ in range(20))
    for start in range(0, count, 20 * len(names) * 10):
        rounds = min(10, (count - start) // (20 * len(names)))
        await asyncio.gather(*(engine.append(Append(name, events)) for _ in range(rounds) for name in names))


async def measure(directory: Path, count: int, rate: float) -> None:
    engine = SqliteEngine(directory, erase_within=ERASE_WITHIN)
    await engine.open()
    runs, metrics = Runs(engine), Metrics()
    deletions = Deletions(engine, runs, Positions(engine, Presence()), metrics)
    await fill(engine, ["large", "other"], 2 * count)
    print(
        f"{count} events each of two sessions among each other: {(directory / 'wakeline.db').stat().st_size >> 20} MB"
    )
    publishing = Publishing(engine, rate)
    await publishing.during("nothing else", asyncio.sleep(15))
    keeper = Keeper(engine, runs, deletions, Retention(events=1000), metrics)
    await engine.create_session(NewSession("other-kept"))
    keeper.start()

    async def trimmed() -> bool:
        states = [await engine.state(name) for name in ("large", "other")]
        return all(state is not None and state.next_offset - state.first_offset <= 1000 for state in states)

    await publishing.during("retention trims them both", until(trimmed))
    await keeper.stop()
    await fill(engine, ["deleted", "kept"], 2 * count)

    async def erased() -> bool:
        return await engine._reading(lambda c: c.execute("SELECT 1 FROM erasing WHERE session > 0").fetchone()) is None

    async def clean() -> bool:
        return await engine._reading(lambda c: c.execute("SELECT 1 FROM erasing").fetchone()) is None

    await deletions.delete("deleted")
    await publishing.during("one of two is erased", until(erased))
    await publishing.during("the file is rebuilt", until(clean))
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=2_000.0, help="appends a second, of all publishers together")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), arguments.events, arguments.rate))


if __name__ == "__main__":
    main()
