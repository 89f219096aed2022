"""From a workflow to a device, on a real Temporal server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.pairs import Pair
from tests.sharing import Faults, SharedStore
from tests.soak import times
from tests.support import Served
from tests.temporal import follower_workflows as workflows
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Engine
from wakeline.gateway.settings import Settings
from wakeline.streams import WorkflowStreamClient

QUEUE = "follower"


@pytest.fixture
def name() -> str:
    return f"order/{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def worker(client: Client) -> AsyncIterator[None]:
    async with running_worker(client):
        yield


@asynccontextmanager
async def running_worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=[workflows.stream_numbers]):
        yield


@asynccontextmanager
async def running_gateway(
    temporal: WorkflowEnvironment, data: Path, engine: Engine | None = None, /, **changed: Any
) -> AsyncIterator[Served]:
    settings = Settings(
        **{
            "data": str(data),
            "port": 0,
            "temporal": temporal.client.service_client.config.target_host,
            "durability": "process",
            "no_auth": True,
            # However slow the machine is, a worker that is there is waited for.
            "drain_grace": 40.0,
            "sweep_interval": 0.5,
            **changed,
        }
    )
    async with gateway(settings, engine=engine) as url, Served(url) as served:
        yield served


either = pytest.mark.parametrize("served", ["one", "two"], indirect=True)


@pytest.fixture
async def served(
    request: pytest.FixtureRequest, temporal: WorkflowEnvironment, tmp_path: Path
) -> AsyncIterator[Served]:
    """A gateway; or two on one store, in a test with `either`."""
    if getattr(request, "param", "one") == "one":
        async with running_gateway(temporal, tmp_path) as running:
            yield running
        return
    store, faults = SharedStore(), Faults(latency=0.002, lost_wakeups=0.2, repeated_wakeups=0.2)
    async with (
        running_gateway(temporal, tmp_path, store.engine(faults, 1), lease=1.0) as first,
        running_gateway(temporal, tmp_path, store.engine(faults, 2), lease=1.0) as second,
        Pair(first, second) as pair,
    ):
        yield pair


async def start(client: Client, name: str, workflow: Any, *args: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    handle: WorkflowHandle[Any, Any] = await client.start_workflow(
        workflow, args=args, id=name, task_queue=QUEUE, **options
    )
    return handle


def told(events: list[dict[str, Any]], *topics: str) -> list[Any]:
    return [e["data"] for e in events if e["topic"] in topics]


async def to_the_end(served: Served, name: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(90):
        return await (await served.stream(name, "until=settled")).rest()


@either
@pytest.mark.usefixtures("worker")
async def test_a_device_sees_a_workflow_from_its_first_event_to_its_end(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Talks.run, "completes", 200)
    events = await to_the_end(served, name)
    assert [e["offset"] for e in events] == list(range(len(events)))
    assert [e["topic"] for e in events[:2]] == ["$run.started", "status"]
    assert [e["topic"] for e in events[-3:]] == ["status", "$run.closed", "$session.settled"]
    assert told(events, "status") == ["begun", "last words"]
    assert told(events, "number") == list(range(200))
    assert {e["run"] for e in events[:-1]} == {handle.first_execution_run_id}
    closed = told(events, "$run.closed")[0]
    assert (closed["status"], closed["drained"]) == ("completed", True)


@either
@pytest.mark.usefixtures("worker")
async def test_one_reader_whatever_the_number_of_devices(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Talks.run, "waits", 20)
    streams = await asyncio.gather(*(served.stream(name, "until=settled") for _ in range(50)))
    async with asyncio.timeout(60):
        while await served.metric("wakeline_runs_followed") != 1:
            await asyncio.sleep(0.05)
    await client.get_workflow_handle(name).signal(workflows.Talks.go)
    async with asyncio.timeout(60):
        seen = [await stream.rest() for stream in streams]
    assert all(events == seen[0] for events in seen)
    assert told(seen[0], "number") == list(range(20))


@pytest.mark.usefixtures("worker")
async def test_reading_leaves_no_trace_in_the_history(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Talks.run, "hangs", 0)
    stream = await served.stream(name)
    await stream.take(3)
    before = (await handle.describe()).history_length
    read = await served.metric("wakeline_temporal_calls_total", call="QueryWorkflow")
    async with asyncio.timeout(60):
        while await served.metric("wakeline_temporal_calls_total", call="QueryWorkflow") < read + 3:
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            await asyncio.sleep(0.05)
    assert (await handle.describe()).history_length == before
    stream.close()
    await handle.terminate()


@pytest.mark.usefixtures("worker")
async def test_the_official_module_is_followed_unchanged(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Official.run, 5)
    events = await to_the_end(served, name)
    assert told(events, "number") == [0, 1, 2, 3, 4]
    payload = next(e for e in events if e["topic"] == "bytes")["payload"]
    assert payload == {"metadata": {"encoding": "YmluYXJ5L3BsYWlu"}, "data": "AP8="}


@pytest.mark.parametrize("converter", [DataConverter.default, pydantic_data_converter], ids=["default", "pydantic"])
async def test_half_an_emoji_fails_no_workflow_and_no_client(
    client: Client, served: Served, name: str, converter: DataConverter
) -> None:
    speaking = Client(client.service_client, namespace=client.namespace, data_converter=converter)
    async with running_worker(speaking):
        handle = await start(speaking, name, workflows.Halves.run)
        async with WorkflowStreamClient.create(speaking, name) as stream:
            stream.topic("word").publish({"text": "a\ude00"})
            stream.topic("half\ud83d").publish("whole")
        await handle.signal(workflows.Halves.go)
        events = await to_the_end(served, name)
    assert sorted(data["text"] for data in told(events, "word")) == ["a\ufffd", "\ufffd"]
    assert told(events, "half\ufffd") == ["whole", "whole"]
    assert told(events, "$run.closed")[0]["status"] == "completed"


@pytest.mark.usefixtures("worker")
async def test_continue_as_new_is_one_run_with_one_stream(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Rounds.run, workflows.Round(0, 3))
    events = await to_the_end(served, name)
    assert told(events, "number") == list(range(12))
    assert [c["reason"] for c in told(events, "$run.continued")] == ["continue_as_new"] * 3
    assert len({e["run"] for e in events[:-1]}) == 1
    assert len(told(events, "$run.closed")) == 1


@pytest.mark.usefixtures("worker")
async def test_a_retried_workflow_is_one_run_with_every_attempt_s_events(
    client: Client, served: Served, name: str
) -> None:
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=500), backoff_coefficient=1, maximum_attempts=3)
    await start(client, name, workflows.Retried.run, retry_policy=policy)
    events = await to_the_end(served, name)
    assert told(events, "attempt") == [1, 2, 3]
    assert [c["reason"] for c in told(events, "$run.continued")] == ["retry", "retry"]
    assert told(events, "$run.closed")[0]["status"] == "completed"


@pytest.mark.usefixtures("worker")
async def test_what_the_workflow_truncated_is_told_as_a_gap(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Truncates.run)
    stream = await served.stream(name)
    events = await stream.take(5)
    assert told(events, "$gap") == [{"missed": 7, "first_available": 7, "source": "workflow"}]
    assert told(events, "number") == [7, 8, 9]
    stream.close()
    await client.get_workflow_handle(name).terminate()


@pytest.mark.usefixtures("worker")
async def test_an_end_while_the_gateway_was_down_is_told_when_it_is_back(
    client: Client, temporal: WorkflowEnvironment, name: str, tmp_path: Path
) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 50)
    async with running_gateway(temporal, tmp_path) as served:
        stream = await served.stream(name)
        seen = await stream.take(20)
        cursor = stream.last_id
    await handle.signal(workflows.Talks.go)
    await handle.result()
    async with running_gateway(temporal, tmp_path) as served:
        # No device asks: the run is open in the record, so it is followed.
        async with asyncio.timeout(60):
            while not (await served.call("GET", f"/v1/sessions/{name.replace('/', '%2F')}"))[1]["settled"]:
                await asyncio.sleep(0.05)
        stream = await served.stream(name, "until=settled", **{"Last-Event-ID": cursor})
        seen += await stream.rest()
    assert [e["offset"] for e in seen] == list(range(len(seen)))
    assert told(seen, "number") == list(range(50))
    assert told(seen, "status") == ["begun", "last words"]
    assert [c["status"] for c in told(seen, "$run.closed")] == ["completed"]


@pytest.mark.usefixtures("worker")
async def test_a_gateway_that_restarts_all_the_time_loses_and_repeats_nothing(
    client: Client, temporal: WorkflowEnvironment, name: str, tmp_path: Path
) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 1000)
    for _ in range(times(5, 12)):
        async with running_gateway(temporal, tmp_path, poll_fastest=0.005) as served:
            stream = await served.stream(name)
            await stream.next()
            await asyncio.sleep(0.1)
            stream.close()
    await handle.signal(workflows.Talks.go)
    async with running_gateway(temporal, tmp_path) as served:
        events = await to_the_end(served, name)
    assert [e["offset"] for e in events] == list(range(len(events)))
    assert told(events, "number") == list(range(1000))
    assert len(told(events, "$run.started")) == len(told(events, "$run.closed")) == 1


@either
@pytest.mark.usefixtures("worker")
async def test_a_workflow_can_be_registered_into_a_session_of_another_name(
    client: Client, served: Served, name: str
) -> None:
    await start(client, name, workflows.Talks.run, "completes", 5)
    status, run = await served.call("POST", "/v1/runs", json={"workflow_id": name, "session": f"{name}-chat"})
    assert (status, run["status"]) == (200, "running")
    async with asyncio.timeout(60):
        while run["status"] == "running" and not run["followed"]:
            assert isinstance(served, Pair), "one gateway follows it at once; of two, the one that owns the workflow"
            (run,) = (await served.call("GET", f"/v1/sessions/{quote(name, safe='')}-chat"))[1]["runs"]
            await asyncio.sleep(0.02)
    assert told(await to_the_end(served, f"{name}-chat"), "number") == [0, 1, 2, 3, 4]


async def test_what_is_neither_a_session_nor_a_workflow_is_told(served: Served) -> None:
    status, body = await served.call("GET", "/v1/sessions/nobody/events")
    assert (status, body["error"]["code"]) == (404, "session_not_found")
    assert "Temporal has no workflow of this id either" in body["error"]["hint"]
    assert "token" not in body["error"]["hint"]
    status, body = await served.call("POST", "/v1/runs", json={"workflow_id": "nobody"})
    assert (status, body["error"]["code"]) == (404, "workflow_not_found")


@pytest.mark.usefixtures("worker")
async def test_an_ended_session_tells_a_browser_to_stop_for_good(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Talks.run, "completes", 0)
    stream = await served.stream(name, "until=settled&topics=status")
    assert told(await stream.rest(), "status") == ["begun", "last words"]
    again = await served.stream(name, "until=settled&topics=status", **{"Last-Event-ID": stream.last_id})
    assert again.answer.status == 204
