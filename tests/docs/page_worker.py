"""Runs the workflows and activities of a page's program, on the usual addresses: `python page_worker.py MODULE`.

It is given to the Python of the installed wheel, and imports nothing of the tests.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from wakeline import SessionClient

QUEUE = "page"
GIVEN: dict[Any, Any] = {str: "order-1", list[str]: ["one", "two"], int: 1}


@workflow.defn(sandboxed=False)
class Calls:
    """Runs an activity."""

    @workflow.run
    async def run(self, name: str, arguments: list[Any]) -> Any:
        once = RetryPolicy(maximum_attempts=1)
        timeout = timedelta(seconds=30)
        return await workflow.execute_activity(name, args=arguments, start_to_close_timeout=timeout, retry_policy=once)


def arguments(function: Callable[..., Any]) -> list[Any]:
    parameters = inspect.signature(function, eval_str=True).parameters
    return [GIVEN[parameter.annotation] for name, parameter in parameters.items() if name != "self"]


async def watched(session: str) -> list[str]:
    """The topics of a session, to its end."""
    async with SessionClient() as client:
        events = client.session(session).events(until="settled", wait_for_start=True)
        return [event.topic async for event in events]


async def main(found: list[Any]) -> None:
    workflows = [value for value in found if hasattr(value, "__temporal_workflow_definition")]
    activities = [value for value in found if hasattr(value, "__temporal_activity_definition")]
    client = await Client.connect("localhost:7233")
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=QUEUE,
            workflows=[*workflows, Calls],
            activities=activities,
            activity_executor=threads,
        ):
            for one in workflows:
                told = asyncio.create_task(watched("order-1"))
                await client.execute_workflow(one.run, args=arguments(one.run), id="order-1", task_queue=QUEUE)
                published(one, await told)
            for one in activities:
                call = f"calls-{one.__name__}"
                await client.execute_workflow(Calls.run, args=[one.__name__, arguments(one)], id=call, task_queue=QUEUE)
                published(one, await watched(call))


def published(of: Any, topics: list[str]) -> None:
    """Raise where nothing but what the gateway itself reports came."""
    assert [topic for topic in topics if topic[0] != "$"], f"expected {of.__name__} to publish, got {topics}"


if __name__ == "__main__":
    # Outside of any loop: the page's program may run one.
    page = importlib.import_module(sys.argv[1])
    asyncio.run(asyncio.wait_for(main(list(vars(page).values())), 60))
    # Threads of the SDK may still run, and abort a process in which Python finalizes (temporalio/sdk-python, issue 300).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
