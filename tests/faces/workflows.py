"""A chat whose model says what the test tells it to."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from wakeline.publisher import SessionPublisher

QUEUE = "faces"
Words = tuple[str, Any]

scripts: defaultdict[str, asyncio.Queue[Words]] = defaultdict(asyncio.Queue)
"""What the models of the chats, by session, do next."""


@activity.defn
async def model(message: dict[str, Any], where: dict[str, Any]) -> list[Any]:
    """Does what the script says, until it says that the answer is complete."""
    name = activity.info().workflow_id or ""
    answers: list[Any] = []
    heartbeats = asyncio.create_task(_heartbeats())
    try:
        async with SessionPublisher.from_within_activity(
            where["url"], where.get("token"), session=where.get("session", name)
        ) as session:
            count = itertools.count()
            answer = session.topic("answer", append="text")
            text = answer.message(f"{message.get('turn')}-{next(count)}")
            while True:
                match await scripts[name].get():
                    case ("say", words):
                        await text.append(words)
                        await session.flush()
                    case ("publish", (topic, value, key)):
                        await session.topic(topic).publish(value, key=key)
                        await session.flush()
                    case ("ask", asking):
                        await text.complete()
                        text = answer.message(f"{message.get('turn')}-{next(count)}")
                        request = await session.request(**asking)
                        outcome = await request.outcome()
                        assert outcome is not None
                        answers.append([outcome.status, outcome.payload])
                    case ("write on", over):  # as an activity that does not learn of its cancellation
                        while not over.is_set():
                            with suppress(asyncio.CancelledError):
                                await text.append("w ")
                                await session.flush()
                                await asyncio.sleep(0.02)
                        return answers
                    case ("fail", why):
                        await session.flush()
                        raise RuntimeError(why)
                    case ("return", _):
                        return answers
                    case _:
                        await text.complete()
                        return answers
    finally:
        heartbeats.cancel()


async def _heartbeats() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.1)


@workflow.defn
class Chat:
    """One workflow for a whole chat: each message is an update, which completes with its answer."""

    @workflow.init
    def __init__(self, where: dict[str, Any]) -> None:
        self._where = where
        self._answer: asyncio.Task[Any] | None = None

    @workflow.run
    async def run(self, where: dict[str, Any]) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.update(unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def message(self, message: dict[str, Any]) -> Any:
        self._answer = asyncio.create_task(answered(message, self._where))
        try:
            return await self._answer
        except ActivityError as error:
            if not is_cancelled_exception(error):
                raise
            return "stopped"

    @workflow.signal
    def stop(self) -> None:
        assert self._answer is not None
        self._answer.cancel()


@workflow.defn
class Answer:
    """One workflow for each answer."""

    @workflow.run
    async def run(self, message: dict[str, Any]) -> Any:
        options = message["options"]  # of AG-UI with its `forwardedProps`
        return await answered(message, options.get("forwardedProps", options)["where"])


@workflow.defn
class Listener:
    """One workflow for a whole chat: each message is a signal, answered after those before it."""

    @workflow.init
    def __init__(self, where: dict[str, Any]) -> None:
        self._messages: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, where: dict[str, Any]) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._messages))
            await answered(self._messages.pop(0), where)

    @workflow.signal
    def say(self, message: dict[str, Any]) -> None:
        self._messages.append(message)


async def answered(message: dict[str, Any], where: dict[str, Any]) -> Any:
    """Return what the model's activity returns; it is retried twice at once."""
    return await workflow.execute_activity(
        model,
        args=[message, where],
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=timedelta(seconds=60),
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=3),
    )
