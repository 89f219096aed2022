"""The query that is under way when a run ends: its answer counts, and its worker is not left with nobody to answer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import until


class SlowCodec(PayloadCodec):
    """Changes nothing, and takes its time where it is told to."""

    def __init__(self) -> None:
        self.slow = False
        self.entered = asyncio.Event()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if self.slow:
            self.entered.set()
            await asyncio.sleep(0.5)
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


async def test_a_query_under_way_when_a_run_ends_is_let_finish_and_its_answer_counts(
    temporal: WorkflowEnvironment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, codec, core = f"last-{uuid.uuid4().hex[:8]}", SlowCodec(), logging.getLogger("tests.last_answer.core")
    forwarding = LogForwardingConfig(logger=core, append_target_to_name=False)
    shown = LoggingConfig(filter=TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)
    of_worker = await Client.connect(
        temporal.client.service_client.config.target_host,
        runtime=Runtime(telemetry=TelemetryConfig(logging=shown)),
        data_converter=dataclasses.replace(DataConverter.default, payload_codec=codec),
    )
    worker = Worker(of_worker, task_queue=name, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES)
    with caplog.at_level(logging.WARNING, core.name):
        async with running_gateway(temporal, tmp_path, sweep_interval=1000.0) as served, worker:
            handle = await temporal.client.start_workflow(workflows.Steps.run, id=name, task_queue=name)
            stream = await served.stream(name)
            await handle.signal("step", "a")
            await until(stream, "step")
            codec.slow = True
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            await asyncio.wait_for(codec.entered.wait(), 60)
            await handle.terminate()
            assert told(await until(stream, "$run.closed"), "$run.closed")[0]["drained"] is True
    assert [record.message for record in caplog.records if record.name == core.name] == []
