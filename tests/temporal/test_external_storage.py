"""Payloads that workers keep in external storage: a gateway that has the storage reads them, another passes them on."""

from __future__ import annotations

import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.storage import STORING
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import until

with workflow.unsafe.imports_passed_through():
    from wakeline.streams import WorkflowStream

LONG = "long " * 400


@workflow.defn(sandboxed=False)
class Report:
    @workflow.init
    def __init__(self) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self) -> str:
        self.stream.topic("words", type=str).publish("hello")
        return LONG


@pytest.fixture
async def session(client: Client) -> AsyncIterator[str]:
    """The id of a workflow whose result is in the storage; its worker is there."""
    config = client.config(active_config=True)
    config["data_converter"] = STORING
    storing, name = Client(**config), f"stored-{uuid.uuid4().hex[:8]}"
    async with Worker(storing, task_queue=name, workflows=[Report]):
        await storing.start_workflow(Report.run, id=name, task_queue=name)
        yield name


async def test_a_gateway_with_the_storage_resolves_a_result(
    temporal: WorkflowEnvironment, tmp_path: Path, session: str
) -> None:
    async with running_gateway(temporal, tmp_path, data_converter="tests.storage:STORING") as served:
        answered = await served.call("POST", "/v1/runs", json={"workflow_id": session, "result": True})
        assert answered[0] == 200, answered
        events = await until(await served.stream(session), "$session.settled")
    assert told(events, "words") == ["hello"]
    closed = told(events, "$run.closed")[0]
    assert closed["result"] == LONG


async def test_a_gateway_without_the_storage_passes_the_reference_on(
    temporal: WorkflowEnvironment, tmp_path: Path, session: str
) -> None:
    async with running_gateway(temporal, tmp_path) as served:
        answered = await served.call("POST", "/v1/runs", json={"workflow_id": session, "result": True})
        assert answered[0] == 200, answered
        events = await until(await served.stream(session), "$session.settled")
    assert told(events, "words") == ["hello"]
    (closed,) = told(events, "$run.closed")
    assert ("result" in closed, closed["drained"]) == (False, True)
    reference = closed["result_payload"]
    assert b64decode(reference["metadata"]["messageType"]) == b"temporal.api.sdk.v1.ExternalStorageReference"
