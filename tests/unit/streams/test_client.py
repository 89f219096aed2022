"""What a client refuses before it calls anyone."""

from __future__ import annotations

import dataclasses

import pytest
from temporalio.testing import ActivityEnvironment

from wakeline.streams import StreamMisplacedError, WorkflowStream, WorkflowStreamClient


async def test_a_standalone_activity_has_no_workflow_to_publish_to() -> None:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, workflow_id=None)

    async def publish() -> None:
        WorkflowStreamClient.from_within_activity()

    with pytest.raises(StreamMisplacedError, match="standalone and has no parent workflow"):
        await environment.run(publish)


def test_outside_an_activity() -> None:
    with pytest.raises(RuntimeError, match="Not in activity"):
        WorkflowStreamClient.from_within_activity()


def test_a_stream_outside_a_workflow() -> None:
    class Host:
        def __init__(self) -> None:
            self.stream = WorkflowStream()

    with pytest.raises(StreamMisplacedError, match=r"must be constructed directly from the workflow's @workflow\.init"):
        Host()
