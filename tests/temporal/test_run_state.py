"""What a run is doing now: told when it changes, and by the session's state, with no code in the workflow."""

from __future__ import annotations

import asyncio
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.servers import temporal_server
from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import QUEUE, start, until
from wakeline.cli.processes import temporal_program
from wakeline.events import NewEvent
from wakeline.gateway.following.telling import Teller
from wakeline.gateway.following.watching import state, waiting
from wakeline.gateway.sessions import Run, Runs


@pytest.fixture
def name() -> str:
    return f"state-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a state reported soon that is certain only after a while."""
    monkeypatch.setattr(waiting, "_QUIET", 0.5)
    monkeypatch.setattr(state, "_SOONEST", 0.3)


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path) as running:
        yield running


async def run_of(served: Served, name: str) -> dict[str, Any]:
    (run,) = (await served.call("GET", f"/v1/sessions/{name}"))[1]["runs"]
    assert isinstance(run, dict)
    return run


async def test_a_failed_attempt_is_told_with_the_next_and_that_it_is_over(
    client: Client, served: Served, name: str
) -> None:
    workflows.failures_left[name] = 1
    await start(client, name, workflows.Troubled.run, "fails_at_first", 10.0)
    stream = await served.stream(name)
    events = await until(stream, "$activity.retrying")
    retrying = told(events, "$activity.retrying")[0]
    next_at = retrying.pop("next_at")
    assert retrying == {
        "activity": "1",
        "activity_type": "fails_at_first",
        "attempt": 2,
        "failure": {"message": "no stock left", "type": "OutOfStock"},
    }
    assert next_at > events[0]["time"]
    (activity,) = (await run_of(served, name))["activities"]
    assert (activity["activity"], activity["attempt"], activity["state"]) == ("1", 2, "retrying")
    events = await until(stream, "$run.closed")
    # The workflow ends with its activity: what is over with the run is not told apart.
    assert told(events, "$run.closed")[0]["status"] == "completed"
    assert (await run_of(served, name))["activities"] == []


async def test_a_retry_is_over_when_the_next_attempt_begins(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Again.run, "goes_on_when_told", None)
    stream = await served.stream(name)
    retrying = told(await until(stream, "$activity.retrying", 2), "$activity.retrying")
    assert retrying[0]["attempt"] == 2
    assert retrying[1] == {"activity": "charge", "attempt": 2, "over": True}
    (activity,) = (await run_of(served, name))["activities"]
    assert (activity["attempt"], activity["state"], activity["next_at"]) == (2, "running", None)
    workflows.released.add(name)
    await until_quiet(served, name)
    log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
    assert len(told(log, "$activity.retrying")) == 2
    await handle.terminate()


async def until_quiet(served: Served, name: str) -> None:
    """Return when no activity of the session's run is retried, paused or has stalled."""
    async with asyncio.timeout(60):
        while (await run_of(served, name))["activities"]:
            await asyncio.sleep(0.1)


async def of_activity(client: Client, command: str, name: str, *arguments: str) -> None:
    """Run `temporal activity …` for a workflow's activity."""
    address = client.service_client.config.target_host
    which = ("--workflow-id", name, "--activity-id", "charge", "--address", address)
    process = await asyncio.create_subprocess_exec(
        temporal_program(), "activity", command, *which, *arguments, stdout=DEVNULL
    )
    assert await process.wait() == 0


async def test_a_paused_workflow_is_one_that_runs(name: str, tmp_path: Path) -> None:
    async with (
        temporal_server(frontend_WorkflowPauseEnabled=True) as server,
        running_gateway(server, tmp_path) as served,
        Worker(server.client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES),
    ):
        address = server.client.service_client.config.target_host
        handle = await start(server.client, name, workflows.Steps.run)
        for command in ("pause", "unpause"):
            process = await asyncio.create_subprocess_exec(
                temporal_program(), "workflow", command, "-w", name, "--address", address, stdout=DEVNULL
            )
            assert await process.wait() == 0
            if command == "pause":
                stream = await served.stream(name)
                await until(stream, "$run.started")
                assert (await run_of(served, name))["status"] == "running"
        await handle.signal("step", "a")
        await until(stream, "step")
        await handle.terminate()
        assert told(await until(stream, "$run.closed"), "$run.closed")[0]["status"] == "terminated"


async def test_a_pause_of_an_activity_and_its_end_are_reported(client: Client, served: Served, name: str) -> None:
    workflows.failures_left[name] = 1000
    handle = await start(client, name, workflows.Again.run, "fails_at_first", None)
    stream = await served.stream(name)
    await until(stream, "$activity.retrying")
    before = 0
    for turn in range(2):  # under the same id, and at times with the same attempt
        await of_activity(client, "pause", name, "--identity", "ops", "--reason", "the bank is closed")
        paused = told(await until(stream, "$activity.paused"), "$activity.paused")[0]
        assert paused.pop("paused_at")
        attempt = paused.pop("attempt")
        # Temporal (server 1.32) forgets the last failure when an activity is unpaused, until it fails again.
        failed = {} if attempt == before else {"failure": {"message": "no stock left", "type": "OutOfStock"}}
        assert paused == {
            "activity": "charge",
            "activity_type": "fails_at_first",
            "by": "ops",
            "reason": "the bank is closed",
            **failed,
        }
        (activity,) = (await run_of(served, name))["activities"]
        assert (activity["state"], activity["attempt"], activity["by"]) == ("paused", attempt, "ops")
        before = attempt
        if turn == 0:
            await of_activity(client, "unpause", name)
        else:
            await handle.terminate()
            await until(stream, "$run.closed")
            break
        assert told(await until(stream, "$activity.paused"), "$activity.paused") == [
            {"activity": "charge", "attempt": attempt, "over": True}
        ]
    log = (await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"]
    assert [event["key"] for event in log if event["topic"] == "$activity.paused"] == ["charge"] * 3
    told_of = [(d["attempt"], d.get("over", False)) for d in told(log, "$activity.retrying")]
    assert told_of[:2] == [(2, False), (2, True)]  # no attempt is to come while it is paused


async def test_a_run_whose_tasks_fail_again_and_again_waits_for_a_task_retry(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Broken.run, task_timeout=timedelta(seconds=1))
    stream = await served.stream(name)
    failing = told(await until(stream, "$run.waiting"), "$run.waiting")[0]
    assert failing.pop("attempt") >= 2
    assert failing == {
        "for": "task_retry",
        "failure": {"message": "no such field: amount", "type": "RuntimeError"},
    }
    assert (await run_of(served, name))["waiting"]["for"] == "task_retry"
    workflows.mended.add(name)
    events = await until(stream, "$run.waiting")
    while (waiting := told(events, "$run.waiting")[-1])["for"] == "task_retry":
        events = await until(stream, "$run.waiting")
    assert waiting["for"] in (None, "input")
    await handle.signal("go_on")
    assert told(await until(stream, "$run.closed"), "$run.closed")[0]["status"] == "completed"


async def test_an_activity_that_is_not_heard_of_has_stalled(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Troubled.run, "silent_at_first", 8.0)
    stream = await served.stream(name)
    events = await until(stream, "$activity.stalled")
    assert told(events, "$activity.stalled") == [
        {"activity": "1", "activity_type": "silent_at_first", "attempt": 1},
    ]
    events += await until(stream, "$run.closed")
    assert len(told(events, "$activity.stalled")) == 1


@pytest.mark.parametrize(("patience", "until_told"), [(None, False), (600.0, True)], ids=["for ever", "for a time"])
async def test_a_run_that_waits_for_somebody_says_for_what(
    client: Client, served: Served, name: str, patience: float | None, until_told: bool
) -> None:
    handle = await start(client, name, workflows.Approval.run, patience)
    stream = await served.stream(name)
    events = await until(stream, "$run.waiting")
    waiting = told(events, "$run.waiting")[0]
    assert ("until" in waiting) == until_told
    waiting.pop("until", None)
    assert waiting == {"for": "input", "signals": ["approve"], "updates": [], "details": "asks for 12 EUR"}
    assert (await run_of(served, name))["waiting"]["signals"] == ["approve"]
    await handle.signal("approve")
    events = await until(stream, "$run.closed")
    assert told(events, "$run.closed")[0]["status"] == "completed"
    assert (await run_of(served, name))["waiting"] is None


async def test_a_run_that_sleeps_waits_for_a_timer(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Sleeper.run, 600.0)
    events = await until(await served.stream(name), "$run.waiting")
    waiting = told(events, "$run.waiting")[0]
    assert waiting["for"] == "timer"
    assert waiting["until"] > events[0]["time"]
    await handle.terminate()


async def test_the_state_says_no_less_than_the_events_that_were_seen(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a run is written after its events; who asks in between is not told that it still goes on."""
    put, recording = Runs.put, asyncio.Semaphore(0)

    async def slow(runs: Runs, session: str, run: Run) -> None:
        if run.run_id != first_run or not run.open:
            await recording.acquire()
        await put(runs, session, run)

    handle = await start(client, name, workflows.Sleeper.run, 600.0)
    first_run = handle.first_execution_run_id
    stream = await served.stream(name)
    await until(stream, "$run.waiting")
    monkeypatch.setattr(Runs, "put", slow)
    await handle.terminate()
    await until(stream, "$run.closed")
    for _ in range(2):
        session = (await served.call("GET", f"/v1/sessions/{name}"))[1]
        assert (session["settled"], session["runs"][0]["status"]) == (True, "terminated")
        assert session["runs"][0]["waiting"] is None
        recording.release()
        while (await run_of(served, name))["followed"]:
            await asyncio.sleep(0.01)


async def test_the_state_does_not_say_what_no_event_has_said_yet(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, about_to, may = Teller.tell, asyncio.Event(), asyncio.Event()

    async def held(teller: Teller, publisher: str, *events: NewEvent) -> None:
        if publisher.startswith("closed:"):
            about_to.set()
            await may.wait()
        await tell(teller, publisher, *events)

    monkeypatch.setattr(Teller, "tell", held)
    handle = await start(client, name, workflows.Sleeper.run, 600.0)
    stream = await served.stream(name)
    await until(stream, "$run.started")
    await handle.terminate()
    await asyncio.wait_for(about_to.wait(), 60)
    session = (await served.call("GET", f"/v1/sessions/{name}"))[1]
    assert (session["settled"], session["runs"][0]["status"]) == (False, "running")
    may.set()
    await until(stream, "$session.settled")
    session = (await served.call("GET", f"/v1/sessions/{name}"))[1]
    assert (session["settled"], session["runs"][0]["status"]) == (True, "terminated")


async def test_a_task_that_nobody_takes_waits_for_a_worker(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_UNTAKEN", 4.0)  # the worker that is there takes a task sooner
    handle = await start(client, name, workflows.Elsewhere.run)
    nobody: Any = await client.start_workflow(workflows.Sleeper.run, 600.0, id=f"{name}-2", task_queue="not-polled")
    streams = [await served.stream(session) for session in (name, nobody.id)]
    both = await asyncio.gather(*(until(stream, "$run.waiting") for stream in streams))
    assert [told(events, "$run.waiting")[0] for events in both] == [
        {"for": "worker", "task_queue": "nobody-polls-this"},
        {"for": "worker", "task_queue": "not-polled"},
    ]
    # A worker comes: it goes on.
    async with Worker(client, task_queue="not-polled", workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        events = await until(streams[1], "$run.waiting")
        assert told(events, "$run.waiting")[0]["for"] in (None, "timer")
    await asyncio.gather(handle.terminate(), nobody.terminate())


async def test_an_activity_under_an_id_that_was_used_before_is_told_as_every_other(
    client: Client, served: Served, name: str
) -> None:
    workflows.failures_left[name] = 1
    handle = await start(client, name, workflows.Again.run, "fails_at_first", None)
    stream = await served.stream(name)
    for _ in range(2):
        retrying = told(await until(stream, "$activity.retrying", 2), "$activity.retrying")
        assert [(each["activity"], each["attempt"], each.get("over", False)) for each in retrying] == [
            ("charge", 2, False),
            ("charge", 2, True),
        ]
        while workflows.failures_left[name] >= 0:  # the next attempt has begun, and may not have come so far
            await asyncio.sleep(0.01)
        workflows.failures_left[name] = 1
        await handle.signal("again")
    await handle.terminate()


async def test_an_attempt_that_a_worker_takes_late_is_reported_once(client: Client, served: Served, name: str) -> None:
    workflows.failures_left[name] = 1
    handle = await start(client, name, workflows.Again.run, "fails_at_first", f"{name}-queue")
    stream = await served.stream(name)
    worker = partial(Worker, client, task_queue=f"{name}-queue", activities=workflows.ACTIVITIES)
    async with worker():
        (retrying,) = told(await until(stream, "$activity.retrying"), "$activity.retrying")
        assert (retrying["attempt"], "over" in retrying) == (2, False)
    async with asyncio.timeout(60):  # it is due, and the gateway has seen that
        while (await run_of(served, name))["activities"][0]["next_at"] is not None:
            await asyncio.sleep(0.1)
    async with worker():
        (retrying,) = told(await until(stream, "$activity.retrying"), "$activity.retrying")
        assert (retrying["attempt"], retrying.get("over")) == (2, True)
    await handle.terminate()


async def test_that_no_worker_is_there_is_told_each_time(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activity's attempts come and go without a word in the history."""
    monkeypatch.setattr(waiting, "_UNTAKEN", 1.0)
    handle = await start(client, name, workflows.Again.run, "silent_at_first", f"{name}-queue")
    stream = await served.stream(name)
    nobody = {"for": "worker", "task_queue": f"{name}-queue"}
    assert told(await until(stream, "$run.waiting"), "$run.waiting") == [nobody]
    async with Worker(client, task_queue=f"{name}-queue", activities=workflows.ACTIVITIES):
        assert told(await until(stream, "$run.waiting"), "$run.waiting") == [{"for": None}]
    assert told(await until(stream, "$run.waiting"), "$run.waiting") == [nobody]
    await handle.terminate()


async def test_what_was_told_is_not_told_again_by_the_next_gateway(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    handle = await start(client, name, workflows.Approval.run, None)
    async with running_gateway(temporal, tmp_path) as served:
        await until(await served.stream(name), "$run.waiting")
    async with running_gateway(temporal, tmp_path) as served:
        stream = await served.stream(name)
        # At once from the record, unless the gateway ended between the event and that. Then it looks again, for the device.
        async with asyncio.timeout(60):
            while (await run_of(served, name))["waiting"] is None:
                await asyncio.sleep(0.1)
        await until(stream, "$run.waiting")
        # It looks again whenever it is told to, and once more when this is seen.
        async with asyncio.timeout(60):
            while (await served.metric("wakeline_temporal_calls_total", call="DescribeWorkflowExecution")) < 6:
                await served.call("POST", "/v1/nudge", json={"workflow_id": name})
                await asyncio.sleep(0.1)
        assert told((await served.call("GET", f"/v1/sessions/{name}/events"))[1]["events"], "$run.waiting")[1:] == []
        await handle.signal("approve")
        events = await until(stream, "$run.closed")
        compact = (await served.call("GET", f"/v1/sessions/{name}/events?view=compact"))[1]["events"]
    assert told(events, "$run.waiting") in ([], [{"for": None}])
    # Who comes late is told the latest alone.
    assert len(told(compact, "$run.waiting")) == 1
