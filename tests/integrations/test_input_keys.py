"""A handler that asks `once` is exact, whoever sends an input again."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Replayer, Worker

from tests.integrations.paying_workflows import Pays
from tests.support import Served
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.integrations.temporal import WakelinePlugin


async def pay(client: Client, name: str, amount: int, header: bytes | None, life: bytes | None = None) -> None:
    """Signal the workflow's latest run, as a program that knows nothing of runs does."""
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=name),
        signal_name="pay",
        request_id=str(uuid.uuid4()),
    )
    request.input.payloads.extend(await client.data_converter.encode([amount]))
    if header is not None:
        request.header.fields["wakeline-input"].CopyFrom(Payload(metadata={"encoding": b"json/plain"}, data=header))
    if life is not None:
        request.header.fields["wakeline-input-life"].CopyFrom(Payload(metadata={"encoding": b"json/plain"}, data=life))
    await client.workflow_service.signal_workflow_execution(request)


async def continued(handle: WorkflowHandle[Any, Any]) -> None:
    before = (await handle.describe()).run_id
    await handle.signal("go_on")
    async with asyncio.timeout(60):
        while (await handle.describe()).run_id == before:
            await asyncio.sleep(0.02)


async def test_an_input_that_is_sent_again_after_continue_as_new_is_handled_once(client: Client) -> None:
    name = f"pays-{uuid.uuid4().hex[:8]}"
    plugin = WakelinePlugin("http://127.0.0.1:9", report=None, nudge=False)
    async with Worker(client, task_queue=name, workflows=[Pays], plugins=[plugin]):
        await client.start_workflow(Pays.run, id=name, task_queue=name)
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(name)
        await pay(client, name, 5, b'"k1"')
        await pay(client, name, 5, b'"k1"')
        assert await handle.execute_update("pay_now", 7, id="u1") == 12
        assert await handle.query("all_keys") == ["k1", "k1"]
        await continued(handle)
        await pay(client, name, 5, b'"k1"')
        assert await handle.execute_update("pay_now", 7, id="u1") == 12
        await pay(client, name, 1, None)  # without a key each counts
        await pay(client, name, 1, None)
        await pay(client, name, 1, b"{")  # not a header of ours
        assert await handle.query("all_paid") == 15
        assert await handle.query("all_keys") == ["k1", None, None, None]
        history = await handle.fetch_history()
        await handle.terminate()
    await Replayer(workflows=[Pays], plugins=[plugin]).replay_workflow(history)


async def test_a_key_that_is_used_again_after_it_was_forgotten_is_handled(client: Client) -> None:
    name = f"pays-{uuid.uuid4().hex[:8]}"
    plugin = WakelinePlugin("http://127.0.0.1:9", report=None, nudge=False)
    async with Worker(client, task_queue=name, workflows=[Pays], plugins=[plugin]):
        await client.start_workflow(Pays.run, id=name, task_queue=name)
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(name)
        for life in (b'"a1"', b'"a1"', b'"a2"', None):  # a key without a life is that of each
            await pay(client, name, 5, b'"k1"', life)
        assert await handle.query("all_paid") == 10
        assert await handle.query("all_keys") == ["k1"] * 4
        await continued(handle)
        await pay(client, name, 5, b'"k1"', b'"a2"')
        assert await handle.query("all_paid") == 10
        await handle.terminate()


@pytest.mark.parametrize("kind", ["signal", "update"])
async def test_the_key_is_that_of_the_input(client: Client, tmp_path: Path, kind: str) -> None:
    name = f"pays-{uuid.uuid4().hex[:8]}"
    address = client.service_client.config.target_host
    settings = Settings(data=str(tmp_path), port=0, temporal=address, durability="process", no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        plugin = WakelinePlugin(url, report=None)
        async with Worker(client, task_queue=name, workflows=[Pays], plugins=[plugin]):
            await client.start_workflow(Pays.run, id=name, task_queue=name)
            body = {"id": "k1", "kind": kind, "name": "pay" if kind == "signal" else "pay_now", "args": [5]}
            assert (await served.call("POST", f"/v1/sessions/{name}/inputs", json=body))[0] == 200
            await pay(client, name, 5, b'"k1"')
            handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(name)
            assert await handle.query("all_paid") == 5
            await handle.terminate()
