"""A worker that stops when it has its result, with `WakelinePlugin`: devices have the last events all the same."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from tests.support import Served
from tests.temporal.test_follower import running_gateway, told
from wakeline.gateway.rules import Follow

PATIENCE = 60


async def script(temporal: WorkflowEnvironment, url: str, name: str, tasks: int) -> str:
    """What the script prints."""
    arguments = [temporal.client.service_client.config.target_host, url, name, str(tasks)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integrations.leaves", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return printed.decode().strip()


async def complete(temporal: WorkflowEnvironment, served: Served, tasks: int, *, watched: bool = True) -> None:
    """Run the script: its session has everything, in order, and nothing late.

    A device waits for the workflow, or none is there and a rule finds it.
    """
    name = f"{'leaves' if watched else 'by-rule'}-{uuid.uuid4().hex[:8]}"
    stream = await served.stream(name, "wait_for_start=true&until=settled") if watched else None
    assert await script(temporal, served.url, name, tasks) == str(3 * tasks)
    stream = stream or await served.stream(name, "until=settled")
    async with asyncio.timeout(PATIENCE):
        events = await stream.rest()
    assert [event["data"] for event in events if event["topic"] == "said"] == list(range(3 * tasks))
    assert [(end["status"], end["drained"]) for end in told(events, "$run.closed")] == [("completed", True)]
    assert [event["topic"] for event in events[-2:]] == ["$run.closed", "$session.settled"]


async def test_a_script_that_leaves_with_its_result_leaves_no_event_behind(
    temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    rule = Follow(workflow_id="by-rule-*")
    async with (
        running_gateway(temporal, tmp_path, drain_grace=3.0, follow=(rule,)) as served,
        asyncio.TaskGroup() as scripts,
    ):
        for tasks in (1, 1, 3):
            scripts.create_task(complete(temporal, served, tasks))
        scripts.create_task(complete(temporal, served, 1, watched=False))


async def test_a_program_that_connects_and_does_no_more_ends(temporal: WorkflowEnvironment) -> None:
    address = temporal.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integrations.connects", address, "20"), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert printed.split() == [b"0"] * 20
