"""Publishers that take the detour through the workflow: nothing twice, nothing lost, attempts fenced."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.support import Served
from tests.temporal import follower_workflows as workflows
from tests.temporal.test_follower import running_gateway, running_worker, start, to_the_end
from wakeline.streams import WorkflowStreamClient


@pytest.fixture
async def name(client: Client) -> AsyncIterator[str]:
    """A workflow that waits, with its worker."""
    name = f"detour-{uuid4().hex[:8]}"
    async with running_worker(client):
        await start(client, name, workflows.Talks.run, "waits", 0)
        yield name


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path, drain_grace=10.0) as running:
        yield running


def detoured(sequence: int, data: Any = None, *, attempt: int = 1, **more: Any) -> Payload:
    """An event as a publisher that cannot reach the gateway sends it."""
    its = {"publisher": "p", "attempt": attempt, "sequence": sequence, "activity": "7", "run": "r", **more}
    value = data if data is not None else f"{attempt}.{sequence}"
    metadata = {"encoding": b"json/plain", "wakeline": json.dumps(its).encode()}
    return Payload(metadata=metadata, data=json.dumps(value).encode())


async def directly(served: Served, name: str, first: int, count: int, attempt: int = 1) -> None:
    events = [{"topic": "t", "data": f"{attempt}.{n}"} for n in range(first, first + count)]
    who = {"publisher": "p", "attempt": str(attempt), "sequence": str(first), "activity": "7", "run": "r"}
    await served.publish(name, *events, **who)


async def through(client: Client, name: str, *payloads: Payload, end: bool = True) -> None:
    stream = WorkflowStreamClient.create(client, name)
    async with stream:
        for payload in payloads:
            stream.topic("t").publish(payload)
    if end:
        await client.get_workflow_handle(name).signal("go")


def said(events: list[dict[str, Any]]) -> list[Any]:
    return [e["data"] for e in events if e["topic"] in ("t", "$attempt.superseded")]


async def test_what_had_arrived_directly_is_not_there_twice(client: Client, served: Served, name: str) -> None:
    await directly(served, name, 0, 5)
    await through(client, name, *(detoured(n) for n in range(3, 8)))
    events = await to_the_end(served, name)
    assert said(events) == [f"1.{n}" for n in range(8)]
    for event in events:
        if event["topic"] == "t":
            assert (event["run"], event["activity"], event["attempt"]) == ("r", "7", 1)
            assert "payload" not in event


async def test_the_publisher_may_return_and_what_is_the_workflow_s_own_stays_in_its_place(
    client: Client, served: Served, name: str
) -> None:
    own = Payload(metadata={"encoding": b"json/plain"}, data=b'"own"')
    await through(client, name, detoured(0), own, detoured(1), detoured(2), own, end=False)
    stream = await served.stream(name, "topics=t")
    await stream.take(5)
    await directly(served, name, 2, 2)
    await client.get_workflow_handle(name).signal("go")
    assert said(await to_the_end(served, name)) == ["1.0", "own", "1.1", "1.2", "own", "1.3"]


async def test_what_an_ended_attempt_sends_is_passed_over_and_a_later_one_supersedes(
    client: Client, served: Served, name: str
) -> None:
    await directly(served, name, 0, 1, attempt=2)
    sent = [detoured(0), detoured(1), detoured(1, attempt=2), detoured(0, attempt=3), detoured(2, attempt=2)]
    await through(client, name, *sent)
    events = await to_the_end(served, name)
    assert [data for data in said(events) if isinstance(data, str)] == ["2.0", "2.1", "3.0"]
    (told,) = [event for event in events if event["topic"] == "$attempt.superseded"]
    named = [offset for first, last in told["data"]["offsets"] for offset in range(first, last + 1)]
    # What the workflow itself says may stand in between.
    assert named == [event["offset"] for event in events if event["data"] in ("2.0", "2.1")]
    assert told["data"]["attempt"] == 3
    assert told["offset"] < next(event["offset"] for event in events if event["data"] == "3.0")


async def test_keys_and_messages_are_kept_and_bad_identities_are_the_workflow_s_own(
    client: Client, served: Served, name: str
) -> None:
    message = {"id": "m", "op": "text"}
    bad = [detoured(2, publisher=""), detoured(2, attempt=1, message={"id": "m"}), detoured(2, key="")]
    bad.append(Payload(metadata={"encoding": b"json/plain", "wakeline": b"{"}, data=b'"wakeline"'))
    notice = {"title": "Approve?", "for": "ada"}
    bad.append(detoured(2, notify={"title": ""}))
    good = [detoured(0, key="k", notify=notice), detoured(1, "x", message=message)]
    await through(client, name, *good, *bad)
    events = [e for e in await to_the_end(served, name) if e["topic"] == "t"]
    assert (events[0]["key"], events[0]["notify"], events[1]["message"]) == ("k", notice, message)
    assert [e["run"] == "r" for e in events] == [True, True, False, False, False, False, False]


async def test_events_whose_forerunners_are_lost_are_kept_all_the_same(
    client: Client, served: Served, name: str
) -> None:
    await through(client, name, detoured(4), detoured(5))
    assert said(await to_the_end(served, name)) == ["1.4", "1.5"]


async def test_a_gateway_that_restarts_in_between_writes_nothing_twice(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    for round_ in range(3):
        async with running_gateway(temporal, tmp_path, drain_grace=10.0) as served:
            await directly(served, name, round_ * 10, 5)
            await through(client, name, *(detoured(n) for n in range(round_ * 10 + 3, round_ * 10 + 10)), end=False)
            stream = await served.stream(name, "topics=t")
            await stream.take((round_ + 1) * 10)
    await client.get_workflow_handle(name).signal("go")
    async with running_gateway(temporal, tmp_path, drain_grace=10.0) as served:
        assert said(await to_the_end(served, name)) == [f"1.{n}" for n in range(30)]
