"""One workflow that runs an activity and hosts a stream, and activities that publish in each way."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from wakeline.streams import WorkflowStream

with workflow.unsafe.imports_passed_through():
    from wakeline.publisher import SessionPublisher, SyncSessionPublisher


@workflow.defn
class Runs:
    """Runs one activity, and hosts a stream until it is told to stop."""

    @workflow.init
    def __init__(self, name: str, url: str) -> None:
        self.stream = WorkflowStream()
        self.open = False

    @workflow.run
    async def run(self, name: str, url: str) -> Any:
        done = await workflow.execute_activity(
            name,
            url,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=3),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: not self.open)
        return done

    @workflow.signal
    def hold(self) -> None:
        self.open = True

    @workflow.signal
    def close(self) -> None:
        self.open = False


def fail_once() -> None:
    if activity.info().attempt == 1:
        raise ApplicationError("once")


@activity.defn
async def retried(url: str) -> int:
    async with SessionPublisher.from_within_activity(url) as session:
        for n in range(3):
            await session.topic("t").publish(f"{activity.info().attempt}.{n}")
        await session.flush()
        fail_once()
        return session.resumed


@activity.defn
async def resumed(url: str) -> int:
    async with SessionPublisher.from_within_activity(url, resume=True) as session:
        session.heartbeat("mine")
        session.heartbeat_every(timedelta(seconds=0.05))
        for n in range(session.resumed, 10):
            if n == 6:
                await session.flush()
                session.heartbeat("mine", n)
                fail_once()
            await session.topic("t").publish(n)
        return session.resumed


@activity.defn
async def resumed_without_gateway(url: str) -> Any:
    """What the last heartbeat says is what is resumed from, where nobody can be asked."""
    if activity.info().attempt == 1:
        async with SessionPublisher.from_within_activity(url) as session:
            for n in range(4):
                await session.topic("t").publish(n)
            await session.flush()
            session.heartbeat("mine")
        raise ApplicationError("once")
    nowhere = SessionPublisher.from_within_activity("http://127.0.0.1:9", resume=True)
    async with nowhere as session:
        return [session.resumed, list(activity.info().heartbeat_details)]


@activity.defn
def in_a_thread(url: str) -> int:
    with SyncSessionPublisher.from_within_activity(url, resume=True) as session:
        session.heartbeat_every(timedelta(seconds=0.05))
        for n in range(session.resumed, 6):
            if n == 3:
                session.flush()
                session.heartbeat("mine")
                fail_once()
            session.topic("t").publish(n)
        return session.resumed


@activity.defn
async def until_cancelled(url: str) -> None:
    async with SessionPublisher.from_within_activity(url) as session:
        session.heartbeat_every(timedelta(seconds=0.1))
        while True:
            await session.topic("t").publish(1)
            await asyncio.sleep(0.02)


@activity.defn
def thread_until_cancelled(url: str) -> None:
    with SyncSessionPublisher.from_within_activity(url) as session:
        session.heartbeat_every(timedelta(seconds=0.1))
        while True:
            session.topic("t").publish(1)
            time.sleep(0.02)


@activity.defn
async def asks_until_cancelled(url: str) -> None:
    async with SessionPublisher.from_within_activity(url) as session:
        session.heartbeat_every(timedelta(seconds=0.1))
        request = await session.request("approval", id="pay-1", expires=timedelta(hours=1))
        try:
            await request.outcome()
        except asyncio.CancelledError:
            if (why := activity.cancellation_details()) and why.cancel_requested:
                await request.cancel()
            raise


@activity.defn
async def falls_back(url: str) -> int:
    async with SessionPublisher.from_within_activity(url, on_unavailable="workflow") as session:
        answer = session.topic("answer", append="text").message("m1")
        for n in range(20):
            await answer.append(f"{n} ")
        await session.topic("cell").publish({"n": 1}, key="A1")
        await session.topic("raw").publish(b"\x00")
        await session.flush()
        return session.acknowledged


ACTIVITIES = [
    retried,
    resumed,
    resumed_without_gateway,
    in_a_thread,
    until_cancelled,
    thread_until_cancelled,
    asks_until_cancelled,
    falls_back,
]
