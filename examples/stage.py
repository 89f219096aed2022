"""What every example runs on: a Temporal dev server, a worker, and somebody who compares the output."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from temporalio.client import Client
from temporalio.worker import Worker

from wakeline.cli.processes import TemporalServer


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        name: Its folder.
        play: The program. Prints what there is to see; is given a client and the worker's task queue.
        check: Raises `AssertionError` where the printed lines are not what they must be.
        workflows: What the worker runs.
        activities: What the worker runs.
    """

    name: str
    play: Callable[[Client, str], Awaitable[None]]
    check: Callable[[list[str]], None]
    workflows: Sequence[type]
    activities: Sequence[Callable[..., Any]] = ()


class _Tee(io.TextIOBase):
    """Writes to the screen and keeps a copy."""

    def __init__(self, screen: TextIO) -> None:
        self._screen = screen
        self.copy = io.StringIO()

    def write(self, text: str) -> int:
        self._screen.write(text)
        return self.copy.write(text)


async def play(example: Example, client: Client) -> None:
    """Run an example against a server and check its output.

    Raises:
        AssertionError: It printed something else than it must.
    """
    queue = f"{example.name}-{uuid.uuid4().hex[:8]}"
    output = _Tee(sys.stdout)
    async with Worker(client, task_queue=queue, workflows=example.workflows, activities=example.activities):
        with contextlib.redirect_stdout(output):
            await asyncio.wait_for(example.play(client, queue), 60)
    example.check(output.copy.getvalue().splitlines())


async def run(examples: Sequence[Example]) -> int:
    """Run examples on a dev server of their own; the number of those that failed."""
    failed = 0
    server = TemporalServer()
    await server.start()
    try:
        client = await server.ready()
        for example in examples:
            print(f"== {example.name}", flush=True)
            begun = time.monotonic()
            try:
                await play(example, client)
            except (AssertionError, TimeoutError) as error:
                failed += 1
                print(f"-- {example.name} FAILED: {error}\n", flush=True)
            else:
                print(f"-- {example.name} as expected, {time.monotonic() - begun:.1f} s\n", flush=True)
    finally:
        await server.stop()
    return failed


def main(*examples: Example) -> None:
    """Run examples and exit with 1 if one failed."""
    # An activity that fails on purpose is not news.
    logging.getLogger("temporalio").setLevel(logging.ERROR)
    sys.exit(1 if asyncio.run(run(examples)) else 0)


def expect(lines: list[str], expected: str) -> None:
    """Compare printed lines with a text.

    Raises:
        AssertionError: They differ.
    """
    wanted = expected.strip("\n").splitlines()
    if lines != wanted:
        raise AssertionError("expected\n" + "\n".join(wanted) + "\ngot\n" + "\n".join(lines))
