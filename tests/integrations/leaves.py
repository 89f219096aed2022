"""The usual script: starts a worker, waits for a workflow's result, and leaves."""

from __future__ import annotations

import asyncio
import sys

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from wakeline.integrations.temporal import WakelinePlugin
    from wakeline.streams import WorkflowStream


@workflow.defn
class Speaks:
    """Publishes some events in each of its tasks, its last one too."""

    @workflow.init
    def __init__(self, tasks: int) -> None:
        self.said = WorkflowStream().topic("said", type=int)

    @workflow.run
    async def run(self, tasks: int) -> int:
        count = 0
        for task in range(tasks):
            if task:
                await workflow.sleep(0.02)
            for _ in range(3):
                self.said.publish(count)
                count += 1
        return count


async def main(address: str, url: str, name: str, tasks: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=name, workflows=[Speaks], plugins=[WakelinePlugin(url)]):
        print(await client.execute_workflow(Speaks.run, int(tasks), id=name, task_queue=name))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
