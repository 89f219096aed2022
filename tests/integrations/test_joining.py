"""With `join_children` a workflow's children speak in its session, and theirs too; replay does not notice."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from tests.integrations.joining_workflows import Joins, Parent
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.integrations.temporal import WakelinePlugin


async def said(served: Served, session: str, count: int) -> list[Any]:
    """What was said in a session, when so many runs have ended there."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while sum(event["topic"] == "$run.closed" for event in events) < count:
            await asyncio.sleep(0.1)
            status, body = await served.call("GET", f"/v1/sessions/{session}/events")
            events = body["events"] if status == 200 else []
    return sorted(event["data"] for event in events if event["topic"] == "said")


async def test_children_join_unless_they_say_otherwise(client: Client, tmp_path: Path) -> None:
    name = f"parent-{uuid.uuid4().hex[:8]}"
    address = client.service_client.config.target_host
    settings = Settings(data=str(tmp_path), port=0, temporal=address, durability="process", no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        plugin = WakelinePlugin(url, report=None, join_children=True)
        async with Worker(client, task_queue=name, workflows=[Parent, Joins], plugins=[plugin]):
            handle = await client.start_workflow(Parent.run, id=name, task_queue=name)
            await served.call("POST", "/v1/runs", json={"workflow_id": name})
            await handle.result()
            assert await said(served, name, 3) == [f"{name}-joins", f"{name}-joins-too"]
            assert await said(served, f"{name}-own", 1) == [f"{name}-stays"]
    history = await handle.fetch_history()
    # With the plugin, and without: a memo is nothing that replay compares.
    for plugins in ([plugin], []):
        await Replayer(workflows=[Parent, Joins], plugins=plugins).replay_workflow(history)
