"""Reading on where a workflow goes on in a run that does not carry the stream, and over what was truncated."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy

from tests.temporal import streams_following_workflows as following
from tests.temporal import streams_workflows as hosts
from tests.temporal.streams_support import Handle, read, start, worker
from wakeline.streams import StreamEnd, StreamGap, WorkflowStreamClient

# A poll by update that waits when the run closes makes the SDK warn.
pytestmark = pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")

RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=2)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def queue(client: Client) -> AsyncIterator[str]:
    async with worker(client) as name:
        yield name


def first_run(client: Client, handle: Handle) -> WorkflowStreamClient:
    """A reader that is in the first run, however far the workflow has gone by now."""
    pinned = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    return WorkflowStreamClient(pinned, client=client)


def story(gaps: list[StreamGap]) -> list[tuple[str, int, int]]:
    return [(gap.reason, gap.wanted, gap.resumed) for gap in gaps]


def data(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def test_a_retry_is_a_stream_of_its_own(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.FailsOnce, retry_policy=RETRY)
    gaps: list[StreamGap] = []
    ends: list[StreamEnd] = []
    items = first_run(client, handle).subscribe(on_gap=gaps.append, on_end=ends.append)
    assert [(item.offset, item.data) for item in await read(items, 2)] == [(0, [1, 0]), (1, [1, 1])]
    assert gaps == []
    rest = await read(items)
    assert [(item.offset, item.data) for item in rest] == [(0, [2, 0]), (1, [2, 1]), (2, [2, 2])]
    assert story(gaps) == [("retry", 2, 0)]
    (gap,), (end,) = gaps, ends
    assert (end.status, end.run_id, end.drained) == (WorkflowExecutionStatus.COMPLETED, gap.run_id, True)


async def test_an_offset_that_was_stored_with_its_run_is_resumed_over_a_retry(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.FailsOnce, retry_policy=RETRY)
    await client.get_workflow_handle(handle.id).result()
    gaps: list[StreamGap] = []
    # As a reader comes back that had read one event and was away since.
    items = await read(first_run(client, handle).subscribe(from_offset=1, on_gap=gaps.append))
    assert data(items) == [[1, 1], [2, 0], [2, 1], [2, 2]]
    assert story(gaps) == [("retry", 2, 0)]


async def test_a_timed_out_run_is_retried(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.TimesOutOnce, retry_policy=RETRY, run_timeout=timedelta(seconds=10))
    gaps: list[StreamGap] = []
    items = await read(first_run(client, handle).subscribe(on_gap=gaps.append))
    assert data(items) == [[1, 0], [2, 0]]
    assert story(gaps) == [("retry", 1, 0)]


async def test_a_retry_after_continue_as_new_repeats_only_what_it_does_again(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.FailsAfterRolling, following.FailsLaterInput(), retry_policy=RETRY)
    gaps: list[StreamGap] = []
    items = await read(first_run(client, handle).subscribe(on_gap=gaps.append))
    assert data(items) == [[1, 1, 0], [1, 1, 1], [2, 1, 0], [2, 1, 1], [2, 2, 0], [2, 2, 1]]
    assert [item.offset for item in items] == [0, 1, 2, 3, 2, 3]
    assert story(gaps) == [("retry", 4, 2)]


async def test_one_run_alone_ends_with_its_own_status(client: Client, queue: str) -> None:
    handle = await start(client, queue, following.FailsOnce, retry_policy=RETRY)
    pinned = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    ends: list[StreamEnd] = []
    assert data(await read(WorkflowStreamClient(pinned).subscribe(on_end=ends.append))) == [[1, 0], [1, 1]]
    assert [(end.status, end.failure, end.drained) for end in ends] == [
        (WorkflowExecutionStatus.FAILED, "half way", True)
    ]


async def test_cron_goes_on_with_the_next_run(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.PublishAndReturn, 2, cron_schedule="@every 1s")
    gaps: list[StreamGap] = []
    items = await read(first_run(client, handle).subscribe(on_gap=gaps.append), 4)
    assert [(item.offset, item.data) for item in items] == [(0, 0), (1, 1), (0, 0), (1, 1)]
    assert story(gaps) == [("cron", 2, 0)]
    await client.get_workflow_handle(handle.id).terminate()


async def until_begun(handle: Handle) -> None:
    """Wait until the first workflow task is completed: a reset keeps the signals before that."""
    async with asyncio.timeout(60):
        while not any(
            event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
            for event in (await handle.fetch_history()).events
        ):
            await asyncio.sleep(0.05)


async def reset(client: Client, handle: Handle) -> None:
    """Back to after the first workflow task, without the signals that came since."""
    request = ResetWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.first_execution_run_id or ""),
        reason="another try",
        workflow_task_finish_event_id=4,
        request_id=uuid.uuid4().hex,
        reset_reapply_type=2,  # type: ignore[arg-type]  # RESET_REAPPLY_TYPE_NONE
    )
    await client.workflow_service.reset_workflow_execution(request)


@pytest.mark.parametrize("host", [hosts.Hub, hosts.HubWithoutQuery])
async def test_a_reset_is_followed(client: Client, queue: str, host: Any) -> None:
    handle = await start(client, queue, host)
    current = client.get_workflow_handle(handle.id)
    gaps: list[StreamGap] = []
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_gap=gaps.append, on_end=ends.append)
    await until_begun(handle)
    await current.signal("say", args=["n", [1, 2]])
    assert data(await read(items, 2)) == [1, 2]
    await reset(client, handle)
    await current.signal("say", args=["n", [3]])
    (item,) = await read(items, 1)
    assert (item.offset, item.data) == (0, 3)
    assert story(gaps) == [("reset", 2, 0)]
    await current.signal("close")
    assert await read(items) == []
    assert [end.status for end in ends] == [WorkflowExecutionStatus.COMPLETED]


async def test_another_workflow_of_the_same_id_is_not_followed(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    ends: list[StreamEnd] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_end=ends.append)
    await handle.signal("say", args=["n", [1]])
    assert data(await read(items, 1)) == [1]
    replaced = await client.start_workflow(
        hosts.Hub.run, id=handle.id, task_queue=queue, id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING
    )
    assert await read(items) == []
    assert [(end.status, end.run_id) for end in ends] == [
        (WorkflowExecutionStatus.TERMINATED, handle.first_execution_run_id)
    ]
    await replaced.terminate()


@pytest.mark.parametrize("host", [hosts.Hub, hosts.HubWithoutQuery])
@pytest.mark.parametrize("topics", [None, ["even"]])
async def test_a_truncation_is_told(client: Client, queue: str, host: Any, topics: list[str] | None) -> None:
    handle = await start(client, queue, host)
    gaps: list[StreamGap] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(topics, on_gap=gaps.append)

    async def say(numbers: range) -> None:
        for number in numbers:
            await handle.signal("say", args=["odd" if number % 2 else "even", [number]])

    await say(range(3))
    wanted = [0, 2] if topics else [0, 1, 2]
    assert data(await read(items, len(wanted))) == wanted
    assert gaps == []
    # Told what was skipped for its topic alone, a reader must not take it for a gap.
    await say(range(3, 7))
    wanted = [4, 6] if topics else [3, 4, 5, 6]
    assert data(await read(items, len(wanted))) == wanted
    assert gaps == []
    await handle.signal("say_and_truncate", args=["even", list(range(8, 14)), 10])
    assert (await read(items, 1))[0].offset == 10
    assert story(gaps) == [("truncated", 7, 10)]
    await handle.terminate()


async def test_a_reader_from_the_beginning_is_told_what_is_gone(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Hub)
    await handle.signal("say", args=["n", list(range(5))])
    await handle.execute_update("truncate", 5)
    gaps: list[StreamGap] = []
    items = WorkflowStreamClient.create(client, handle.id).subscribe(on_gap=gaps.append)
    await handle.signal("say", args=["n", [5]])
    assert data(await read(items, 1)) == [5]
    assert story(gaps) == [("truncated", 0, 5)]
    await handle.terminate()


async def test_what_continue_as_new_could_not_carry_is_told(client: Client, queue: str) -> None:
    handle = await start(client, queue, hosts.Roller, hosts.RollerInput(runs_left=3, size=400_000))
    async with asyncio.timeout(60):
        await client.get_workflow_handle(handle.id).result()
    gaps: list[StreamGap] = []
    items = await read(WorkflowStreamClient.create(client, handle.id).subscribe("tick", on_gap=gaps.append))
    assert story(gaps) == [("truncated", 0, items[0].offset)]
    assert items[0].offset > 0
