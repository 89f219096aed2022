"""A subscriber that goes away and comes back: it keeps `item.offset + 1` on disk and resumes there."""

from __future__ import annotations

import re
import tempfile
import uuid
from pathlib import Path

from temporalio.client import Client

from examples.reconnect.workflows import STAGES, PipelineWorkflow
from examples.stage import Example, expect
from wakeline.streams import WorkflowStreamClient

EXPECTED = """
[phase 1] connecting and reading first few events
  offset= 0 stage=validating
  offset= 1 stage=loading data
[phase 1] persisted resume offset=2 -> FILE; disconnecting
[phase 2] reconnecting and resuming from persisted offset
  offset= 2 stage=transforming
  offset= 3 stage=writing output
  offset= 4 stage=verifying
  offset= 5 stage=complete
workflow result: pipeline ID done
"""


def load(resume: Path) -> int:
    """The offset to go on from; 0 the first time."""
    return int(resume.read_text()) if resume.exists() else 0


def save(resume: Path, offset: int) -> None:
    """Keep the offset to go on from."""
    resume.write_text(str(offset))


async def read(client: Client, workflow_id: str, resume: Path, at_most: int) -> None:
    """Read on from the offset on disk, and keep there how far it got."""
    stages = WorkflowStreamClient.create(client, workflow_id).topic("stage", type=str)
    read = 0
    async for item in stages.subscribe(from_offset=load(resume)):
        print(f"  offset={item.offset:2} stage={item.data}")
        save(resume, item.offset + 1)
        read += 1
        if read == at_most:
            return


async def play(client: Client, queue: str) -> None:
    """Read two events, go away, come back for the rest."""
    handle = await client.start_workflow(
        PipelineWorkflow.run, id=f"workflow-stream-pipeline-{uuid.uuid4().hex[:8]}", task_queue=queue
    )
    with tempfile.TemporaryDirectory() as folder:
        resume = Path(folder) / "resume-offset"
        print("[phase 1] connecting and reading first few events")
        await read(client, handle.id, resume, at_most=2)
        print(f"[phase 1] persisted resume offset={load(resume)} -> {resume}; disconnecting")
        print("[phase 2] reconnecting and resuming from persisted offset")
        await read(client, handle.id, resume, at_most=len(STAGES))
    print(f"workflow result: {await handle.result()}")


def check(lines: list[str]) -> None:
    """As expected, but for the names of the file and of the workflow."""
    lines = [re.sub(r"-> \S+;", "-> FILE;", line) for line in lines]
    expect([re.sub(r"workflow-stream-pipeline-\w+", "ID", line) for line in lines], EXPECTED)


EXAMPLE = Example("reconnect", play, check, [PipelineWorkflow])
