"""A publisher takes to its workflow's own stream while the gateway is killed: each event is in the session once, in order."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.faults.test_publisher_killed import EVENTS, KILLS, PATIENCE, alive, killed, log, publish
from tests.temporal.streams_workflows import Hub
from wakeline.client import SessionClient
from wakeline.publisher import SessionPublisher

pytestmark = pytest.mark.timeout(480 + 2 * PATIENCE)


async def test_each_event_is_there_once_and_in_order(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    queue = f"fall-back-{uuid.uuid4().hex[:8]}"
    target = client.service_client.config.target_host
    async with Worker(client, task_queue=queue, workflows=[Hub]):
        handle = await client.start_workflow(Hub.run, id=f"hub-{uuid.uuid4().hex[:8]}", task_queue=queue)
        async with killed(tmp_path / "data", "--temporal", target) as (gateway, kills):
            async with SessionClient(gateway.url) as watching:
                await watching.register(handle.id)
            publishing = SessionPublisher(
                gateway.url, session=handle.id, on_unavailable="workflow", temporal_client=client
            )
            number = await publish(publishing, EVENTS, kills, KILLS)
        async with alive(gateway) as reading, asyncio.timeout(PATIENCE):
            while len(data := await log(reading, handle.id, "t")) < number:
                await asyncio.sleep(0.1)
            assert data == list(range(number))
        await handle.terminate()
