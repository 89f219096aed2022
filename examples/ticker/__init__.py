"""A ticker that keeps only its latest events. A subscriber that is too slow for that is told what it missed."""

from __future__ import annotations

import asyncio
import re
import uuid

from temporalio.client import Client

from examples.stage import Example
from examples.ticker.workflows import KEPT, TICKS, TickerWorkflow
from wakeline.streams import StreamGap, WorkflowStreamClient


async def subscribe(client: Client, workflow_id: str, name: str, seconds_per_event: float) -> None:
    """Print every event, and every jump over events that are gone."""

    def tell(gap: StreamGap) -> None:
        print(f"[{name}] jumped over {gap.wanted} to {gap.resumed - 1}: truncated")

    stream = WorkflowStreamClient.create(client, workflow_id)
    async for item in stream.subscribe("tick", result_type=int, on_gap=tell):
        print(f"[{name}] offset={item.offset:2} tick={item.data}")
        await asyncio.sleep(seconds_per_event)


async def play(client: Client, queue: str) -> None:
    """A fast and a slow subscriber, side by side."""
    handle = await client.start_workflow(TickerWorkflow.run, id=f"ticker-{uuid.uuid4().hex[:8]}", task_queue=queue)
    await asyncio.gather(
        subscribe(client, handle.id, "fast", 0),
        subscribe(client, handle.id, "slow", 0.5),
    )
    print(f"workflow result: {await handle.result()}")


def check(lines: list[str]) -> None:
    """The fast one sees everything. The slow one jumps, and says so wherever it does."""

    def seen(name: str) -> list[str]:
        return [line for line in lines if line.startswith(f"[{name}]")]

    assert seen("fast") == [f"[fast] offset={n:2} tick={n}" for n in range(TICKS)], "fast missed something"
    jumps, expected = 0, 0
    for line in seen("slow"):
        first, *last = (int(number) for number in re.findall(r"\d+", line))
        assert first == expected, f"slow jumped to {first} from {expected} without a word"
        jumped = "jumped" in line
        jumps += jumped
        expected = (last[0] if jumped else first) + 1
    assert jumps, "slow did not jump"
    assert expected == TICKS, f"slow ended at {expected}"
    assert lines[-1] == f"workflow result: {TICKS} ticks, the last {KEPT} kept", lines[-1]


EXAMPLE = Example("ticker", play, check, [TickerWorkflow])
