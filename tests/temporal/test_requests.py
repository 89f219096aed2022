"""A workflow asks people through its stream, and the answer of the first one reaches it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.commands import wakeline
from tests.support import Served
from tests.temporal import request_workflows as workflows
from tests.temporal.test_follower import running_gateway
from tests.temporal.test_runs import reset
from wakeline.gateway.rules import Follow

QUEUE = "requests"
Handle = WorkflowHandle[Any, Any]


@pytest.fixture
def name() -> str:
    return f"requests-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=[workflows.asks]):
        yield


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path) as running:
        yield running


async def until_open(served: Served, session: str, count: int = 1) -> list[dict[str, Any]]:
    """The open requests of a session, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            status, listed = await served.call("GET", f"/v1/sessions/{session}/requests")
            if status == 200 and len(listed["requests"]) == count:
                return sorted(listed["requests"], key=lambda request: str(request["id"]))
            await served.call("GET", f"/v1/sessions/{session}/events?wait=1&wait_for_start=true&from=now")


async def answer(served: Served, session: str, id: str, payload: Any) -> Any:
    body = {"payload": payload, "device": "phone"}
    status, told = await served.call("POST", f"/v1/sessions/{session}/requests/{id}", json=body)
    assert status == 200, told
    return told["outcome"]


async def topics(served: Served, session: str) -> list[str]:
    page = (await served.call("GET", f"/v1/sessions/{session}/events?limit=1000"))[1]
    return [event["topic"] for event in page["events"]]


async def test_a_workflow_asks_and_goes_on_with_the_answer(client: Client, served: Served, name: str) -> None:
    asked = {"id": "pay-1", "message": "Pay?", "choices": ["approve", "reject"], "expires": 600}
    handle = await client.start_workflow(workflows.Pays.run, asked, id=name, task_queue=QUEUE)
    (request,) = await until_open(served, name)
    assert (request["reason"], request["message"], request["choices"]) == ("approval", "Pay?", ["approve", "reject"])
    outcome = await answer(served, name, "pay-1", "approve")
    result = await handle.result()
    assert (result.status, result.payload, result.device) == ("resolved", "approve", "phone")
    assert outcome == {"request": "pay-1", "status": "resolved", "payload": "approve", "device": "phone"}
    async with asyncio.timeout(60):
        while "$run.closed" not in (seen := await topics(served, name)):
            await asyncio.sleep(0.05)
    assert [topic for topic in seen if topic.startswith(("$input", "status"))] == [
        "status",
        "$input.requested",
        "$input.resolved",
        "$input.accepted",
        "$input.completed",
        "status",
    ]
    history = await handle.fetch_history()
    signaled = [e for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED]
    assert len(signaled) == 1


async def test_a_request_that_expires_reaches_its_workflow(client: Client, served: Served, name: str) -> None:
    handle = await client.start_workflow(workflows.Pays.run, {"id": "pay-1", "expires": 0.5}, id=name, task_queue=QUEUE)
    await served.call("GET", f"/v1/sessions/{name}/events?wait=60&wait_for_start=true&topics=$input.resolved")
    assert (await handle.result()).status == "expired"


async def test_a_workflow_cancels_its_request(client: Client, served: Served, name: str) -> None:
    handle = await client.start_workflow(
        workflows.Pays.run, {"id": "pay-1", "cancels": True}, id=name, task_queue=QUEUE
    )
    await served.call("GET", f"/v1/sessions/{name}/events?wait=60&wait_for_start=true&topics=$input.resolved")
    assert (await handle.result()).status == "cancelled"


async def test_the_answer_reaches_the_next_run_of_the_chain(client: Client, served: Served, name: str) -> None:
    handle: Handle = await client.start_workflow(workflows.PaysInTheNextRun.run, id=name, task_queue=QUEUE)
    await until_open(served, name)
    await handle.signal("go_on")
    async with asyncio.timeout(60):
        while (await client.get_workflow_handle(name).describe()).run_id == handle.first_execution_run_id:
            await asyncio.sleep(0.05)
    await answer(served, name, "pay-1", "yes")
    assert (await handle.result()).payload == "yes"
    assert (await topics(served, name)).count("$input.requested") == 1


async def test_a_workflow_with_many_large_answers_continues_as_new(client: Client, name: str) -> None:
    ids = [f"pay-{number}" for number in range(40)]
    handle: Handle = await client.start_workflow(
        workflows.AsksInEveryRun.run, args=[ids, None], id=name, task_queue=QUEUE
    )
    for id in ["pending", *ids]:
        await handle.signal("wakeline_answer", {"request": id, "status": "resolved", "payload": "x" * 60_000})
    async with asyncio.timeout(60):
        pending, *others = await handle.result()
    assert pending == "pending: resolved"  # nobody has been given it before, so it is carried whole
    assert others[0] == "pay-0: OutcomeForgotten"  # an error rather than an answer without its payload
    assert others[-3:] == ["pay-37: resolved", "pay-38: resolved", "pay-39: resolved"]


async def test_requests_load_the_state_that_an_earlier_version_has_carried(client: Client, name: str) -> None:
    outcome = {"request": "pay-1", "status": "resolved", "payload": "yes"}
    carried = {"asked": ["pay-1"], "outcomes": {"pay-1": outcome}}
    handle: Handle = await client.start_workflow("PaysInTheNextRun", carried, id=name, task_queue=QUEUE)
    assert (await handle.result())["payload"] == "yes"


async def test_a_workflow_needs_only_the_topic_and_a_signal_or_update(
    client: Client, served: Served, name: str
) -> None:
    handle: Handle = await client.start_workflow(workflows.AsksOnTheOfficialStream.run, id=name, task_queue=QUEUE)
    await until_open(served, name, 2)
    first = await answer(served, name, "pay-1", 1)
    async with asyncio.timeout(60):
        while (await topics(served, name)).count("$input.completed") < 1:
            await asyncio.sleep(0.05)
    second = await answer(served, name, "pay-2", 2)
    refused, *outcomes = sorted(await handle.result(), key=lambda outcome: str(outcome["status"]))
    assert outcomes == [first, second]
    assert (refused["request"], refused["status"], refused["failure"]["type"]) == ("pay-3", "refused", "body_invalid")
    # A request that is none is an event like any other, so that its author sees it.
    assert (await topics(served, name)).count("wakeline.request") == 1


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"response_schema": {"$ref": "http://example.com/"}}, "schema_invalid"),
        ({"choices": ["a", "a"]}, "request_invalid"),
    ],
)
async def test_a_request_that_is_refused_fails_its_workflow_instead_of_waiting(
    client: Client, served: Served, name: str, asked: dict[str, Any], kind: str
) -> None:
    handle = await client.start_workflow(workflows.Pays.run, {"id": "pay-1", **asked}, id=name, task_queue=QUEUE)
    await served.call("GET", f"/v1/sessions/{name}/events?wait=20&wait_for_start=true&from=now")  # it is followed
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == kind


async def until_asked(served: Served, session: str) -> dict[str, Any]:
    """The request `pay-1`, once it is there; reading it does not have the workflow followed."""
    async with asyncio.timeout(60):
        while (found := await served.call("GET", f"/v1/sessions/{session}/requests/pay-1"))[0] != 200:
            await asyncio.sleep(0.05)
    return dict(found[1])


async def until_run(client: Client, name: str, done: Callable[[WorkflowExecutionDescription], bool]) -> str:
    async with asyncio.timeout(60):
        while not done(described := await client.get_workflow_handle(name).describe()):
            await asyncio.sleep(0.05)
    return str(described.run_id)


async def until_scheduled(client: Client, name: str, run_id: str) -> None:
    """Return when the run's activity is there; its first attempt is its only one."""
    async with asyncio.timeout(60):
        while not (await client.get_workflow_handle(name, run_id=run_id).describe()).raw_description.pending_activities:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("again", ["continued", "reset"])
@pytest.mark.parametrize("followed", [True, False])
async def test_an_activity_of_the_next_run_of_a_chain_asks_the_same_request(
    client: Client, served: Served, name: str, again: str, followed: bool
) -> None:
    """A Temporal run that the gateway has not heard of before is no other asker."""
    handle: Handle = await client.start_workflow(workflows.PaysByAnActivity.run, served.url, id=name, task_queue=QUEUE)
    asked = await until_asked(served, name)
    first = str(handle.first_execution_run_id)
    if followed:
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
    if again == "continued":
        await handle.signal("go_on")
        latest = await until_run(client, name, lambda described: described.run_id != first)
    else:
        latest = await reset(client, handle, first, 4)
    await until_scheduled(client, name, latest)
    assert await until_asked(served, name) == asked
    await answer(served, name, "pay-1", "yes")
    assert await client.get_workflow_handle(name, run_id=latest).result() == "yes"
    assert (await topics(served, name)).count("$input.requested") == 1


async def test_an_activity_of_another_run_asks_another_request(client: Client, served: Served, name: str) -> None:
    """The same workflow, started again: what was approved for the first run is not approved for this one."""
    for turn in range(2):
        handle: Handle = await client.start_workflow(
            workflows.PaysByAnActivity.run, served.url, id=name, task_queue=QUEUE
        )
        if turn == 0:
            await until_asked(served, name)
            await answer(served, name, "pay-1", "yes")
            assert await handle.result() == "yes"
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert "was asked by" in repr(caught.value.cause.__cause__)


async def test_another_run_does_not_get_the_answer_that_an_earlier_one_received(
    client: Client, served: Served, name: str
) -> None:
    """An approval for one run is none for the next one of the same Workflow Id."""
    for turn in range(2):
        handle = await client.start_workflow(workflows.Pays.run, {"id": "pay-1"}, id=name, task_queue=QUEUE)
        if turn == 0:
            await until_open(served, name)
            await answer(served, name, "pay-1", "yes")
            await handle.result()
    async with asyncio.timeout(60):  # reading has the new run found
        while "wakeline.request" not in await topics(served, name):
            await asyncio.sleep(0.2)
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "request_conflict"


async def test_nobody_answers_a_workflow_before_it_asks(client: Client, served: Served, name: str) -> None:
    """A request over HTTP that takes the id of the workflow's is no approval for it."""
    asked = {"id": "pay-1", "waits": True, "audience": "boss"}
    handle = await client.start_workflow(workflows.Pays.run, asked, id=name, task_queue=QUEUE)
    forged: dict[str, Any] = {"id": "pay-1", "reason": "approval", "deliver": {}}
    path = f"/v1/sessions/{name}/requests"
    status, refused = await served.call("POST", path, json=forged)
    assert (status, refused["error"]["code"]) == (400, "request_invalid")
    del forged["deliver"]
    assert (await served.call("POST", path, json=forged))[0] == 200
    await answer(served, name, "pay-1", "yes")
    await handle.signal("go_on")
    await served.call("GET", f"/v1/sessions/{name}/events?wait=20&wait_for_start=true&from=now")  # it is followed
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "request_conflict"


async def test_an_answer_is_delivered_by_the_next_gateway(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first gateway ends after the answer is in the log, and before its run has it."""
    from wakeline.gateway.requests import delivering

    handle = await client.start_workflow(workflows.Pays.run, {"id": "pay-1"}, id=name, task_queue=QUEUE)

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(delivering, "deliver", never)
        async with running_gateway(temporal, tmp_path / "data") as first:
            await until_open(first, name)
            await answer(first, name, "pay-1", "yes")
    async with running_gateway(temporal, tmp_path / "data"):
        assert (await handle.result()).payload == "yes"


@pytest.mark.parametrize("one", ["", "/pay-1"])
async def test_who_reads_requests_has_the_run_followed_and_its_question_asked(
    client: Client, served: Served, name: str, one: str
) -> None:
    path = f"/v1/sessions/{name}/requests"
    status, refused = await served.call("GET", path)
    assert (status, refused["error"]["code"]) == (404, "session_not_found")
    assert "Temporal has no workflow of this id either" in refused["error"]["hint"]
    await client.start_workflow(workflows.Pays.run, {"id": "pay-1", "expires": 600}, id=name, task_queue=QUEUE)
    status, refused = await served.call("POST", f"{path}/pay-1", json={"payload": "approve"})
    assert (status, refused["error"]["code"]) == (404, "request_not_found")
    assert "its events or requests are read" in refused["error"]["hint"]
    assert "a [[follow]] rule finds it" in refused["error"]["hint"]
    assert "not followed yet has not been read" in refused["error"]["hint"]
    async with asyncio.timeout(60):
        while "pay-1" not in str(await served.call("GET", path + one)):
            await asyncio.sleep(0.05)


async def test_a_request_of_a_run_that_has_ended_says_so_and_can_still_be_answered(
    client: Client, served: Served, name: str
) -> None:
    path = f"/v1/sessions/{name}/requests"
    asked = {"id": "pay-1", "choices": ["approve", "reject"], "expires": 600}
    handle = await client.start_workflow(workflows.Pays.run, asked, id=name, task_queue=QUEUE)
    (request,) = await until_open(served, name)
    assert "run_closed" not in request
    await handle.terminate()
    async with asyncio.timeout(60):
        while "$run.closed" not in await topics(served, name):
            await asyncio.sleep(0.05)
    (request,) = await until_open(served, name)
    assert request["run_closed"] is True
    assert (await served.call("GET", f"{path}/pay-1"))[1]["run_closed"] is True
    code, out, _ = await wakeline("requests", "list", name, "--url", served.url)
    assert (code, json.loads(out)["run_closed"]) == (0, True)
    code, out, err = await wakeline("requests", "answer", name, "pay-1", "approve", "--url", served.url)
    assert (code, json.loads(out)["status"]) == (0, "resolved")
    assert err == "The run that asked pay-1 has ended: nothing may come of this answer.\n"
    assert "run_closed" not in (await served.call("GET", f"{path}/pay-1"))[1], "it is closed, like its run"


async def test_the_answer_that_ends_its_run_does_not_say_that_the_run_has_ended(
    client: Client, served: Served, name: str
) -> None:
    handle = await client.start_workflow(workflows.Pays.run, {"id": "pay-1", "expires": 600}, id=name, task_queue=QUEUE)
    await until_open(served, name)
    path, body = f"/v1/sessions/{name}/requests/pay-1", {"payload": "approve", "device": "phone"}
    assert "run_closed" not in (await served.call("POST", path, json=body))[1]
    await handle.result()
    async with asyncio.timeout(60):
        while "$run.closed" not in await topics(served, name):
            await asyncio.sleep(0.05)
    status, again = await served.call("POST", path, json=body)
    assert (status, again["status"], "run_closed" in again) == (200, "resolved", False)


async def test_a_rule_has_the_questions_of_workflows_asked_that_nobody_reads(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    rules = (Follow(workflow_type="Pays", workflow_id=f"{name}*"),)
    async with running_gateway(temporal, tmp_path, follow=rules, sweep_interval=0.2) as served:
        await client.start_workflow(workflows.Pays.run, {"id": "pay-1", "expires": 600}, id=name, task_queue=QUEUE)
        async with asyncio.timeout(60):
            while (await served.call("GET", f"/v1/sessions/{name}/requests/pay-1"))[0] == 404:
                await asyncio.sleep(0.05)
