"""Which run is speaking: chains, resets, a Workflow Id started anew, children and conversations in one session."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.support import Served, Stream
from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_run_endings import forget_the_end
from wakeline.gateway.following.watching import waiting
from wakeline.gateway.rules import Follow
from wakeline.gateway.sessions import Run, Runs

QUEUE = "runs"


@pytest.fixture
def name() -> str:
    return f"runs-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path, sweep_interval=0.3) as running:
        yield running


async def start(client: Client, name: str, workflow: Any, *args: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    handle: WorkflowHandle[Any, Any] = await client.start_workflow(
        workflow, args=args, id=name, task_queue=QUEUE, **options
    )
    return handle


async def until(stream: Stream, topic: str, count: int = 1) -> list[dict[str, Any]]:
    """Events up to the `count`th of a topic."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while sum(event["topic"] == topic for event in events) < count:
            events.append(await stream.next())
    return events


async def reset(client: Client, handle: WorkflowHandle[Any, Any], run_id: str, event: int) -> str:
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=run_id),
            workflow_task_finish_event_id=event,
            request_id=str(uuid.uuid4()),
            reason="again",
        )
    )
    return answer.run_id


async def steps(handle: WorkflowHandle[Any, Any], *names: str) -> None:
    for name in names:
        await handle.signal("step", name)


@pytest.mark.usefixtures("worker")
async def test_a_workflow_id_that_is_started_anew_is_another_run_and_offsets_go_on(
    client: Client, served: Served, name: str
) -> None:
    first = await start(client, name, workflows.Steps.run)
    stream = await served.stream(name)
    await steps(first, "a", "end")
    events = await until(stream, "$session.settled")
    # Nobody says so: the device that is still there is reason enough to look.
    second = await start(client, name, workflows.Steps.run)
    await steps(second, "b", "end")
    events += await until(stream, "$session.settled")
    assert [event["offset"] for event in events] == list(range(len(events)))
    assert [e["topic"] for e in events if e["topic"] != "$run.waiting"] == [
        *("$run.started", "step", "$run.closed", "$session.settled"),
        *("$run.started", "step", "$run.closed", "$session.settled"),
    ]
    runs = [handle.first_execution_run_id for handle in (first, second)]
    assert [e["run"] for e in events if e["topic"] == "step"] == runs
    assert [run["run"] for run in (await served.call("GET", f"/v1/sessions/{name}"))[1]["runs"]] == runs


@pytest.mark.usefixtures("worker")
async def test_a_reset_is_shown_and_what_was_said_before_it_is_superseded(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Steps.run)
    stream = await served.stream(name)
    await steps(handle, "a")
    await until(stream, "step")
    await steps(handle, "b")
    await until(stream, "step")
    run_id = handle.first_execution_run_id or ""
    # To the first task: signals that came later are delivered again, as Temporal does.
    new = await reset(client, handle, run_id, 4)
    events = await until(stream, "$run.continued")
    assert told(events, "$run.continued")[0] == {
        "workflow_id": name,
        "run_id": new,
        "previous_run_id": run_id,
        "reason": "reset",
        "drained": True,
    }
    await steps(client.get_workflow_handle(name), "c", "end")
    events = await until(stream, "$session.settled")
    assert told(events, "step") == ["a", "b", "c"]
    assert {e["run"] for e in events if e["topic"] == "step"} == {run_id}
    log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
    superseded = told(log, "$attempt.superseded")[0]["offsets"]
    assert [log[offset]["data"] for first, last in superseded for offset in range(first, last + 1)] == ["a", "b"]
    assert [e["topic"] for e in log].count("$run.closed") == [e["topic"] for e in log].count("$run.started") == 1
    compact = (await served.call("GET", f"/v1/sessions/{name}/events?view=compact"))[1]["events"]
    assert told(compact, "step") == ["a", "b", "c"]


@pytest.mark.usefixtures("worker")
async def test_a_reset_undoes_what_activities_published_after_its_point(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.TwoActivities.run)
    stream = await served.stream(name)
    await steps(handle, "a")
    async with asyncio.timeout(60):
        while (await handle.query("done")) < 1:
            await asyncio.sleep(0.05)
    history = await handle.fetch_history()
    point = max(e.event_id for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    await steps(handle, "b")
    async with asyncio.timeout(60):
        while (await handle.query("done")) < 2:
            await asyncio.sleep(0.05)
    run_id = handle.first_execution_run_id or ""
    # As the two activities publish, past the workflow.
    for activity in ("1", "2"):
        headers = {"publisher": f"{run_id}:{activity}", "attempt": "1", "run": run_id, "activity": activity}
        await served.publish(name, {"topic": "delta", "data": activity}, sequence="0", **headers)
    await reset(client, handle, run_id, point)
    await until(stream, "$run.continued")
    async with asyncio.timeout(60):
        while True:
            log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
            if superseded := told(log, "$attempt.superseded"):
                break
            await asyncio.sleep(0.05)
    undone = [
        log[first]["data"]
        for told_of in superseded
        for first, _ in told_of["offsets"]
        if log[first]["topic"] == "delta"
    ]
    assert undone == ["2"]
    # A zombie of the old run is refused; what the first activity says still counts.
    for activity, status in (("1", 200), ("2", 409)):
        headers = {"Wakeline-Publisher": f"{run_id}:{activity}", "Wakeline-Sequence": "1"}
        path = f"/v1/sessions/{name}/events"
        assert (await served.call("POST", path, json={"events": [{"topic": "delta"}]}, headers=headers))[0] == status
    await client.get_workflow_handle(name).terminate()


@pytest.mark.usefixtures("worker")
async def test_a_reset_of_a_run_that_had_ended_is_another_run(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Steps.run)
    stream = await served.stream(name)
    await steps(handle, "a", "end")
    await until(stream, "$session.settled")
    run_id = handle.first_execution_run_id or ""
    new = await reset(client, handle, run_id, 4)
    events = await until(stream, "$session.settled")
    started = told(events, "$run.started")[0]
    assert (started["run_id"], started["reset_of"]) == (new, run_id)
    assert {e["run"] for e in events if e["topic"] != "$session.settled"} == {new}
    assert told(events, "step") == ["a"]


@pytest.mark.usefixtures("worker")
async def test_a_reset_while_the_gateway_was_down_is_shown_when_it_is_back(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    handle = await start(client, name, workflows.Steps.run)
    async with running_gateway(temporal, tmp_path) as served:
        stream = await served.stream(name)
        await steps(handle, "a")
        await until(stream, "step")
    await reset(client, handle, handle.first_execution_run_id or "", 4)
    await steps(client.get_workflow_handle(name), "b", "end")
    async with running_gateway(temporal, tmp_path) as served:
        events = await (await served.stream(name, "until=settled")).rest()
    assert [continued["reason"] for continued in told(events, "$run.continued")] == ["reset"]
    assert [closed["status"] for closed in told(events, "$run.closed")] == ["completed"]
    assert told(events, "step") == ["a", "a", "b"]


@pytest.mark.usefixtures("worker")
async def test_continue_as_new_without_the_stream_begins_it_anew(client: Client, served: Served, name: str) -> None:
    # Each run says more than the one before it: its stream alone does not tell that it is another.
    await start(client, name, workflows.Forgets.run, 2)
    async with asyncio.timeout(60):
        events = await (await served.stream(name, "until=settled")).rest()
    assert told(events, "said") == [f"{left} left, word {word}" for left in (2, 1, 0) for word in range(3 - left, 5)]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("by", ["the parent's history", "a rule"])
async def test_children_speak_in_their_parent_s_session(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, by: str
) -> None:
    how: dict[str, Any] = {}
    if by == "a rule":
        # The rule says where, and the memo says better. Nothing of the parent is watched closely.
        how = {"follow": (Follow(workflow_id=f"{name}*", session="never"),), "close_watches": 0}
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2, **how) as served:
        parent = await start(client, name, workflows.Family.run, memo={"wakeline.session": name})
        if by != "a rule":
            await served.call("POST", "/v1/runs", json={"workflow_id": name})
        events: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while len(told(events, "$run.closed")) < 3:
                await asyncio.sleep(0.1)
                status, body = await served.call("GET", f"/v1/sessions/{name}/events")
                events = body["events"] if status == 200 else []
        assert (await served.call("GET", "/v1/sessions/never"))[0] == 404
    said: dict[str, list[str]] = {}
    for event in events:
        if event["topic"] == "said":
            said.setdefault(event["run"], []).append(event["data"])
    assert said.pop(parent.first_execution_run_id or "") == ["all are grown up"]
    assert sorted(said.values()) == [[f"child {child}, word {word}" for word in range(3)] for child in range(2)]


@pytest.mark.usefixtures("worker")
async def test_the_result_is_told_where_it_is_asked_for(client: Client, served: Served, name: str) -> None:
    handles = [await start(client, f"{name}-{number}", workflows.Steps.run) for number in range(2)]
    for handle, asked in zip(handles, (True, False), strict=True):
        # Once it is asked for, it is not forgotten; and it may be asked for late.
        for result in (False, asked, False):
            await served.call("POST", "/v1/runs", json={"workflow_id": handle.id, "session": name, "result": result})
        await steps(handle, "a", "end")
    async with asyncio.timeout(60):
        events = await (await served.stream(name, "until=settled")).rest()
    closed = {c["workflow_id"]: c.get("result") for c in told(events, "$run.closed")}
    assert closed == {f"{name}-0": {"steps": 1}, f"{name}-1": None}


@pytest.mark.usefixtures("worker")
async def test_a_result_that_is_asked_for_while_the_run_is_written_down_is_not_forgotten(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, want, writing, asked = Runs.put, Runs.want_result, asyncio.Event(), asyncio.Event()

    async def slow(runs: Runs, session: str, run: Run) -> None:
        if run.waiting is not None and not asked.is_set():
            writing.set()
            await asked.wait()
        await put(runs, session, run)

    async def noted(runs: Runs, session: str, run: Run) -> None:
        await want(runs, session, run)
        asked.set()

    monkeypatch.setattr(Runs, "put", slow)
    monkeypatch.setattr(Runs, "want_result", noted)
    monkeypatch.setattr(waiting, "_QUIET", 0.0)
    handle = await start(client, name, workflows.Approval.run, None)
    async with running_gateway(temporal, tmp_path) as served, asyncio.timeout(60):
        await served.stream(name)
        await writing.wait()
        await served.call("POST", "/v1/runs", json={"workflow_id": name, "result": True})
    await handle.signal("approve")
    async with running_gateway(temporal, tmp_path) as served, asyncio.timeout(60):
        events = await (await served.stream(name, "until=settled")).rest()
    assert [closed["result"] for closed in told(events, "$run.closed")] == [True]


@pytest.mark.usefixtures("worker")
async def test_what_an_activity_publishes_after_continue_as_new_is_of_the_same_run(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Forgets.run, 1)
    stream = await served.stream(name, "until=settled")
    events = await until(stream, "$run.closed")
    last = told(events, "$run.closed")[0]["run_id"]
    assert last != handle.first_execution_run_id
    # As an activity of the last run publishes: it knows that run alone.
    headers = {"publisher": f"{last}:1", "attempt": "1", "sequence": "0", "run": last, "activity": "1"}
    await served.publish(name, {"topic": "delta", "data": 1}, **headers)
    log = (await served.call("GET", f"/v1/sessions/{name}/events?topics=delta"))[1]["events"]
    assert [event["run"] for event in log] == [handle.first_execution_run_id]


@pytest.mark.usefixtures("worker")
async def test_a_run_that_fails_and_is_begun_again_by_cron_is_no_retry(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Fails.run, cron_schedule="@every 1s")
    stream = await served.stream(name)
    events = await until(stream, "$run.continued", 2)
    await handle.terminate()
    assert [continued["reason"] for continued in told(events, "$run.continued")] == ["cron", "cron"]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_reset_of_an_earlier_run_supersedes_what_that_and_the_following_ones_have_said(
    client: Client, served: Served, name: str, times: int
) -> None:
    handle = await start(client, name, workflows.Chapters.run, 0)
    stream = await served.stream(name)
    await until(stream, "said", 2)
    for count in (1, 2):
        await client.get_workflow_handle(name).signal("go")
        events = await until(stream, "$run.continued")
        if count == 1:
            second = told(events, "$run.continued")[0]["run_id"]
        await until(stream, "said", 2)
    for _ in range(times):
        # The signal that ends the second comes again; what it said follows, and the first word of the third.
        second = await reset(client, handle, second, 4)
        await until(stream, "said", 4)
    await client.get_workflow_handle(name).terminate()
    log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
    offsets = {
        offset for each in told(log, "$attempt.superseded") for a, b in each["offsets"] for offset in range(a, b + 1)
    }
    valid = [event["data"] for event in log if event["topic"] == "said" and event["offset"] not in offsets]
    assert valid == [f"chapter {chapter}, word {word}" for chapter in range(3) for word in range(2)]
    assert len(told(log, "said")) == 6 + 4 * times


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("by", ["a device", "a rule"])
async def test_a_reset_of_a_run_whose_end_was_told_is_another_run_also_if_a_crash_kept_that_from_the_record(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, by: str
) -> None:
    handle = await start(client, name, workflows.Steps.run)
    async with running_gateway(temporal, tmp_path) as served:
        stream = await served.stream(name)
        await steps(handle, "a", "end")
        await until(stream, "$session.settled")
    await forget_the_end(tmp_path, name)
    run_id = handle.first_execution_run_id or ""
    new = await reset(client, handle, run_id, 4)
    how: dict[str, Any] = {"follow": (Follow(workflow_id=name),)} if by == "a rule" else {}
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2, **how) as served:
        async with asyncio.timeout(60):
            while (await served.call("GET", f"/v1/sessions/{name}"))[1]["runs"][-1]["run"] == run_id:
                if by == "a device":
                    (await served.stream(name)).close()
                await asyncio.sleep(0.1)
        log = await until(await served.stream(name), "$session.settled", 2)
    about = [event["topic"] for event in log if event["topic"] != "$run.waiting"]
    assert about == ["$run.started", "step", "$run.closed", "$session.settled"] * 2
    assert [event["run"] for event in log if event["topic"] == "$run.closed"] == [run_id, new]
