"""Which table layout should the SQLite engine have? `python -m benchmarks.layout` measures the candidates.

Appenders are asyncio tasks that each wait for the answer to their last event before they send the next, as publishers
do. One thread owns the database and commits whatever gathered during its last commit (WAL, synchronous=FULL, no timer).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.group_commit import PUBLICATIONS, Writer, body_of, connect
from benchmarks.layouts import LAYOUTS, Layout, Row

CHECKPOINTS = (1000, 4000, 10_000, 0)  # pages of wal_autocheckpoint; 0: a thread of its own
PREFILLED_EVENTS = 100_000  # so that the trees have their everyday depth, and sessions are spread over them
REPLAYED_EVENTS = 10_000

Cell = tuple[int, int, int, bool, Layout]  # sessions, appenders, checkpoint, with publications, layout


def fill(path: Path, layout: Layout, order: list[int]) -> None:
    """Makes a database of one event for each session in `order`, 64 to a commit."""
    connection = connect(path, 10_000)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(layout.schema)
    connection.execute(PUBLICATIONS)
    offsets = [0] * (max(order) + 1)
    for start in range(0, len(order), 64):
        rows: list[Row] = []
        for session in order[start : start + 64]:
            rows.append((session, offsets[session], body_of(offsets[session])))
            offsets[session] += 1
        connection.execute("BEGIN")
        layout.insert(connection, rows)
        connection.execute("COMMIT")
    connection.execute("CREATE TABLE offsets (session INTEGER PRIMARY KEY, next INTEGER)")
    connection.executemany("INSERT INTO offsets VALUES (?, ?)", enumerate(offsets))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@dataclass(frozen=True, slots=True)
class Figures:
    """What one cell measured."""

    rate: float
    p50: float
    p99: float
    slowest: float
    per_commit: float


async def measure(
    path: Path, layout: Layout, appenders: int, sessions: int, checkpoint: int, idempotent: bool, seconds: float
) -> Figures:
    writer = Writer(path, layout, checkpoint, idempotent)
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    warm = time.perf_counter() + min(0.2, seconds / 5)
    end = warm + seconds

    async def appender(number: int) -> None:
        choice = random.Random(number)
        while (started := time.perf_counter()) < end:
            session = choice.randrange(sessions)
            answer: asyncio.Future[None] = loop.create_future()
            # With many sessions each has its own publisher; the publishers of a single session interleave.
            writer.queue.put((session, number if sessions == 1 else session, answer))
            await answer
            if started >= warm:
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(appender(number) for number in range(appenders)))
    elapsed = time.perf_counter() - warm
    await asyncio.to_thread(writer.close)
    latencies.sort()
    count = len(latencies)
    return Figures(
        rate=count / elapsed,
        p50=latencies[count // 2] * 1000,
        p99=latencies[count * 99 // 100] * 1000,
        slowest=latencies[-1] * 1000,
        per_commit=writer.appends / max(1, writer.commits),
    )


def replay(path: Path, layout: Layout, page: int = 500, rounds: int = 9) -> float:
    """The milliseconds to read one session of 10,000 events among 100,000 others, page by page, warm."""
    connection = connect(path, 1000)
    times: list[float] = []
    for _ in range(rounds):
        started, offset = time.perf_counter(), 0
        while bodies := layout.page(connection, 0, offset, page):
            offset += len(bodies)
        times.append((time.perf_counter() - started) * 1000)
        if offset != REPLAYED_EVENTS:
            raise AssertionError(f"{layout.name}: expected {REPLAYED_EVENTS} events, read {offset}")
    connection.close()
    return statistics.median(times)


def run(arguments: argparse.Namespace, folder: Path) -> None:
    layouts = [layout for layout in LAYOUTS if not arguments.only or layout.name[1:].split(")")[0] in arguments.only]
    random_order = random.Random(7)
    print(f"replay of {REPLAYED_EVENTS} events of one session among 200 others, pages of 500, warm:", flush=True)
    spread = [0] * REPLAYED_EVENTS + [random_order.randrange(1, 201) for _ in range(PREFILLED_EVENTS)]
    random_order.shuffle(spread)
    for layout in layouts:
        fill(folder / "replay.db", layout, spread)
        size = (folder / "replay.db").stat().st_size
        milliseconds = replay(folder / "replay.db", layout)
        each = size / len(spread)
        print(f"  {layout.name:28} {milliseconds:7.2f} ms   database {each:4.0f} bytes an event", flush=True)
        (folder / "replay.db").unlink()

    cells = [
        (sessions, appenders, checkpoint, idempotent, layout)
        for sessions in (1, 1000)
        for appenders in (1, 50, 500)
        for idempotent in ((True,) if arguments.idempotent else (True, False))
        for checkpoint in arguments.checkpoints
        for layout in layouts
    ]
    for layout in layouts:
        for sessions in (1, 1000):
            order = [random_order.randrange(sessions) for _ in range(PREFILLED_EVENTS)]
            fill(folder / f"{layouts.index(layout)}-{sessions}.db", layout, order)
    measured: dict[Cell, list[Figures]] = {}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}: {len(cells)} cells", flush=True)
        for cell in cells:
            sessions, appenders, checkpoint, idempotent, layout = cell
            path = folder / "cell" / "events.db"
            path.parent.mkdir()
            shutil.copyfile(folder / f"{layouts.index(layout)}-{sessions}.db", path)
            with path.open("rb+") as copied:
                os.fsync(copied.fileno())  # or the copy would be written out during the measurement
            figures = asyncio.run(measure(path, layout, appenders, sessions, checkpoint, idempotent, arguments.seconds))
            measured.setdefault(cell, []).append(figures)
            shutil.rmtree(path.parent)
        show(measured)


def show(measured: dict[Cell, list[Figures]]) -> None:
    """Prints the medians of all rounds so far."""
    heading: object = None
    for (sessions, appenders, checkpoint, idempotent, layout), figures in measured.items():
        if heading != (sessions, appenders, idempotent):
            heading = (sessions, appenders, idempotent)
            kind = "with publications" if idempotent else "without publications"
            print(f"\nsessions {sessions}, appenders {appenders}, {kind}")
            names = ("checkpoint", "appends/s", "p50 ms", "p99 ms", "max ms", "a commit")
            print(f"  {'layout':28}" + "".join(f"{name:>11}" for name in names))
        middle = {name: statistics.median(getattr(f, name) for f in figures) for name in Figures.__slots__}
        print(
            f"  {layout.name:28}{checkpoint or 'thread':>11}{middle['rate']:11,.0f}{middle['p50']:11.2f}"
            f"{middle['p99']:11.2f}{middle['slowest']:11.1f}{middle['per_commit']:11.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="how long one cell is measured")
    parser.add_argument("--rounds", type=int, default=3, help="how often every cell is measured; medians are shown")
    parser.add_argument("--idempotent", action="store_true", help="only with publications, as the engine needs them")
    parser.add_argument("--checkpoints", type=int, nargs="*", default=CHECKPOINTS, help="of wal_autocheckpoint")
    parser.add_argument("--only", nargs="*", help="the layouts to measure, by letter: a b c d b1 c1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wakeline-layout-") as folder:
        run(arguments, Path(folder))


if __name__ == "__main__":
    main()
