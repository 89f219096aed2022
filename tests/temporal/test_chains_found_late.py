"""A chain that is found when it has gone on, or is over: what its earlier runs said is told, too, as far as it can be had."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.temporal import follower_workflows, run_workflows
from tests.temporal.deployed_workflows import AfterTheDeploy, BeforeTheDeploy
from tests.temporal.follower_workflows import Retried, Round, Rounds
from tests.temporal.run_workflows import Chapters, Forgets
from tests.temporal.test_follower import running_gateway
from tests.temporal.test_run_endings import data, has, until
from wakeline.gateway.following.finding import chain
from wakeline.gateway.following.life.observations import WorkerSeen
from wakeline.gateway.following.rests import Rests
from wakeline.gateway.following.watching import waiting
from wakeline.temporal.chains import Start, start_of

RETRIES = RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=1, maximum_attempts=3)


@pytest.fixture
def name() -> str:
    return f"late/{uuid.uuid4().hex[:8]}"


def worker(client: Client, name: str, *others: type) -> Worker:
    workflows = others or (*follower_workflows.WORKFLOWS, *run_workflows.WORKFLOWS)
    return Worker(client, task_queue=name, workflows=workflows)


def reasons(log: list[dict[str, Any]]) -> list[str]:
    return [continued["reason"] for continued in data(log, "$run.continued")]


async def after_its_end(client: Client, temporal: WorkflowEnvironment, data: Path, name: str) -> list[dict[str, Any]]:
    """What a first device is told of a workflow that was over before any gateway knew it."""
    async with running_gateway(temporal, data) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        return await until(served, name, has("$session.settled"))


async def test_every_attempt_of_a_retried_workflow_is_told(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await client.start_workflow(Retried.run, id=name, task_queue=name, retry_policy=RETRIES)
        await handle.result()
        log = await after_its_end(client, temporal, tmp_path, name)
    assert data(log, "attempt") == [1, 2, 3]
    assert reasons(log) == ["retry", "retry"]
    assert [continued["drained"] for continued in data(log, "$run.continued")] == [True, True]
    (started,), (closed,) = data(log, "$run.started"), data(log, "$run.closed")
    assert started["run_id"] == handle.first_execution_run_id
    assert (closed["status"], closed["drained"]) == ("completed", True)
    assert {event["run"] for event in log[:-1]} == {handle.first_execution_run_id}


async def test_a_run_that_was_given_the_stream_of_those_before_it_tells_it_alone(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await client.start_workflow(Rounds.run, Round(0, 3), id=name, task_queue=name)
        await handle.result()
        log = await after_its_end(client, temporal, tmp_path, name)
    assert data(log, "number") == list(range(12))
    assert reasons(log) == []


async def test_of_a_very_long_chain_the_last_runs_are_told(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "MOST_BEFORE", 2)
    async with worker(client, name):
        handle = await client.start_workflow(Forgets.run, 4, id=name, task_queue=name)
        await handle.result()
        log = await after_its_end(client, temporal, tmp_path, name)
    words = [f"{left} left, word {word}" for left in (2, 1, 0) for word in range(3 - left, 5)]
    assert data(log, "said") == words
    (started,) = data(log, "$run.started")
    assert started["run_id"] != handle.first_execution_run_id
    assert started["run_id"] == data(log, "$run.continued")[0]["previous_run_id"]


@pytest.mark.parametrize("times", [1, 1000])
async def test_what_temporal_no_longer_has_is_left_out_if_it_says_so_more_than_once(
    client: Client,
    temporal: WorkflowEnvironment,
    tmp_path: Path,
    name: str,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def forgetful(client: Client, workflow_id: str, run_id: str) -> Start:
        asked.append(run_id)
        if run_id == handle.first_execution_run_id and asked.count(run_id) <= times:
            raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
        return await start_of(client, workflow_id, run_id)

    monkeypatch.setattr(chain, "start_of", forgetful)
    async with worker(client, name):
        handle = await client.start_workflow(Retried.run, id=name, task_queue=name, retry_policy=RETRIES)
        await handle.result()
        log = await after_its_end(client, temporal, tmp_path, name)
    assert data(log, "attempt") == ([1, 2, 3] if times == 1 else [2, 3])
    assert [closed["status"] for closed in data(log, "$run.closed")] == ["completed"]


async def test_the_end_is_told_although_no_worker_can_tell_what_any_run_of_the_chain_said(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await client.start_workflow(Retried.run, id=name, task_queue=name, retry_policy=RETRIES)
        await handle.result()
    async with running_gateway(temporal, tmp_path, drain_grace=1.0) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        log = await until(served, name, has("$session.settled"))
        assert data(log, "attempt") == []
        assert data(log, "$run.closed")[0]["drained"] is False
    # The next gateway knows as well what is owed.
    async with running_gateway(temporal, tmp_path) as served, worker(client, name):
        log = await until(served, name, has("$run.drained"))
    assert data(log, "attempt") == [1, 2, 3]
    assert log[-1]["topic"] == "$run.drained"


async def test_while_no_worker_is_there_a_chain_that_goes_on_is_told_to_wait_for_one(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_UNTAKEN", 0.5)
    async with worker(client, name):
        await client.start_workflow(Chapters.run, 0, id=name, task_queue=name)
        await turn_to(client, name, 1)
    latest = client.get_workflow_handle(name)
    await latest.signal(Chapters.go)
    async with running_gateway(temporal, tmp_path, drain_grace=5.0) as served:
        stream = await served.stream(name)
        async with asyncio.timeout(60):
            while (event := await stream.next())["topic"] != "$run.waiting":
                assert event["topic"] == "$run.started"
        assert event["data"] == {"for": "worker", "task_queue": name}
        path = f"/v1/sessions/{quote(name, safe='')}"
        (run,) = (await served.call("GET", path))[1]["runs"]
        assert (run["status"], run["waiting"]) == ("running", event["data"])
        async with worker(client, name):
            log = await until(served, name, has("said", 6))
        await latest.terminate()
    assert data(log, "$run.waiting")[:2] == [event["data"], {"for": None}]
    assert data(log, "said") == [f"chapter {chapter}, word {word}" for chapter in range(3) for word in range(2)]
    assert [continued["drained"] for continued in data(log, "$run.continued")] == [True, True]


async def test_a_next_run_that_has_not_begun_does_not_count_as_a_worker_that_is_there(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Rests.ask_worker

    async def counted(rests: Rests, run_id: str) -> WorkerSeen:
        asked.append(run_id)
        return await ask(rests, run_id)

    monkeypatch.setattr(Rests, "ask_worker", counted)
    later = RetryPolicy(initial_interval=timedelta(hours=1), maximum_attempts=3)
    async with worker(client, name):
        first = await client.start_workflow(Retried.run, id=name, task_queue=name, retry_policy=later)
        async with asyncio.timeout(60):
            while (latest := await client.get_workflow_handle(name).describe()).run_id == first.first_execution_run_id:
                await asyncio.sleep(0.05)
    async with running_gateway(temporal, tmp_path, drain_grace=5.0) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        log = await until(served, name, lambda log: len(asked) > 1 or has("$run.continued")(log))
        assert set(asked) == {latest.run_id}
        assert data(log, "$run.continued") == []
        async with worker(client, name):
            log = await until(served, name, has("$run.continued"))
        await client.get_workflow_handle(name).terminate()
    assert data(log, "attempt") == [1]
    assert [continued["drained"] for continued in data(log, "$run.continued")] == [True]


async def test_a_chain_that_was_terminated_without_a_worker_ends_and_then_has_all_that_it_said(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await client.start_workflow(Chapters.run, 0, id=name, task_queue=name)
        async with running_gateway(temporal, tmp_path) as served:
            await served.call("POST", "/v1/runs", json={"workflow_id": name})
            await until(served, name, has("said"))
        for chapter in (1, 2):
            await turn_to(client, name, chapter)
    await client.get_workflow_handle(name).terminate("enough")
    async with running_gateway(temporal, tmp_path, drain_grace=1.0) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        log = await until(served, name, has("$session.settled"))
        closed = data(log, "$run.closed")
        assert [(end["status"], end["drained"]) for end in closed] == [("terminated", False)]
        async with worker(client, name):
            log = await until(served, name, has("$run.drained"))
    assert data(log, "said") == [f"chapter {chapter}, word {word}" for chapter in range(3) for word in range(2)]
    assert len({event["run"] for event in log if "run" in event}) == 1
    assert data(log, "$run.started")[0]["run_id"] == handle.first_execution_run_id


async def test_what_activities_publish_is_of_the_chain_s_run_before_its_stream_has_been_read_so_far(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with worker(client, name):
        handle = await client.start_workflow(Chapters.run, 0, id=name, task_queue=name)
        await turn_to(client, name, 1)
    latest = (await client.get_workflow_handle(name).describe()).run_id
    # No worker is there any more: the first run is waited for.
    async with running_gateway(temporal, tmp_path, drain_grace=1.0) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        path = f"/v1/sessions/{quote(name, safe='')}/events"
        said = {"events": [{"topic": "token", "data": "a"}]}
        who = {"Wakeline-Publisher": "activity", "Wakeline-Sequence": "0", "Wakeline-Run": latest}
        assert (await served.call("POST", path, json=said, headers=who))[0] == 200
        log = await until(served, name, has("token"))
    assert {event["run"] for event in log} == {handle.first_execution_run_id}
    await client.get_workflow_handle(name).terminate()


async def turn_to(client: Client, name: str, chapter: int) -> None:
    """Have the next chapter told, which is this one; return when its worker has begun with it."""
    await client.get_workflow_handle(name).signal(Chapters.go)
    async with asyncio.timeout(60):
        while await chapter_of(client, name) < chapter:
            await asyncio.sleep(0.05)


async def chapter_of(client: Client, name: str) -> int:
    """How many chapters there were before the one that its worker has begun to tell."""
    latest = await client.get_workflow_handle(name).describe()
    begun = latest.history_length > 3
    run_id, count = latest.run_id, 0 if begun else -1
    while True:
        history = await client.get_workflow_handle(name, run_id=run_id).fetch_history()
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            return count
        count += 1


async def test_runs_that_no_worker_can_replay_any_more_do_not_keep_what_comes_from_being_told(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1)
    async with worker(client, name, BeforeTheDeploy):
        await client.start_workflow("Deployed", id=name, task_queue=name, retry_policy=policy)
        async with asyncio.timeout(60):
            while await retries(client, name) < 2:
                await asyncio.sleep(0.02)
    async with worker(client, name, AfterTheDeploy), running_gateway(temporal, tmp_path, drain_grace=5.0) as served:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        log = await until(served, name, has("attempt"))
        continued = data(log, "$run.continued")
        assert len(continued) >= 2
        assert not any(each["drained"] for each in continued)
        assert data(log, "attempt") == [len(continued) + 1]
        await client.get_workflow_handle(name).terminate()
        log = await until(served, name, has("$session.settled"))
        assert data(log, "$run.closed")[0]["drained"] is True


async def retries(client: Client, name: str) -> int:
    """How often a workflow has been retried."""
    latest = await client.get_workflow_handle(name).describe()
    history = await client.get_workflow_handle(name, run_id=latest.run_id).fetch_history()
    return history.events[0].workflow_execution_started_event_attributes.attempt - 1
