"""An activity that no workflow scheduled is followed to its end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.contextual import CONTEXTUAL
from tests.support import Served
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import until
from wakeline.publisher import SessionPublisher

QUEUE = "standalone"


@activity.defn
async def answer(question: str) -> str:
    return f"{question}: 42"


@activity.defn
async def refuse(_: str) -> str:
    raise ApplicationError("no answer", type="Refused", non_retryable=True)


@activity.defn
async def linger(_: str) -> str:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.05)


@activity.defn
async def publish(url: str) -> str:
    async with SessionPublisher.from_within_activity(url, session=activity.info().activity_id) as publisher:
        await publisher.topic("words").publish("hello")
    return "published"


ACTIVITIES = [answer, refuse, linger, publish]


@pytest.fixture
def name() -> str:
    return f"standalone-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, activities=ACTIVITIES):
        yield


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path) as running:
        yield running


async def start(client: Client, name: str, work: Any, *args: str, **options: Any) -> ActivityHandle[Any]:
    options = {"start_to_close_timeout": timedelta(seconds=30), "heartbeat_timeout": timedelta(seconds=5)} | options
    handle: ActivityHandle[Any] = await client.start_activity(
        work, args=args or (name,), id=name, task_queue=QUEUE, **options
    )
    return handle


async def register(served: Served, name: str, **how: Any) -> dict[str, Any]:
    asked = {"workflow_id": name, "kind": "activity", **how}
    status, registered = await served.call("POST", "/v1/runs", json=asked)
    assert status == 200, registered
    return dict(registered)


async def ended(served: Served, name: str) -> list[dict[str, Any]]:
    return await until(await served.stream(name), "$session.settled")


@pytest.mark.usefixtures("worker")
async def test_an_activity_is_followed_from_its_start_to_its_result(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, answer, "the question")
    registered = await register(served, name, result=True)
    assert (registered["workflow_id"], registered["kind"], registered["run"]) == (name, "activity", handle.run_id)
    events = await ended(served, name)
    (started,) = told(events, "$run.started")
    assert started == {
        "kind": "activity",
        "workflow_id": name,
        "workflow_type": "answer",
        "run_id": handle.run_id,
        "started_at": started["started_at"],
    }
    (closed,) = told(events, "$run.closed")
    assert (closed["status"], closed["kind"], closed["drained"]) == ("completed", "activity", True)
    assert closed["result"] == "the question: 42"
    assert [event["topic"] for event in events] == ["$run.started", "$run.closed", "$session.settled"]


async def test_a_result_is_decoded_by_a_codec_that_needs_the_activity(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    config = client.config(active_config=True)
    config["data_converter"] = CONTEXTUAL
    coded = Client(**config)
    async with (
        Worker(coded, task_queue=QUEUE, activities=ACTIVITIES),
        running_gateway(temporal, tmp_path, data_converter="tests.contextual:CONTEXTUAL") as served,
    ):
        await start(coded, name, answer, "the question")
        await register(served, name, result=True)
        (closed,) = told(await ended(served, name), "$run.closed")
    assert closed["result"] == "the question: 42"


@pytest.mark.usefixtures("worker")
async def test_a_failed_activity_ends_with_its_failure(client: Client, served: Served, name: str) -> None:
    await start(client, name, refuse)
    await register(served, name)
    (closed,) = told(await ended(served, name), "$run.closed")
    assert (closed["status"], closed["failure"]) == ("failed", {"message": "no answer", "type": "Refused"})


@pytest.mark.usefixtures("worker")
async def test_a_canceled_activity_ends_as_canceled(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, linger)
    await register(served, name)
    await handle.cancel()
    (closed,) = told(await ended(served, name), "$run.closed")
    assert (closed["status"], "failure" in closed) == ("canceled", False)


async def test_a_terminated_activity_ends_without_a_worker(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, linger)
    await register(served, name)
    await handle.terminate(reason="enough")
    (closed,) = told(await ended(served, name), "$run.closed")
    assert (closed["status"], closed["reason"], closed["drained"]) == ("terminated", "enough", True)


async def test_an_activity_that_no_worker_accepts_in_time_ends_as_timed_out(
    client: Client, served: Served, name: str
) -> None:
    await start(client, name, answer, schedule_to_start_timeout=timedelta(seconds=5))
    await register(served, name)
    (closed,) = told(await ended(served, name), "$run.closed")
    assert (closed["status"], closed["failure"]["message"] != "") == ("timed_out", True)


async def test_an_activity_that_ends_while_no_gateway_runs_is_reported_afterwards(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    handle = await start(client, name, linger, retry_policy=RetryPolicy(maximum_attempts=1))
    async with running_gateway(temporal, tmp_path) as served:
        await register(served, name)
    await handle.terminate(reason="at night")
    async with running_gateway(temporal, tmp_path) as served:
        (closed,) = told(await ended(served, name), "$run.closed")
    assert (closed["status"], closed["reason"]) == ("terminated", "at night")


@pytest.mark.usefixtures("worker")
async def test_events_of_an_activity_have_its_run(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, publish, served.url)
    await register(served, name)
    events = await ended(served, name)
    (word,) = [event for event in events if event["topic"] == "words"]
    assert (word["data"], word["run"], word["activity"]) == ("hello", handle.run_id, name)


async def test_an_input_is_not_sent_to_an_activity(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, linger)
    await register(served, name)
    asked = {"id": "1", "kind": "signal", "name": "go"}
    status, answered = await served.call("POST", f"/v1/sessions/{name}/inputs", json=asked)
    assert (status, answered["error"]["code"]) == (404, "workflow_not_found")
    await handle.terminate()


async def test_an_input_finds_the_workflow_that_began_after_an_activity_of_its_name(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, linger)
    await register(served, name)
    workflow = await client.start_workflow("Missing", id=name, task_queue=f"{name}-nowhere")
    asked = {"id": "1", "kind": "signal", "name": "go"}
    status, answered = await served.call("POST", f"/v1/sessions/{name}/inputs", json=asked)
    assert status < 300, answered
    await handle.terminate()
    await workflow.terminate()


async def test_an_activity_that_does_not_exist_is_not_found(served: Served, name: str) -> None:
    status, answered = await served.call("POST", "/v1/runs", json={"workflow_id": name, "kind": "activity"})
    assert (status, answered["error"]["code"]) == (404, "workflow_not_found")


async def test_a_workflow_and_an_activity_may_have_the_same_id(client: Client, served: Served, name: str) -> None:
    workflow = await client.start_workflow("Missing", id=name, task_queue=f"{name}-nowhere")
    handle = await start(client, name, linger)
    await register(served, name)
    await served.call("POST", "/v1/runs", json={"workflow_id": name})
    await handle.terminate()
    await workflow.terminate()
    closed = told(await ended(served, name), "$run.closed")
    assert sorted(each["run_id"] for each in closed) == sorted(
        [handle.run_id or "", workflow.first_execution_run_id or ""]
    )
