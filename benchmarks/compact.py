"""What a latecomer waits for, raw and compact, and what folding costs who publishes: `python -m benchmarks.compact`.

A hundred thousand deltas, in one message and in a hundred, read by a joiner: the raw log, the compact form of a gateway that
has just been started, and that of one where others have joined. Then one publisher at full speed, with and without folding.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from wakeline.events import MessagePiece, NewEvent, compose
from wakeline.gateway.app import gateway
from wakeline.gateway.delivery import Compacts
from wakeline.gateway.log import Append
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.settings import Settings

BATCH = 100


def delta(number: int, messages: int, *, grows: bool = True) -> NewEvent:
    piece = MessagePiece(f"m{number % messages}", "text") if grows else None
    data = b'"token%d "' % (number % 1000)
    return compose(
        "answer", data, time="2026-11-21T05:14:43.123Z", run="0198f0c5", activity="1", attempt=1, message=piece
    )


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(directory)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def publish(engine: SqliteEngine, count: int, messages: int, *, grows: bool = True) -> float:
    """Seconds that a publisher took for `count` events, with one batch on its way at a time."""
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        events = tuple(delta(number, messages, grows=grows) for number in range(start, min(count, start + BATCH)))
        await engine.append(Append("s", events))
    return time.perf_counter() - began


async def join(url: str, view: str, count: int) -> tuple[float, int]:
    """Seconds until a device that joins has everything there is, and the bytes it was sent."""
    end = b"id: " if view == "compact" else b'"offset":%d,' % (count - 1)
    received = bytearray()
    began = time.perf_counter()
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 22) as http,
        http.get(f"{url}/v1/sessions/s/events?view={view}", headers={"Accept": "text/event-stream"}) as answer,
    ):
        async for piece in answer.content.iter_any():
            received += piece
            if end in received[-len(piece) - 200 :] and (view == "raw" or received.count(b"id: ") > 1):
                break
    return time.perf_counter() - began, len(received)


async def joining(directory: Path, count: int, messages: int) -> None:
    async with opened(directory) as engine, Compacts(engine):
        await publish(engine, count, messages)
    settings = Settings(data=str(directory), port=0, no_auth=True)
    print(f"{count} deltas of {messages} message(s)")
    for name, view, times in (
        ("raw", "raw", 1),
        ("compact, just started", "compact", 1),
        ("compact, again", "compact", 2),
    ):
        async with gateway(settings) as url:
            joined = [await join(url, view, count) for _ in range(times)]
        seconds, size = joined[-1]
        print(f"  {name:24} {1e3 * seconds:8.1f} ms  {size / 1024:10.0f} KiB", flush=True)


async def folding(directory: Path, count: int) -> None:
    """The same events, as plain ones and as deltas, so that the folding is all that differs."""
    print(f"one publisher, batches of {BATCH}, {count} events")
    for name, grows, folds in (
        ("deltas, not folded", True, False),
        ("plain", False, True),
        ("deltas, folded", True, True),
    ):
        async with opened(directory / name.replace(", ", "-").replace(" ", "-")) as engine:
            if folds:
                async with Compacts(engine):
                    seconds = await publish(engine, count, 1, grows=grows)
            else:
                seconds = await publish(engine, count, 1, grows=grows)
        print(f"  {name:24} {count / seconds:8.0f} events/s", flush=True)


async def measure(directory: Path, count: int) -> None:
    for messages in (1, 100):
        await joining(directory / f"{messages}", count, messages)
    await folding(directory, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), arguments.events))


if __name__ == "__main__":
    main()
