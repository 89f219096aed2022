"""The ends of real runs notify the users whose devices are away, and nobody whose device has seen them."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.receivers import receiver
from tests.support import Served
from tests.temporal.ending_workflows import Ends
from tests.temporal.test_follower import running_gateway
from wakeline.gateway.rules import Notify

STATUSES = ["completed", "failed", "canceled", "terminated", "timed_out"]


async def follow(served: Served, workflow_id: str) -> str:
    """Follow a workflow, and have a device in its session that has seen nothing; returns the session's epoch."""
    status, answer = await served.call("POST", "/v1/runs", json={"workflow_id": workflow_id})
    assert status == 200, answer
    _, state = await served.call("GET", f"/v1/sessions/{workflow_id}")
    epoch: str = state["epoch"]
    status, answer = await served.call("PUT", f"/v1/sessions/{workflow_id}/devices/phone", json={"seen": f"{epoch}-0"})
    assert status == 200, answer
    return epoch


async def ended(served: Served, workflow_id: str) -> int:
    """Return the offset of the run's end, once it is in the session."""
    async with asyncio.timeout(60):
        while True:
            _, page = await served.call("GET", f"/v1/sessions/{workflow_id}/events?topics=$run.closed")
            if page["events"]:
                offset: int = page["events"][0]["offset"]
                return offset
            await asyncio.sleep(0.05)


async def test_the_ends_that_a_rule_names_are_notified_once(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path
) -> None:
    queue = f"notify-{uuid.uuid4().hex[:8]}"
    rule = Notify(topics=("$run.closed",), statuses=("failed", "terminated", "timed_out"), grace=5)
    async with (
        receiver() as hook,
        running_gateway(
            temporal,
            tmp_path,
            notify={"ends": rule},
            channels={"ops": hook.channel()},
            outgoing_networks=("127.0.0.1",),
        ) as served,
        Worker(client, task_queue=queue, workflows=[Ends]),
    ):
        names = {status: f"{queue}-{status}" for status in [*STATUSES, "seen"]}
        handles = {
            status: await client.start_workflow(
                Ends.run,
                args=["failed" if status == "seen" else status, False],
                id=name,
                task_queue=queue,
                run_timeout=timedelta(seconds=15 if status == "timed_out" else 600),
            )
            for status, name in names.items()
        }
        epochs = {status: await follow(served, name) for status, name in names.items()}
        for status in ("completed", "failed", "timed_out"):
            await handles[status].signal(Ends.end)
        await handles["canceled"].cancel()
        await handles["terminated"].terminate("enough")
        await handles["seen"].signal(Ends.end)
        seen = {"seen": f"{epochs['seen']}-{await ended(served, names['seen']) + 1}"}
        await served.call("PUT", f"/v1/sessions/{names['seen']}/devices/phone", json=seen)
        requests = await hook.until(3)
        for status in STATUSES:
            await ended(served, names[status])
        found = {request.data["session"]: request for request in requests}
        assert set(found) == {names[status] for status in ("failed", "terminated", "timed_out")}
        assert len(requests) == 3
        for status in ("failed", "terminated", "timed_out"):
            request = found[names[status]]
            request.verify()
            assert request.data["events"][0]["data"]["status"] == status
