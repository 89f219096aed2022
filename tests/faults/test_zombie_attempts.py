"""An activity's worker stops in mid-sentence, the next attempt speaks, and the first one wakes up: nobody hears it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.faults.zombie_worker import AT_ONCE, Speaks, answer
from tests.pausing import pause, resume
from tests.soak import SOAK
from tests.support import Served, Stream
from tests.temporal.test_follower import running_gateway

ROUNDS = SOAK


@asynccontextmanager
async def worker(served: Served, target: str, queue: str, ended: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.zombie_worker", target, queue, str(ended),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "WAKELINE_URL": served.url},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"working\n"
        yield process
    finally:
        process.kill()
        await process.wait()


class Screen:
    """A device that shows what counts, by the rules of PROTOCOL.md alone."""

    def __init__(self) -> None:
        self.pieces: dict[int, str] = {}
        self.attempts: set[int] = set()
        self.complete = False

    async def watch(self, stream: Stream, until: str) -> None:
        while True:
            event = await stream.next()
            self.take(event)
            if event["topic"] == until:
                return

    def take(self, event: dict[str, Any]) -> None:
        if event["topic"] == "answer":
            self.attempts.add(event["attempt"])
            if event["message"]["op"] == "text":
                self.pieces[event["offset"]] = event["data"]
            self.complete = event["message"].get("complete", False)
        elif event["topic"] == "$attempt.superseded":
            for first, last in event["data"]["offsets"]:
                for offset in range(first, last + 1):
                    self.pieces.pop(offset, None)

    @property
    def text(self) -> str:
        return "".join(self.pieces[offset] for offset in sorted(self.pieces))


async def until_said(screens: list[Screen], attempt: int) -> None:
    async with asyncio.timeout(60):
        while not all(attempt in screen.attempts for screen in screens):
            await asyncio.sleep(0.02)


@pytest.mark.timeout(480 + 60 * ROUNDS)
async def test_only_the_last_attempt_is_heard_and_the_zombie_is_refused(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    target = temporal.client.service_client.config.target_host
    async with running_gateway(temporal, tmp_path / "data") as served:
        for turn in range(ROUNDS):
            queue, ended = f"zombies-{uuid4().hex[:8]}", tmp_path / f"ended-{turn}"
            async with Worker(client, task_queue=queue, workflows=[Speaks]):
                await one_round(client, served, target, queue, ended)


async def one_round(client: Client, served: Served, target: str, queue: str, ended: Path) -> None:
    async with worker(served, target, queue, ended) as first:
        names = [f"{queue}-{n}" for n in range(AT_ONCE)]
        screens = [Screen() for _ in names]
        for name in names:
            await client.start_workflow(Speaks.run, id=name, task_queue=queue)
        streams = [await served.stream(name) for name in names]
        watching = [
            asyncio.create_task(screen.watch(stream, "$run.closed"))
            for screen, stream in zip(screens, streams, strict=True)
        ]
        try:
            await until_said(screens, 1)
            pause([first.pid])
            async with worker(served, target, queue, ended):
                await until_said(screens, 2)
                resume([first.pid])
                await asyncio.wait_for(asyncio.gather(*watching), 60)
                async with asyncio.timeout(60):
                    while len(ended.read_text().splitlines()) < 2 * AT_ONCE:
                        await asyncio.sleep(0.05)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            for stream in streams:
                stream.answer.close()
    endings = sorted(line.split(" ", 1) for line in ended.read_text().splitlines())
    assert endings == sorted([name, how] for name in names for how in ("1 fenced", "2 said everything"))
    for name, screen in zip(names, screens, strict=True):
        assert screen.text == answer(2), name
        assert screen.complete
        await check_late_joiner(served, name)


async def check_late_joiner(served: Served, name: str) -> None:
    """Who comes later sees the same, and the log has both attempts, the first one's zombie no further than it was."""
    _, page = await served.call("GET", f"/v1/sessions/{name}/events?limit=1000")
    late = Screen()
    for event in page["events"]:
        late.take(event)
    assert late.text == answer(2)
    order = [event["attempt"] for event in page["events"] if event["topic"] == "answer"]
    assert order == sorted(order), "the zombie wrote after the next attempt"
    _, compact = await served.call("GET", f"/v1/sessions/{name}/events?view=compact")
    (message,) = [event for event in compact["events"] if event["topic"] == "answer"]
    assert message["data"] == answer(2)
    assert message["message"] == {"id": "m", "op": "set", "complete": True}, json.dumps(message)
