"""Children that say that they speak in their parent's session are found, whatever their parent and the gateway do meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import QUEUE, start
from wakeline.errors import TemporalUnavailableError
from wakeline.gateway.following.finding.finder import Finder, Found
from wakeline.gateway.following.watching import children, watch

Events = list[dict[str, Any]]


@pytest.fixture
def name() -> str:
    return f"children-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


async def register(served: Served, name: str) -> None:
    assert (await served.call("POST", "/v1/runs", json={"workflow_id": name}))[0] == 200


async def to_the_end(served: Served, name: str) -> Events:
    async with asyncio.timeout(60):
        return await (await served.stream(name, "until=settled")).rest()


def has_the_whole_family(events: Events, size: int) -> None:
    """So many children have said three things each, and the session is settled once, after them."""
    words = [f"child {child}, word {word}" for child in range(size) for word in range(3)]
    assert sorted(told(events, "said")) == words
    topics = Counter(event["topic"] for event in events)
    assert (topics["$run.started"], topics["$run.closed"], topics["$session.settled"]) == (size + 1, size + 1, 1)
    assert events[-1]["topic"] == "$session.settled"


@pytest.mark.parametrize("distance", ["closely", "from afar"])
async def test_a_parent_that_leaves_its_children_is_watched(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, distance: str
) -> None:
    how = {"close_watches": 0} if distance == "from afar" else {}
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2, **how) as served:
        parent = await start(client, name, workflows.Leaves.run, 3, 1)
        await register(served, name)
        await parent.signal("go")
        has_the_whole_family(await to_the_end(served, name), 3)


async def test_a_parent_that_had_ended_when_the_gateway_was_told(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    await (await start(client, name, workflows.Leaves.run, 2, 0)).result()
    async with running_gateway(temporal, tmp_path) as served:
        await register(served, name)
        has_the_whole_family(await to_the_end(served, name), 2)


async def test_a_parent_that_ends_while_the_gateway_is_away(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    parent = await start(client, name, workflows.Leaves.run, 2, 1)
    async with running_gateway(temporal, tmp_path) as served:
        await register(served, name)
    await parent.signal("go")
    await parent.result()
    async with running_gateway(temporal, tmp_path) as served:
        has_the_whole_family(await to_the_end(served, name), 2)


async def test_the_start_of_a_child_and_the_parent_s_end_come_in_one_page(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_PAUSE", 2.0)
    async with running_gateway(temporal, tmp_path) as served:
        parent = await start(client, name, workflows.Leaves.run, 2, 1)
        await register(served, name)
        await asyncio.sleep(0.5)
        await parent.signal("go")
        has_the_whole_family(await to_the_end(served, name), 2)


async def test_a_child_that_cannot_be_looked_for_at_first(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, refused = Finder.find, Counter[str]()

    async def unavailable(
        finder: Finder, connection: Any, workflow_id: str, run_id: str | None = None, *, activity: bool = False
    ) -> Found:
        if "-child-" in workflow_id and refused[workflow_id] < 2:
            refused[workflow_id] += 1
            raise TemporalUnavailableError("Temporal cannot be asked now")
        return await find(finder, connection, workflow_id, run_id, activity=activity)

    monkeypatch.setattr(Finder, "find", unavailable)
    async with running_gateway(temporal, tmp_path) as served:
        parent = await start(client, name, workflows.Leaves.run, 2, 1)
        await register(served, name)
        await parent.signal("go")
        has_the_whole_family(await to_the_end(served, name), 2)
    assert set(refused.values()) == {2}


async def test_each_run_of_a_child_that_is_started_again_and_a_search_attribute_says_so(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    attribute = {workflows.SESSION.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD}
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=client.namespace, search_attributes=attribute)
    )
    await (await start(client, name, workflows.Repeats.run, 3)).result()
    async with running_gateway(temporal, tmp_path) as served:
        await register(served, name)
        has_the_whole_family(await to_the_end(served, name), 3)


async def test_a_child_that_temporal_never_tells_of_does_not_keep_the_parent_from_its_end(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Finder.find

    async def refused(
        finder: Finder, connection: Any, workflow_id: str, run_id: str | None = None, *, activity: bool = False
    ) -> Found:
        if "-child-" in workflow_id:
            raise TemporalUnavailableError("Temporal cannot be asked now: permission denied")
        return await find(finder, connection, workflow_id, run_id, activity=activity)

    monkeypatch.setattr(Finder, "find", refused)
    monkeypatch.setattr(children, "_PATIENCE", 1.0)
    async with running_gateway(temporal, tmp_path) as served:
        await start(client, name, workflows.Leaves.run, 1, 0)
        await register(served, name)
        has_the_whole_family(await to_the_end(served, name), 0)
