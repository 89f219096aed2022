"""The Python client and `wakeline tail` on a workflow of a real Temporal server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.temporal import follower_workflows as workflows
from tests.temporal.test_follower import running_gateway, running_worker, start
from wakeline import SessionClient
from wakeline.errors import WorkflowNotFoundError


async def test_a_registered_workflow_is_read_to_its_end(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    name, chat = f"order/{uuid.uuid4().hex[:8]}", f"chat-{uuid.uuid4().hex[:8]}"
    async with (
        running_gateway(temporal, tmp_path) as served,
        running_worker(client),
        SessionClient(served.url) as sessions,
    ):
        with pytest.raises(WorkflowNotFoundError):
            await sessions.register("nowhere")
        handle = await start(client, name, workflows.Talks.run, "fails", 20)
        run = await sessions.register(name, session=chat)
        assert (run.workflow_id, run.run, run.session) == (name, handle.first_execution_run_id, chat)
        async with asyncio.timeout(60):
            events = [event async for event in sessions.session(chat).events(until="settled", type=int | str | dict)]
        assert [event.data for event in events if event.topic == "number"] == list(range(20))
        assert [event.topic for event in events[-2:]] == ["$run.closed", "$session.settled"]
        state = await sessions.session(chat).state()
        assert (state.settled, [run.status for run in state.runs]) == (True, ["failed"])
        tail = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wakeline", "tail", chat, "--topics", "$run.*", "--url", served.url),
            stdout=subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(tail.communicate(), 60)
    began, ended = out.decode().splitlines()
    assert tail.returncode == 3
    assert f"run started: Talks {name}" in began
    assert "$run.closed run failed after" in ended
    assert ended.endswith("s: no stock left (OutOfStock)")
