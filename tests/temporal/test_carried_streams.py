"""A stream that was carried over by continue-as-new: each attempt at the next run has it, and it is read once."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.faults.soak_workflows import WORKFLOWS, Plan, Soaks
from tests.temporal.follower_workflows import GoesNowhere
from tests.temporal.test_follower import running_gateway
from tests.temporal.test_run_endings import data, has, until


async def test_a_run_that_never_begins_has_nothing_to_add_to_the_stream_it_was_given(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name = f"nowhere/{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=name, workflows=[GoesNowhere]), running_gateway(temporal, tmp_path) as served:
        handle = await client.start_workflow(GoesNowhere.run, args=[None, None], id=name, task_queue=name)
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        # The follower must know the first run: no worker can be asked for the stream of the second.
        await until(served, name, has("$run.started"))
        await handle.signal(GoesNowhere.go)
        await until(served, name, has("$run.continued"))
        await client.get_workflow_handle(name).terminate()
        log = await until(served, name, has("$session.settled"))
    assert data(log, "n") == [1]
    (continued,), (closed,) = data(log, "$run.continued"), data(log, "$run.closed")
    assert continued["drained"]
    assert (closed["status"], closed["run_id"], closed["drained"]) == ("terminated", continued["run_id"], True)


async def test_attempts_at_a_run_that_was_given_a_stream_repeat_nothing_of_it(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name = f"carried/{uuid.uuid4().hex[:8]}"
    plan = Plan("completed", hosts=True, carries=True, rounds=3, failures=2, events=4, burst=3)
    async with Worker(client, task_queue=name, workflows=WORKFLOWS), running_gateway(temporal, tmp_path) as served:
        policy = RetryPolicy(initial_interval=timedelta(milliseconds=300), maximum_attempts=5)
        await client.start_workflow(Soaks.run, plan, id=name, task_queue=name, retry_policy=policy)
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        log = await until(served, name, has("$run.closed"))
    continued = data(log, "$run.continued")
    assert [each["reason"] for each in continued] == ["continue_as_new", "continue_as_new", "retry", "retry"]
    run_ids = [continued[0]["previous_run_id"], *(each["run_id"] for each in continued)]
    assert data(log, "n") == [{"run_id": run_id, "n": n} for run_id in run_ids for n in range(4)]
    assert data(log, "$gap") == []
