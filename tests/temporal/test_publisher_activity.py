"""Publishing from activities, on a real Temporal: retries supersede, resume where they stopped, and fall back on the workflow."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import CancelledError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served
from tests.temporal.publisher_workflows import ACTIVITIES, Runs
from tests.unit.publisher.scripted import ScriptedGateway
from tests.unit.publisher.test_values import Backwards
from wakeline.client import SessionClient
from wakeline.errors import UnavailableError
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings
from wakeline.publisher import PublishDroppedError, SessionPublisher
from wakeline.streams import WorkflowStreamClient

PATIENCE = 60


@asynccontextmanager
async def working(client: Client) -> AsyncIterator[str]:
    queue = f"publisher-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[Runs],
            activities=ACTIVITIES,
            activity_executor=threads,
            # However slow the machine is, no activity is taken for lost; and a cancellation comes soon all the same.
            max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        ):
            yield queue


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with working(client) as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served() -> AsyncIterator[Served]:
    async with gateway(Settings(engine="memory", port=0, no_auth=True)) as url, Served(url) as one:
        yield one


async def start(client: Client, queue: str, name: str, url: str, **how: Any) -> WorkflowHandle[Any, Any]:
    id = f"{name}-{uuid.uuid4().hex[:8]}"
    return await client.start_workflow(Runs.run, args=[name, url], id=id, task_queue=queue, **how)


async def log(served: Served, session: str) -> list[dict[str, Any]]:
    _, page = await served.call("GET", f"/v1/sessions/{session}/events?limit=10000")
    events: list[dict[str, Any]] = page["events"]
    return events


async def result(handle: WorkflowHandle[Any, Any]) -> Any:
    return await asyncio.wait_for(handle.result(), PATIENCE)


async def test_a_retry_supersedes_what_the_attempt_before_published(client: Client, queue: str, served: Served) -> None:
    handle = await start(client, queue, "retried", served.url)
    assert await result(handle) == 0
    events = await log(served, handle.id)
    assert [event["data"] for event in events if event["topic"] == "t"] == ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2"]
    (told,) = [event for event in events if event["topic"] == "$attempt.superseded"]
    assert (told["offset"], told["data"]["offsets"]) == (3, [[0, 2]])
    assert {(event["run"], event["activity"]) for event in events} == {(handle.first_execution_run_id, "1")}
    assert [event["attempt"] for event in events] == [1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("name", "stopped", "all_of_it"), [("resumed", 6, 10), ("in_a_thread", 3, 6)])
async def test_a_retry_goes_on_where_the_attempt_before_stopped(
    client: Client, queue: str, served: Served, name: str, stopped: int, all_of_it: int
) -> None:
    handle = await start(client, queue, name, served.url)
    assert await result(handle) == stopped
    events = await log(served, handle.id)
    assert [event["data"] for event in events] == list(range(all_of_it))
    assert [event["attempt"] for event in events] == [1] * stopped + [2] * (all_of_it - stopped)


async def test_without_a_gateway_the_last_heartbeat_tells_where_that_was(
    client: Client, queue: str, served: Served
) -> None:
    handle = await start(client, queue, "resumed_without_gateway", served.url)
    told, details = await result(handle)
    assert told == 4
    assert details[0] == "mine"
    assert details[1]["wakeline"] | {"publisher": ""} == {
        "session": handle.id,
        "publisher": "",
        "attempt": 1,
        "acknowledged": 4,
        "resumed": 0,
    }


@pytest.mark.parametrize("name", ["until_cancelled", "thread_until_cancelled"])
async def test_a_cancellation_that_a_heartbeat_brings_is_not_swallowed(
    client: Client, queue: str, served: Served, name: str
) -> None:
    handle = await start(client, queue, name, served.url)
    async with asyncio.timeout(PATIENCE):
        while not (await served.call("GET", f"/v1/sessions/{handle.id}/events?wait=5"))[1].get("events"):
            await asyncio.sleep(0.02)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as caught:
        await result(handle)
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, CancelledError):
        cause = cause.__cause__
    assert isinstance(cause, CancelledError)
    data = [event["data"] for event in await log(served, handle.id) if event["topic"] == "t"]
    assert data == [1] * len(data)


async def test_a_run_that_is_cancelled_cancels_the_request_that_its_activity_waits_for(
    client: Client, queue: str, served: Served
) -> None:
    handle = await start(client, queue, "asks_until_cancelled", served.url)
    requests = f"/v1/sessions/{handle.id}/requests"
    async with asyncio.timeout(PATIENCE):
        while (await served.call("GET", f"{requests}/pay-1"))[0] != 200:
            await asyncio.sleep(0.02)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await result(handle)
    assert (await served.call("GET", f"{requests}/pay-1"))[1]["status"] == "cancelled"
    status, refused = await served.call("POST", f"{requests}/pay-1", json={"payload": "approve"})
    assert (status, refused["error"]["code"]) == (409, "already_resolved")


async def test_values_are_encoded_as_the_worker_s_client_does(temporal: WorkflowEnvironment, served: Served) -> None:
    converter = DataConverter(payload_codec=Backwards())
    target = temporal.client.service_client.config.target_host
    secret = await Client.connect(target, namespace=temporal.client.namespace, data_converter=converter)
    async with working(secret) as queue:
        handle = await start(secret, queue, "retried", served.url)
        assert await result(handle) == 0
    events = [event for event in await log(served, handle.id) if event["topic"] == "t"]
    assert len(events) == 6
    assert all("payload" in event and "data" not in event for event in events)
    async with SessionClient(served.url, data_converter=converter) as reading:
        page = await reading.session(handle.id).page(topics="t")
    assert [event.data for event in page.events][-1] == "2.2"


async def items(client: Client, workflow_id: str, count: int) -> list[Any]:
    """What was signalled: topic, payload and identity."""
    found = []
    async with asyncio.timeout(PATIENCE):
        async for item in WorkflowStreamClient.create(client, workflow_id).subscribe(result_type=RawValue):
            payload: Payload = item.data.payload
            found.append((item.topic, payload, json.loads(payload.metadata["wakeline"])))
            if len(found) == count:
                break
    return found


async def test_without_a_gateway_the_workflow_s_own_stream_takes_it(client: Client, queue: str) -> None:
    nowhere = ScriptedGateway().url
    handle = await start(client, queue, "falls_back", nowhere, start_signal="hold")
    found = await items(client, handle.id, 22)
    whose = [identity for _, _, identity in found]
    publisher = f"{handle.first_execution_run_id}:1"
    common = {"publisher": publisher, "attempt": 1, "run": handle.first_execution_run_id, "activity": "1"}
    assert [one["sequence"] for one in whose] == list(range(22))
    assert all(common.items() <= one.items() for one in whose)
    assert whose[0] == {**common, "sequence": 0, "message": {"id": "m1", "op": "text"}}
    assert whose[20] == {**common, "sequence": 20, "key": "A1"}
    assert [json.loads(payload.data) for _, payload, _ in found[:21]] == [*(f"{n} " for n in range(20)), {"n": 1}]
    topic, raw, _ = found[21]
    assert (topic, raw.metadata["encoding"], raw.data) == ("raw", b"binary/plain", b"\x00")
    await handle.signal("close")
    assert await result(handle) == 0


def appended(gateway: ScriptedGateway, topic: str = "n") -> list[Any]:
    """What publishers sent to the gateway itself on a topic."""
    return [e["data"] for frame in gateway.appends() for e in frame["events"] if e["topic"] == topic]


async def test_it_goes_back_to_the_gateway_when_that_has_everything(client: Client, queue: str) -> None:
    away = ScriptedGateway()
    handle = await start(client, queue, "retried", (away.url), start_signal="hold")  # only to host a stream
    try:
        publishing = SessionPublisher(away.url, session=handle.id, on_unavailable="workflow", temporal_client=client)
        async with publishing as session:
            topic = session.topic("n")
            for n in range(10):
                await topic.publish(n)
            await asyncio.wait_for(session.flush(), PATIENCE)
            followed = await items(client, handle.id, 10)
            identity = session.identity
            key = (handle.id, identity.publisher, 1)
            # The follower has brought some of it when the gateway is there again, and the rest later.
            away.log[key] = [{"data": json.loads(payload.data)} for _, payload, _ in followed[:4]]
            await away.start()
            async with asyncio.timeout(PATIENCE):
                while not any(frame["type"] == "open" and frame["session"] == handle.id for frame in away.frames):
                    await asyncio.sleep(0.02)
            await topic.publish(10)
            await asyncio.wait_for(session.flush(), PATIENCE)
            assert appended(away) == []
            sent = 11
            async with asyncio.timeout(PATIENCE):
                while not appended(away):
                    # The follower brings the rest. The publisher may divert one event more before it knows.
                    away.log[key] = [{"data": json.loads(p.data)} for _, p, _ in await items(client, handle.id, sent)]
                    while session.acknowledged < sent:
                        await asyncio.sleep(0.02)
                    await topic.publish(sent)
                    sent += 1
                    await session.flush()
        assert [event["data"] for event in away.log[key]] == list(range(sent))
        assert appended(away) == [sent - 1]
        assert len(await items(client, handle.id, sent - 1)) == sent - 1
    finally:
        await handle.terminate()
        await away.stop()


async def test_what_the_workflow_did_not_take_lets_nothing_overtake_what_it_did(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = ScriptedGateway()
    handle = await start(client, queue, "retried", away.url, start_signal="hold")  # only to host a stream
    dropped: list[PublishDroppedError] = []
    try:
        publishing = SessionPublisher(
            away.url,
            session=handle.id,
            on_unavailable="workflow",
            temporal_client=client,
            on_dropped=dropped.append,
        )
        async with publishing as session:
            topic = session.topic("n")
            await topic.publish(0)
            await asyncio.wait_for(session.flush(), PATIENCE)
            signal = WorkflowHandle.signal

            async def refused(*_: object, **__: object) -> None:
                raise RPCError("no signal now", RPCStatusCode.INVALID_ARGUMENT, b"")

            monkeypatch.setattr(WorkflowHandle, "signal", refused)
            await topic.publish("refused")
            await asyncio.wait_for(session.flush(), PATIENCE)
            monkeypatch.setattr(WorkflowHandle, "signal", signal)
            await topic.publish(1)  # what its number is only the gateway can tell
            # It is there again before the follower has brought anything.
            key = (handle.id, session.identity.publisher, 1)
            await away.start()
            async with asyncio.timeout(PATIENCE):
                while sum(frame.get("publisher") == key[1] for frame in away.frames) < 3:
                    await asyncio.sleep(0.02)
            assert away.log[key] == [], "the workflow's stream still has an event with this number"
            followed = await items(client, handle.id, 1)
            away.log[key] += [{"data": json.loads(payload.data)} for _, payload, _ in followed]
            await asyncio.wait_for(session.flush(), PATIENCE)
            await topic.publish(2)
            await asyncio.wait_for(session.flush(), PATIENCE)
        assert [event.data for error in dropped for event in error.events] == ["refused"]
        assert [event["data"] for event in away.log[key]] == [0, 1, 2]
    finally:
        await handle.terminate()
        await away.stop()


async def test_what_waits_for_the_gateway_after_that_is_given_up_in_time(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ScriptedGateway().url
    handle = await start(client, queue, "retried", nowhere, start_signal="hold")  # only to host a stream

    async def refused(*_: object, **__: object) -> None:
        raise RuntimeError("no signal now")

    dropped: list[PublishDroppedError] = []
    publishing = SessionPublisher(
        nowhere,
        session=handle.id,
        on_unavailable="workflow",
        temporal_client=client,
        on_dropped=dropped.append,
        max_retry_duration=timedelta(seconds=0.5),
    )
    async with publishing as session:
        monkeypatch.setattr(WorkflowHandle, "signal", refused)
        for n in range(2):
            await session.topic("n").publish(n)
            await asyncio.wait_for(session.flush(), PATIENCE)
        monkeypatch.undo()
    assert [event.data for error in dropped for event in error.events] == [0, 1]
    assert isinstance(dropped[1], UnavailableError)
    assert "Assertion" not in dropped[1].message
    await handle.terminate()
