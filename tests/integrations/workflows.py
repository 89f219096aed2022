"""Workflows and activities of the tests: one tiny one for each behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from wakeline.integrations.temporal import current_session, current_sync_session, has_session
from wakeline.publisher import SessionPublisher, SyncSessionPublisher

QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3)


@workflow.defn
class Runs:
    """Runs one activity by name."""

    @workflow.run
    async def run(self, name: str, argument: Any = None) -> Any:
        return await workflow.execute_activity(
            name,
            argument,
            activity_id=name,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=30),
            retry_policy=QUICK,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


@workflow.defn
class Hurries:
    """Gives one activity little time for each attempt."""

    @workflow.run
    async def run(self, name: str, attempts: int) -> Any:
        return await workflow.execute_activity(
            name,
            activity_id=name,
            start_to_close_timeout=timedelta(seconds=4),  # in which a busy worker ends the attempt that ends at once
            heartbeat_timeout=timedelta(seconds=3.9),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=3), maximum_attempts=attempts),
        )


@activity.defn
async def slow_at_first() -> str:
    while activity.info().attempt == 1:
        activity.heartbeat()
        await asyncio.sleep(0.1)
    return "done"


@activity.defn
async def speak(words: list[str]) -> int:
    answer = (await current_session()).topic("answer", append="text").message("m")
    for word in words:
        await (await current_session()).topic("word").publish(word)
        await answer.append(word)
    await answer.complete()
    return len(words)


@activity.defn
def speak_in_a_thread(words: list[str]) -> int:
    for word in words:
        current_sync_session().topic("word").publish(word)
    return len(words)


@activity.defn
def speak_in_a_process(url: str) -> list[str]:
    said = []
    for ask in (current_sync_session, lambda: asyncio.run(current_session())):
        try:
            ask()
        except LookupError as error:
            said.append(str(error))
    assert not has_session()
    with SyncSessionPublisher.from_within_activity(url) as session:
        session.topic("word").publish("from a process")
    return said


@activity.defn
async def quiet(_: Any) -> str:
    return "done"


@activity.defn
async def fail_once(_: Any) -> str:
    attempt = activity.info().attempt
    await (await current_session()).topic("word").publish(f"attempt {attempt}")
    if attempt == 1:
        raise ApplicationError("the first one fails", type="Flaky")
    return "done"


@activity.defn
def fail_once_in_a_thread(_: Any) -> str:
    attempt = activity.info().attempt
    current_sync_session().topic("word").publish(f"attempt {attempt}")
    if attempt == 1:
        raise ApplicationError("the first one fails", type="Flaky")
    return "done"


@activity.defn
async def fail_for_good(_: Any) -> str:
    raise ApplicationError("no such card", type="CardError", non_retryable=True) from ValueError("4242")


@activity.defn
async def fail_always(_: Any) -> str:
    raise ValueError("again")


@activity.defn
async def wait_to_be_canceled(_: Any) -> str:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.05)


@activity.defn
async def complete_elsewhere(_: Any) -> str:
    TOKENS.append(activity.info().task_token)
    activity.raise_complete_async()


@activity.defn
async def publish_by_hand(url: str) -> str:
    async with SessionPublisher.from_within_activity(url) as session:
        await session.topic("word").publish("by hand")
    return "done"


@activity.defn
async def ask_for_the_wrong_one(_: Any) -> str:
    try:
        current_sync_session()
    except LookupError as error:
        return str(error)
    return "it gave one"


@activity.defn
async def keep_it(_: Any) -> str:
    """Leaves a task behind that publishes later."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    KEPT.append(told)

    async def later() -> None:
        try:
            while True:
                await current_session()
                await asyncio.sleep(0.01)
        except LookupError as error:
            told.set_result(str(error))

    BEHIND.append(asyncio.create_task(later()))
    return "done"


TOKENS: list[bytes] = []
KEPT: list[asyncio.Future[str]] = []
BEHIND: list[asyncio.Task[None]] = []
ACTIVITIES: list[Callable[..., Any]] = [
    slow_at_first,
    speak,
    speak_in_a_thread,
    quiet,
    fail_once,
    fail_once_in_a_thread,
    fail_for_good,
    fail_always,
    wait_to_be_canceled,
    complete_elsewhere,
    publish_by_hand,
    ask_for_the_wrong_one,
    keep_it,
]
