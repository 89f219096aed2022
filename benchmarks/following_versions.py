"""What following costs Temporal and how late a device is, in one line: to compare two versions of Wakeline.

    python -m benchmarks.following_versions >> results/following.jsonl      # some four minutes
    python -m benchmarks.following_versions table results/following.jsonl

Run it by turns in a checkout of each version, each with an environment of its own, on a quiet machine; the first word of a
line is the name that WAKELINE_VERSION_NAME gives it. All settings are the defaults. Every other idle run hosts a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from temporalio.client import Client

from benchmarks.following import QUEUE, Device, calls, gateway, metric, speak, temporal
from benchmarks.following_workflows import Idle


def percentile(delays: list[float], part: int) -> float:
    ordered = sorted(delays)
    return ordered[min(len(ordered) * part // 100, len(ordered) - 1)] * 1000


async def histories(client: Client, kind: str, runs: int) -> list[int]:
    """How many events the history of each run has."""
    described = await asyncio.gather(*(client.get_workflow_handle(f"{kind}-{n}").describe() for n in range(runs)))
    return [each.history_length for each in described]


async def idle(client: Client, kind: str, runs: int, settle: float, seconds: float) -> dict[str, Any]:
    """What so many open runs cost that say nothing, with a device each or with none."""
    await asyncio.gather(
        *(client.start_workflow(Idle.run, n % 2 == 0, id=f"{kind}-{n}", task_queue=QUEUE) for n in range(runs))
    )
    # Their first task is done: it has started a timer.
    while min(before := await histories(client, kind, runs)) < 5:  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.5)
    rule = json.dumps([{"workflow_id": f"{kind}-*"}])
    async with (
        gateway(client, follow=rule) as process,
        aiohttp.ClientSession(process.url, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        while await metric(http, "wakeline_runs_followed") < runs:  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(0.2)
        devices = [
            asyncio.create_task(Device(http, f"{kind}-{n}").read()) for n in range(runs) if kind == "with-a-device"
        ]
        await asyncio.sleep(settle)
        began, had = time.monotonic(), await calls(http)
        await asyncio.sleep(seconds)
        made, hours = await calls(http) - had, (time.monotonic() - began) / 3600
        for device in devices:
            assert not device.done()
            device.cancel()
    added = sum(await histories(client, kind, runs)) - sum(before)
    shared = Counter({call: count for call, count in made.items() if call == "GetSystemInfo" or "List" in call})
    return {
        "calls": {call: count / hours / runs for call, count in (made - shared).items()},
        "shared": {call: count / hours for call, count in shared.items()},
        "history": added / runs,
    }


async def latency(client: Client, seconds: float, *, nudged: bool) -> dict[str, float]:
    """How late a device is after a publish in the workflow, at 20 events a second; and what is in the history."""
    name = f"latency-{nudged}"
    async with gateway(client) as process, aiohttp.ClientSession(process.url) as http:
        device = await speak(client, name, http, seconds, "nudged" if nudged else "signals")
    described = await client.get_workflow_handle(name).describe()
    history = described.history_length / len(device.numbers)
    return {"p50": percentile(device.delays, 50), "p95": percentile(device.delays, 95), "history": history}


async def measure(runs: int, settle: float, seconds: float, said: float) -> dict[str, Any]:
    async with temporal() as client:
        # The two at once: each gateway counts its own calls, and there is next to no load.
        without, watched = await asyncio.gather(
            *(idle(client, kind, runs, settle, seconds) for kind in ("without-a-device", "with-a-device"))
        )
        return {
            "version": os.environ.get("WAKELINE_VERSION_NAME", "installed"),
            "without a device": without,
            "with a device": watched,
            "latency": await latency(client, said, nudged=False),
            "latency, nudged": await latency(client, said, nudged=True),
        }


def rows(line: dict[str, Any]) -> dict[str, float]:
    """The figures of one line by name."""
    found: dict[str, float] = {}
    for kind in ("without a device", "with a device"):
        by_call = line[kind]["calls"]
        found[f"{kind}: all calls"] = sum(by_call.values())
        found |= {f"{kind}: {call}": count for call, count in sorted(by_call.items())}
        found |= {f"{kind}: {call}, for all runs": count for call, count in sorted(line[kind]["shared"].items())}
        found[f"{kind}: history events added"] = line[kind]["history"]
    for how in ("latency", "latency, nudged"):
        found |= {f"{how}: p50 ms": line[how]["p50"], f"{how}: p95 ms": line[how]["p95"]}
        found[f"{how}: history events of a published event"] = line[how]["history"]
    return found


def table(path: Path) -> None:
    """Print the medians of each version, and all figures behind them."""
    versions: dict[str, list[dict[str, float]]] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("{"):
            continue  # the server's banner
        read = json.loads(line)
        versions.setdefault(read["version"], []).append(rows(read))
    print("| | " + " | ".join(versions) + " |\n| --- |" + " --- |" * len(versions))
    for name in dict.fromkeys(name for lines in versions.values() for line in lines for name in line):
        cells = []
        for lines in versions.values():
            figures = [line.get(name, 0.0) for line in lines]
            cells.append(f"{statistics.median(figures):.1f} ({', '.join(f'{figure:.1f}' for figure in figures)})")
        print(f"| {name} | " + " | ".join(cells) + " |")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["table"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--settle", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--said", type=float, default=25.0)
    asked = parser.parse_args()
    if asked.what == "table":
        table(asked.path)
        return
    print(json.dumps(await measure(asked.runs, asked.settle, asked.seconds, asked.said)))
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
