"""A worker in a process of its own, for tests that stop it in mid-sentence.

    python -m tests.faults.zombie_worker TEMPORAL QUEUE FILE

Its activity says an answer, token by token. Each line of FILE tells how one attempt ended.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from wakeline.errors import AttemptFencedError
    from wakeline.publisher import SessionPublisher

TOKENS = 60
AT_ONCE = 10
# The first attempt is stopped before it has said everything, however late the test is; the others need not take as long.
FIRST_PACE, PACE = 0.3, 0.03
# A worker that has no turn for some seconds is not taken for one that is stopped.
SILENT_SECONDS = 8.0
ENDED = Path(sys.argv[3] if len(sys.argv) > 3 else "/dev/null")


def token(attempt: int, number: int) -> str:
    return f"<{attempt}.{number}>"


def answer(attempt: int) -> str:
    return "".join(token(attempt, number) for number in range(TOKENS))


def note(line: str) -> None:
    with ENDED.open("a") as file:
        file.write(line)


@activity.defn
async def say() -> None:
    """Says it all, deaf to whoever cancels it: only the gateway can stop it."""
    speaking = asyncio.create_task(speak(activity.info().attempt))
    while not speaking.done():
        with suppress(asyncio.CancelledError, AttemptFencedError):
            await asyncio.shield(speaking)
    how = "fenced" if isinstance(speaking.exception(), AttemptFencedError) else "said everything"
    note(f"{activity.info().workflow_id} {activity.info().attempt} {how}\n")
    await speaking


async def speak(attempt: int) -> None:
    pace = FIRST_PACE if attempt == 1 else PACE
    async with SessionPublisher.from_within_activity() as session:
        session.heartbeat_every(timedelta(seconds=0.2))
        message = session.topic("answer", append="text").message("m")
        for number in range(TOKENS):
            await message.append(token(attempt, number))
            await session.flush()
            await asyncio.sleep(pace)
        await message.complete()


@workflow.defn
class Speaks:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            say,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=SILENT_SECONDS),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50)),
        )


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    # As many as it has room for: while it stands still nothing else is handed to it.
    worker = Worker(
        client,
        task_queue=sys.argv[2],
        activities=[say],
        max_concurrent_activities=AT_ONCE,
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),  # else the SDK holds them back, almost too long
    )
    async with worker:
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
