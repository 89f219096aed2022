"""Five readers of one stream in a process of their own, so that its memory is theirs.

Each checks that the offsets are dense and the content is exact. Once a minute, and when all have come to the end, a line
of JSON tells how far they are, how late events came, and how much memory the process has.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from temporalio.client import Client

from wakeline.streams import StreamEnd, StreamGap, WorkflowStreamClient

REPORT_EVERY = 60.0
# Two share the first client; the others have one each.
CLIENT_OF_READER = [0, 0, 1, 2, 3]


def event(number: int) -> dict[str, Any]:
    """What the event of this number says, beside when it was published."""
    return {"number": number, "text": f"event {number} " + "é" * (number % 40)}


class Reader:
    """Reads to the end and remembers no event."""

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._stream = WorkflowStreamClient.create(client, workflow_id)
        self.seen = 0
        self.gaps: list[StreamGap] = []
        self.ends: list[StreamEnd] = []
        # In milliseconds. The clock is the machine's, so that it can be compared between processes.
        self.delays: Counter[int] = Counter()

    async def read(self) -> None:
        async for item in self._stream.subscribe("n", on_gap=self.gaps.append, on_end=self.ends.append):
            published = item.data.pop("published")
            assert (item.offset, item.data) == (self.seen, event(self.seen))
            self.seen += 1
            self.delays[round((time.monotonic() - published) * 1000)] += 1


def percentile(delays: Counter[int], percent: int) -> int:
    left = delays.total() * percent // 100
    for delay in sorted(delays):
        left -= delays[delay]
        if left < 0:
            return delay
    return max(delays, default=0)


def report(readers: list[Reader]) -> dict[str, Any]:
    delays: Counter[int] = sum((reader.delays for reader in readers), Counter())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "seen": [reader.seen for reader in readers],
        "gaps": sum(len(reader.gaps) for reader in readers),
        "p50_milliseconds": percentile(delays, 50),
        "p95_milliseconds": percentile(delays, 95),
        "slowest_milliseconds": percentile(delays, 100),
        "resident_megabytes": round(pages * 4096 / 1e6, 1),
        "processor_seconds": round(time.process_time(), 1),
        "ends": [[end.status.name, end.drained] for reader in readers for end in reader.ends],
    }


async def main(address: str, namespace: str, workflow_id: str) -> None:
    clients = [await Client.connect(address, namespace=namespace) for _ in range(max(CLIENT_OF_READER) + 1)]
    readers = [Reader(clients[index], workflow_id) for index in CLIENT_OF_READER]
    reading = asyncio.gather(*(reader.read() for reader in readers))
    # What the process has when all of them have begun is what it may keep.
    while min(reader.seen for reader in readers) < 20 and not reading.done():
        await asyncio.sleep(0.05)
    while not reading.done():
        print(json.dumps(report(readers)), flush=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading), REPORT_EVERY)
    reading.result()
    print(json.dumps(report(readers)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
