"""One reader a run, whatever the devices and gateways; and one that cannot use a run up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType, UpdateWorkflowExecutionLifecycleStage
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.update.v1 import Outcome
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionResponse
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateStage
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served, everything
from tests.temporal import run_workflows as workflows
from tests.temporal import streams_workflows as hosts
from tests.temporal.fronts import front
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_following_faults import gateway_at
from tests.temporal.test_runs import QUEUE, start, steps, until
from wakeline.errors import UnavailableError
from wakeline.events import Event
from wakeline.gateway.delivery import Accept, Hub
from wakeline.gateway.following import Followers, observing
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.life.pace import Pace
from wakeline.gateway.log import Record
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Namespaces
from wakeline.gateway.reaching.connection import Options
from wakeline.gateway.sessions import Runs
from wakeline.gateway.settings import Settings
from wakeline.streams import WorkflowStreamClient, budget, places
from wakeline.streams.wire import POLL, PollInput

pytestmark = pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")

# The server's answer to an update whose worker has ended the workflow task and left the update undone.
UNDONE = UpdateWorkflowExecutionResponse(
    stage=UpdateWorkflowExecutionLifecycleStage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED,
    outcome=Outcome(
        failure=Failure(
            message="Workflow Update is rejected because it wasn't processed by worker.",
            source="Server",
            application_failure_info=ApplicationFailureInfo(type="UnprocessedUpdate", non_retryable=True),
        )
    ),
)


@pytest.fixture
def name() -> str:
    return f"reader-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    served = [*workflows.WORKFLOWS, hosts.HubWithoutQuery, hosts.CarrierWithoutQuery, hosts.CleansUp]
    async with Worker(client, task_queue=QUEUE, workflows=served, activities=workflows.ACTIVITIES):
        yield


async def test_a_host_that_answers_canceled_while_it_cleans_up_is_read_on(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path) as served:
        handle = await start(client, name, hosts.CleansUp.run)
        stream = await served.stream(name)
        own = asyncio.create_task(everything_of(client, name))
        events = await until(stream, "n", 2)
        await handle.cancel()
        events += await until(stream, "$run.closed")
        assert told(events, "n") == [0, 1, 2, 3, 4]
        assert told(events, "$run.closed")[0]["status"] == "canceled"
        assert await own == [0, 1, 2, 3, 4]


async def everything_of(client: Client, name: str) -> list[int]:
    subscription = WorkflowStreamClient.create(client, name).subscribe(result_type=int)
    return [item.data async for item in subscription]


async def test_a_host_that_hands_its_stream_on_misses_nothing_at_a_roll_over(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path) as served:
        handle = await start(client, name, hosts.CarrierWithoutQuery.run, hosts.CarrierInput())
        stream = await served.stream(name)
        await handle.signal("say", [1, 2])
        events = await until(stream, "n", 2)
        await handle.signal("roll")
        events += await until(stream, "$run.continued")
        assert told(events, "$run.continued")[0]["drained"] is True
        await client.get_workflow_handle(name).signal("say", [3])
        events += await until(stream, "n")
        assert told(events, "n") == [1, 2, 3]
        await client.get_workflow_handle(name).terminate()


async def in_history(handle: WorkflowHandle[Any, Any]) -> tuple[int, int]:
    """How many updates a run has taken, and how long its history is."""
    history = await handle.fetch_history()
    accepted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    return sum(event.event_type == accepted for event in history.events), len(history.events)


async def watched(client: Client, served: Served, name: str, host: Any, say: Any, devices: int) -> tuple[int, int]:
    """What a run's history has when so many devices have watched it say ten things."""
    handle = await start(client, name, host)
    streams = await asyncio.gather(*(served.stream(name) for _ in range(devices)))
    seen: list[list[dict[str, Any]]] = [[] for _ in streams]

    async def read(number: int, count: int) -> None:
        while len([e for e in seen[number] if e["topic"][0] != "$"]) < count:
            seen[number].append(await streams[number].next())

    for number in range(10):
        await say(handle, str(number))
        async with asyncio.timeout(60):
            await asyncio.gather(*(read(device, number + 1) for device in range(devices)))
    found = await in_history(handle)
    assert all(events == seen[0] for events in seen)
    for stream in streams:
        stream.close()
    await handle.terminate()
    return found


@pytest.mark.parametrize("by_update", [True, False], ids=["read by update", "read by query"])
async def test_five_hundred_devices_cost_a_history_no_more_than_one(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, by_update: bool
) -> None:
    async def say(handle: WorkflowHandle[Any, Any], text: str) -> None:
        await (handle.signal("say", args=["n", [text]]) if by_update else steps(handle, text))

    host = hosts.HubWithoutQuery if by_update else workflows.Steps.run
    async with running_gateway(temporal, tmp_path) as served:
        one = await watched(client, served, f"{name}-1", host, say, 1)
        many = await watched(client, served, f"{name}-500", host, say, 500)
    # One update answers each thing that is said; the last one waits, and is in no history before it is answered.
    assert one[0] == many[0] == (10 if by_update else 0)
    if not by_update:
        # Ten signals, each with a task of its own: what the publisher itself costs.
        assert one[1] <= 4 + 4 * 10
        assert many[1] <= 4 + 4 * 10


async def test_a_host_that_is_read_by_update_is_not_used_up(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UPDATES_PER_RUN", 30)
    monkeypatch.setattr(budget, "_UPDATE_SECONDS", 20.0)
    async with running_gateway(temporal, tmp_path) as served:
        handle = await start(client, name, hosts.HubWithoutQuery)
        stream = await served.stream(name, "topics=n")
        numbers: list[int] = []
        for number in range(120):
            await handle.signal("say", args=["n", [number]])
            await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            while len(numbers) < 120:
                numbers.append((await stream.next())["data"])
        assert numbers == list(range(120))
        assert (await in_history(handle))[0] < 30
        stream.close()
    await handle.terminate()


async def test_a_poll_that_a_worker_has_left_undone_is_sent_again(
    client: Client, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A workflow without a stream would be asked again in ten minutes.
    monkeypatch.setattr(observing, "Pace", partial(Pace, no_stream=600.0))
    async with front(client) as before, gateway_at(before.address, tmp_path) as served:
        await before.answer("UpdateWorkflowExecution", UNDONE, times=2)
        handle = await start(client, name, hosts.HubWithoutQuery)
        stream = await served.stream(name, "topics=n")
        async with asyncio.timeout(60):
            while await updates(served, "OK") < 2:
                await asyncio.sleep(0.05)
        await handle.signal("say", args=["n", [1]])
        assert told(await until(stream, "n"), "n") == [1]
        await handle.terminate()


async def test_a_poll_that_finds_no_place_is_sent_again_at_the_gateway_s_own_pace(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    handle = await start(client, name, hosts.HubWithoutQuery)
    for _ in range(places.ALLOWED):
        await handle.start_update(POLL, PollInput([], 0), wait_for_stage=WorkflowUpdateStage.ACCEPTED)
    async with running_gateway(temporal, tmp_path) as served:
        stream = await served.stream(name, "topics=n")
        async with asyncio.timeout(60):
            while await updates(served, "RESOURCE_EXHAUSTED") < 4:
                await asyncio.sleep(0.05)
        await handle.signal("say", args=["n", [1]])
        assert told(await until(stream, "n"), "n") == [1]
        await handle.terminate()


async def updates(served: Served, outcome: str) -> float:
    """How often the gateway has called for an update with this outcome."""
    return await served.metric("wakeline_temporal_calls_total", call="UpdateWorkflowExecution", outcome=outcome)


class SharedEngine(MemoryEngine):
    """The memory engine, as if several gateways could have it; and what one of them cannot reach."""

    shared = True


class Partitioned(MemoryEngine):
    """One gateway's way to a shared engine: while it is `cut`, it can write no lease, and everything else.

    So often as `unreadable` says, the runs cannot be listed.
    """

    shared = True

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__()
        self.__dict__.update(engine.__dict__)
        self.cut = False
        self.error: Exception = UnavailableError("cut off")
        self.unreadable = 0

    async def records(self, prefix: str) -> list[Record]:
        if self.unreadable and prefix.startswith("runs"):
            self.unreadable -= 1
            raise UnavailableError("cut off")
        return await super().records(prefix)

    async def put_record(self, key: str, value: bytes, *, revision: int) -> Record:
        if self.cut and key.startswith("leases/"):
            raise self.error
        return await super().put_record(key, value, revision=revision)


@asynccontextmanager
async def followers(temporal: WorkflowEnvironment, engine: MemoryEngine, lease: float) -> AsyncIterator[Followers]:
    """A gateway's followers, without the rest of it."""
    address = temporal.client.service_client.config.target_host
    settings = Settings(temporal=address, drain_grace=40.0, lease=lease)
    namespaces, runs = Namespaces([Options(address=address)]), Runs(engine)
    await namespaces.start()
    ownership = Ownership(engine, lease, shared=True)
    await ownership.start()
    all_of_them = Followers(namespaces, engine, Accept(engine), runs, settings, Hub(engine, runs.settled), ownership)
    await all_of_them.start()
    yield all_of_them
    await all_of_them.stop()
    await ownership.stop()
    await namespaces.stop()


def once(events: list[Event], topic: str) -> list[Event]:
    return [event for event in events if event.topic == topic]


async def test_of_two_gateways_one_follows_and_the_other_takes_over(
    client: Client, temporal: WorkflowEnvironment, name: str
) -> None:
    engine = SharedEngine()
    await engine.open()
    handles = [await start(client, f"{name}-{number}", workflows.Steps.run) for number in range(12)]

    async def said(count: int) -> None:
        async with asyncio.timeout(60):
            for handle in handles:
                while len(once(await everything(engine, handle.id), "step")) < count:
                    await asyncio.sleep(0.05)

    async with followers(temporal, engine, 1.0) as first:
        for handle in handles:
            await first.register(handle.id, None)
        async with followers(temporal, engine, 1.0) as second:
            async with asyncio.timeout(60):
                while not (first.count() and second.count() and first.count() + second.count() == 12):
                    await asyncio.sleep(0.05)
            for handle in handles:
                await steps(handle, "a")
            await said(1)
        # It gave back what it had, and the other has all of it again.
        async with asyncio.timeout(60):
            while first.count() < 12:
                await asyncio.sleep(0.05)
        for handle in handles:
            await steps(handle, "b", "end")
        await said(2)
        async with asyncio.timeout(60):
            while first.count():
                await asyncio.sleep(0.05)
    for handle in handles:
        events = await everything(engine, handle.id)
        topics = [event.topic for event in events if event.topic != "$run.waiting"]
        assert topics == ["$run.started", "step", "step", "$run.closed", "$session.settled"]


async def test_a_gateway_that_does_not_know_that_it_lost_its_leases_writes_nothing_twice(
    client: Client, temporal: WorkflowEnvironment, name: str
) -> None:
    engine = SharedEngine()
    await engine.open()
    cut = Partitioned(engine)
    handles = [await start(client, f"{name}-{number}", workflows.Steps.run) for number in range(8)]
    # The first keeps its leases for so long that it goes on while the second has taken them over.
    async with followers(temporal, cut, 60.0) as first:
        for handle in handles:
            await first.register(handle.id, None)
        cut.cut = True
        async with followers(temporal, engine, 0.5) as second:
            async with asyncio.timeout(60):
                while second.count() < 8:
                    await asyncio.sleep(0.05)
            assert first.count() == 8
            for number in range(10):
                await asyncio.gather(*(steps(handle, str(number)) for handle in handles))
            await asyncio.gather(*(steps(handle, "end") for handle in handles))
            async with asyncio.timeout(60):
                while second.count() or first.count():
                    await asyncio.sleep(0.05)
    for handle in handles:
        events = await everything(engine, handle.id)
        assert [event.json().split(b'"data":"')[1][:1] for event in once(events, "step")] == [
            b"%d" % n for n in range(10)
        ]
        assert [len(once(events, topic)) for topic in ("$run.started", "$run.closed", "$session.settled")] == [1, 1, 1]


@pytest.mark.parametrize("error", [UnavailableError("cut off"), RuntimeError("nobody thought of this")], ids=repr)
async def test_a_gateway_that_cannot_write_its_leases_stops_following(
    client: Client, temporal: WorkflowEnvironment, name: str, error: Exception
) -> None:
    engine = Partitioned(SharedEngine())
    engine.error = error
    await engine.open()
    handle = await start(client, name, workflows.Steps.run)
    async with followers(temporal, engine, 1.0) as only:
        await only.register(handle.id, None)
        assert only.count() == 1
        engine.cut = True
        async with asyncio.timeout(60):
            while only.count():
                await asyncio.sleep(0.05)
        # The leases are back before the rest is: what they are for is followed as soon as it can be.
        engine.unreadable = 2
        engine.cut = False
        async with asyncio.timeout(60):
            while not only.count():
                await asyncio.sleep(0.05)
        assert not engine.unreadable
    await handle.terminate()


async def test_a_reader_that_fails_as_nobody_thought_is_begun_anew(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([False, True, True])
    append = StreamCopy._append

    async def fails(copy: StreamCopy, stretch: Any) -> bool:
        if next(failures, False):
            raise RuntimeError("nobody thought of this")
        return await append(copy, stretch)

    monkeypatch.setattr(StreamCopy, "_append", fails)
    async with running_gateway(temporal, tmp_path) as served:
        handle = await start(client, name, workflows.Steps.run)
        stream = await served.stream(name, "until=settled")
        for number in range(4):
            await steps(handle, str(number))
            assert told(await until(stream, "step"), "step") == [str(number)]
        await steps(handle, "end")
        events = await until(stream, "$run.closed")
        assert told(events, "$run.closed")[0]["drained"]
    assert next(failures, None) is None


async def test_a_run_that_is_swept_is_told_to_its_end(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    how = {"close_watches": 2, "sweep_interval": 0.2}
    async with running_gateway(temporal, tmp_path, **how) as served:
        handles = [await start(client, f"{name}-{number}", workflows.Steps.run) for number in range(12)]
        for handle in handles:
            await served.call("POST", "/v1/runs", json={"workflow_id": handle.id})
        assert await served.metric("wakeline_runs_followed") == 12
        # Whoever is watched is watched closely.
        streams = [await served.stream(handle.id) for handle in handles[10:]]
        for handle in handles[10:]:
            await steps(handle, "a")
        async with asyncio.timeout(60):
            for stream in streams:
                while (await stream.next())["topic"] != "step":
                    pass
        async with asyncio.timeout(60):  # the sweep may have told the step
            while await served.metric("wakeline_runs_watched_closely") != 2:
                await asyncio.sleep(0.02)
        for handle in handles[:10]:
            await steps(handle, "a")
        for handle in handles:
            await steps(handle, "end")
        for handle in handles:
            async with asyncio.timeout(60):
                events = await (await served.stream(handle.id, "until=settled")).rest()
            assert told(events, "step") == ["a"]
            assert [c["status"] for c in told(events, "$run.closed")] == ["completed"]
