"""A device starts its session's workflow: once for each key, alone or with the first message."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import TerminateWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.gateways import GatewayProcess
from tests.sharing import SharedStore
from tests.support import Served
from tests.temporal import input_workflows as workflows
from tests.temporal.test_encryption import BARE
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_inputs import log, put, until_logged
from tests.tokens import SECRET, bearer
from wakeline.gateway.inputs import carrying, starting
from wakeline.gateway.inputs.starting import start
from wakeline.gateway.inputs.steps import Seen, Unanswered
from wakeline.gateway.rules import InputRules, Start

QUEUE = "input-starts"
Call = Callable[..., Awaitable[Seen]]


def rules(**changed: Any) -> InputRules:
    rule: dict[str, Any] = {
        "sessions": ("chat-*",),
        "workflow_type": "Listens",
        "task_queue": QUEUE,
        "args": [[]],
        "update": True,
    }
    return InputRules(start={"chat": Start(**rule | changed)})


@pytest.fixture
async def name(client: Client) -> AsyncIterator[str]:
    name = f"chat-{uuid.uuid4().hex[:8]}"
    yield name
    with suppress(RPCError):
        await client.workflow_service.terminate_workflow_execution(
            TerminateWorkflowExecutionRequest(
                namespace=client.namespace, workflow_execution=WorkflowExecution(workflow_id=name)
            )
        )


@pytest.fixture(autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS):
        yield


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path, inputs=rules()) as running:
        yield running


async def heard(client: Client, name: str) -> list[str]:
    found: list[str] = await client.get_workflow_handle(name).query("all_heard")
    return found


async def run_ids(client: Client, name: str, count: int) -> list[str]:
    """The workflow's runs, once visibility has so many."""
    async with asyncio.timeout(60):
        while len(found := [run.run_id async for run in client.list_workflows(f"WorkflowId = '{name}'")]) < count:
            await asyncio.sleep(0.05)
    return found


async def ended(client: Client, name: str) -> None:
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(name)
    await handle.signal("end")
    async with asyncio.timeout(60):
        while (await handle.describe()).status is not WorkflowExecutionStatus.COMPLETED:
            await asyncio.sleep(0.02)


async def test_a_device_starts_the_workflow_of_its_session(client: Client, served: Served, name: str) -> None:
    stream = asyncio.create_task(until_logged(served, name, "$run.started"))
    body = {"id": "k1", "kind": "start", "args": [["given"]]}
    status, answer = await served.call("POST", f"/v1/sessions/{name}/inputs", json=body)
    (run_id,) = await run_ids(client, name, 1)
    assert (status, answer) == (
        200,
        {"id": "k1", "status": "completed", "result": {"run": run_id, "workflow_id": name}},
    )
    assert await heard(client, name) == ["given"]
    await stream
    events = await log(served, name)
    assert told(events, "$input.accepted") == [{"id": "k1", "kind": "start", "name": "chat"}]
    assert [event["run"] for event in events if event["topic"] == "$input.completed"] == [run_id]
    assert await served.call("POST", f"/v1/sessions/{name}/inputs", json=body) == (status, answer)


async def test_a_start_of_a_workflow_that_runs_completes_with_its_run(
    client: Client, temporal: WorkflowEnvironment, served: Served, tmp_path: Path, name: str
) -> None:
    started = await client.start_workflow("Listens", [], id=name, task_queue=QUEUE)
    assert (await put(served, name, "start", ""))[1]["result"]["run"] == started.first_execution_run_id
    async with running_gateway(temporal, tmp_path / "2", inputs=rules(id_conflict="fail")) as strict:
        status, answer = await put(strict, name, "start", "chat")
    assert (status, answer["status"], answer["failure"]["type"]) == (200, "rejected", "WorkflowAlreadyStarted")


async def test_the_first_message_starts_the_workflow_and_the_second_goes_to_its_run(
    client: Client, served: Served, name: str
) -> None:
    _, answer = await put(served, name, "update", "approve", "first", id="k1")
    assert (answer["status"], answer["result"]) == ("completed", {"approved": "first"})
    _, answer = await put(served, name, "update", "approve", "second", id="k2")
    assert answer["result"] == {"approved": "second"}
    assert await heard(client, name) == ["first", "second"]
    await until_logged(served, name, "$run.started")
    assert len(await run_ids(client, name, 1)) == 1


async def test_after_the_run_has_ended_the_next_message_starts_another_one(
    client: Client, served: Served, name: str
) -> None:
    await put(served, name, "update", "approve", "first")
    await ended(client, name)
    _, answer = await put(served, name, "update", "approve", "second")
    assert answer["result"] == {"approved": "second"}
    assert await heard(client, name) == ["second"]
    assert len(await run_ids(client, name, 2)) == 2


async def test_a_rule_may_forbid_another_start(temporal: WorkflowEnvironment, tmp_path: Path, name: str) -> None:
    async with running_gateway(temporal, tmp_path, inputs=rules(id_reuse="reject_duplicate")) as served:
        await put(served, name, "update", "approve", "first")
        await ended(temporal.client, name)
        for kind, method in (("update", "approve"), ("start", "")):
            _, answer = await put(served, name, kind, method, *(["second"] if method else []))
            assert (answer["status"], answer["failure"]["type"]) == ("rejected", "WorkflowAlreadyStarted")


async def test_a_message_that_the_new_run_refuses_is_rejected(client: Client, served: Served, name: str) -> None:
    _, answer = await put(served, name, "update", "approve", "nothing")
    assert answer["failure"] == {"message": "there is nothing to approve", "type": "Nothing"}
    assert await heard(client, name) == []


async def test_a_message_that_waits_is_followed_before_it_is_answered(served: Served, name: str) -> None:
    assert (await put(served, name, "update", "waits", "first", id="k1", wait=0))[0] == 202
    await until_logged(served, name, "$run.started")
    await put(served, name, "signal", "release")
    assert await until_logged(served, name, "$input.completed")
    assert (await put(served, name, "update", "waits", "first", id="k1"))[1]["result"] == "released"


async def test_a_workflow_with_an_id_of_its_own_speaks_in_the_session(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    mine = rules(workflow_id="agent/{session}", update=False)
    async with running_gateway(temporal, tmp_path, inputs=mine) as served:
        status, answer = await put(served, name, "update", "approve", "first")
        assert (status, answer["error"]["code"]) == (404, "session_not_found")
        _, answer = await put(served, name, "update", "approve", "first", start="chat")
        assert answer["result"] == {"approved": "first"}
        await until_logged(served, name, "$run.started")
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(f"agent/{name}")
        assert await (await handle.describe()).memo_value("wakeline.session") == name
        await handle.signal("end")
        await until_logged(served, name, "$run.closed")


async def test_starts_that_are_refused(served: Served, temporal: WorkflowEnvironment, tmp_path: Path) -> None:
    for how in (
        {"kind": "start", "name": "other"},
        {"kind": "update", "name": "approve", "start": "other"},
        {"kind": "signal", "name": "say", "start": "chat"},
        {"kind": "start", "run": "r"},
    ):
        status, answer = await served.call("POST", "/v1/sessions/chat-1/inputs", json={"id": "k", **how})
        assert (status, answer["error"]["code"]) == (400, "request_invalid")
    other = f"/v1/sessions/other-{uuid.uuid4()}"
    status, answer = await served.call("POST", f"{other}/inputs", json={"id": "k", "kind": "start"})
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    assert "inputs.start" in answer["error"]["hint"]
    assert (await served.call("GET", other))[0] == 404


async def test_a_token_names_the_starts_that_it_allows(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    settings = {"no_auth": False, "token_secret": SECRET, "inputs": rules()}
    async with running_gateway(temporal, tmp_path, **settings) as served:
        path, body = f"/v1/sessions/{name}/inputs", {"kind": "update", "name": "approve", "args": ["hello"]}

        async def sent(key: str, inputs: list[str], **more: Any) -> tuple[int, Any]:
            return await served.call("POST", path, json={**body, "id": key, **more}, headers=bearer(inputs=inputs))

        for names in (["approve"], ["*"], ["approve", "$start.other"]):
            status, answer = await sent("k1", names)
            assert (status, answer["error"]["code"]) == (404, "session_not_found")
            status, answer = await sent("k1", names, start="chat")
            assert (status, answer["error"]["code"]) == (403, "not_allowed")
        status, answer = await sent("k1", ["$start"], start="chat")
        assert (status, answer["error"]["code"]) == (403, "not_allowed")
        assert (await sent("k2", ["approve", "$start.chat"]))[1]["result"] == {"approved": "hello"}
        assert (await sent("k3", ["$start"], kind="start", name="chat", args=[]))[0] == 200
        assert (await sent("k4", ["approve"]))[1]["status"] == "completed"
    assert await heard(client, name) == ["hello", "hello"]


async def test_arguments_of_a_start_are_checked_against_the_schema_of_its_rule(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    schema = {"prefixItems": [{"type": "array", "items": {"type": "string"}}]}
    checked = msgspec.structs.replace(rules(), schemas={"$start.chat": schema})
    async with running_gateway(temporal, tmp_path, inputs=checked) as served:
        status, answer = await put(served, name, "start", "chat", [1])
        assert (status, answer["error"]["code"]) == (400, "value_invalid")
        assert (await served.call("GET", f"/v1/sessions/{name}"))[0] == 404
        await put(served, name, "start", "chat", ["given"])
    assert await heard(client, name) == ["given"]


async def test_arguments_of_a_start_reach_the_workflow_by_default_from_the_rule(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, inputs=rules(args=[["from the rule"]])) as served:
        await put(served, name, "start", "chat")
    assert await heard(client, name) == ["from the rule"]


def once(first: Call) -> Call:
    """The first start is another one than the rest."""
    calls = iter([first])

    async def started(*how: Any) -> Seen:
        return await next(calls, start)(*how)

    return started


@pytest.mark.parametrize("since", ["open", "ended", "continued and ended", "another one", "another one ended"])
@pytest.mark.parametrize("kind", ["start", "update"])
async def test_a_start_without_an_answer_is_not_repeated(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch, kind: str, since: str
) -> None:
    """Whatever has become of the run since then."""

    async def without_answer(*how: Any) -> Seen:
        await start(*how)
        if since == "continued and ended":
            before = (await client.get_workflow_handle(name).describe()).run_id
            await client.get_workflow_handle(name).signal("go_on")
            async with asyncio.timeout(60):
                while (await client.get_workflow_handle(name).describe()).run_id == before:
                    await asyncio.sleep(0.02)
        if since != "open":
            await ended(client, name)
        if since.startswith("another"):
            await client.start_workflow("Listens", ["another"], id=name, task_queue=QUEUE)
        if since == "another one ended":
            await ended(client, name)
        return Unanswered()

    monkeypatch.setattr(carrying, "start", once(without_answer))
    args = ["hello"] if kind == "update" else []
    _, answer = await put(served, name, kind, "approve" if kind == "update" else "chat", *args)
    assert answer["status"] == "completed"
    expected = {"open": 1, "ended": 1}.get(since, 2)
    assert len(await run_ids(client, name, expected)) == expected
    theirs = ["another"] if since.startswith("another") else args
    assert await heard(client, name) == theirs


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("kind", ["start", "update"])
async def test_a_start_is_carried_on_by_the_next_gateway(
    temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, kind: str, sent: bool
) -> None:
    reached = asyncio.Event()

    async def stuck(*how: Any) -> Seen:
        if sent:
            await start(*how)
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(carrying, "start", stuck)
    args = ["hello"] if kind == "update" else []
    async with running_gateway(temporal, tmp_path, inputs=rules()) as served:
        method = "approve" if kind == "update" else "chat"
        assert (await put(served, name, kind, method, *args, id="k1", wait=0))[0] == 202
        await asyncio.wait_for(reached.wait(), 60)
    if sent:
        await ended(temporal.client, name)
    monkeypatch.setattr(carrying, "start", start)
    async with running_gateway(temporal, tmp_path) as served:  # the rule is no longer needed
        (completed,) = await until_logged(served, name, "$input.completed")
        assert completed["id"] == "k1"
        await until_logged(served, name, "$run.started")
    assert len(await run_ids(temporal.client, name, 1)) == 1
    assert await heard(temporal.client, name) == args


async def test_a_start_does_not_begin_its_session_again_that_was_deleted_meanwhile(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, may_start = asyncio.Event(), asyncio.Event()

    async def late(*how: Any) -> Seen:
        reached.set()
        await may_start.wait()
        return await start(*how)

    monkeypatch.setattr(carrying, "start", late)
    assert (await put(served, name, "start", "chat", id="k1", wait=0))[0] == 202
    await asyncio.wait_for(reached.wait(), 60)
    assert (await served.call("DELETE", f"/v1/sessions/{name}"))[0] == 204
    may_start.set()
    async with asyncio.timeout(60):
        while await served.metric("wakeline_inputs_pending"):
            await asyncio.sleep(0.05)
    assert len(await run_ids(client, name, 1)) == 1
    assert (await served.call("GET", "/v1/sessions"))[1]["sessions"] == []


async def test_two_gateways_that_get_the_same_first_message_start_once(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    store = SharedStore()
    async with (
        running_gateway(temporal, tmp_path, store.engine(seed=1), lease=1.0, inputs=rules()) as one,
        running_gateway(temporal, tmp_path, store.engine(seed=2), lease=1.0, inputs=rules()) as two,
    ):
        calls = [put(served, name, "update", "approve", key, id=key) for key in ("a", "b") for served in (one, two)]
        answers = await asyncio.gather(*calls)
        assert {(status, answer["status"]) for status, answer in answers} == {(200, "completed")}
        await until_logged(two, name, "$run.started")
    assert Counter(await heard(client, name)) == Counter(["a", "b"])
    assert len(await run_ids(client, name, 1)) == 1


@pytest.mark.usefixtures("forks")
async def test_first_messages_start_once_through_dropped_answers_and_kills(
    client: Client, tmp_path: Path, name: str
) -> None:
    """Every answer is dropped once, and the gateway is killed as soon as a message is accepted."""
    rule = {"sessions": ["chat-*"], "workflow_type": "Listens", "task_queue": QUEUE, "args": [[]], "update": True}
    environment = {"WAKELINE_INPUTS": json.dumps({"start": {"chat": rule}})}
    server = client.service_client.config.target_host
    gateway = GatewayProcess(tmp_path / "data", "--temporal", server, environment=environment)
    names = [f"{name}-{number}" for number in range(6)]

    async def sent(session: str) -> tuple[int, str]:
        dropped = False
        body = {"id": "k1", "kind": "update", "name": "approve", "args": [session]}
        while True:
            try:
                async with http.post(f"{gateway.url}/v1/sessions/{session}/inputs", json=body) as answer:
                    said = await answer.json()
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
                continue
            if dropped and answer.status not in (202, 503):
                return answer.status, said["status"]
            dropped = True

    async def accepted(session: str) -> None:
        while True:
            async with http.get(f"{gateway.url}/v1/sessions/{session}/inputs/k1") as answer:
                if answer.status in (200, 202):
                    return
            await asyncio.sleep(0.005)

    await gateway.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http, asyncio.timeout(120):
        for begin in range(0, len(names), 2):
            sending = [asyncio.create_task(sent(each)) for each in names[begin : begin + 2]]
            await accepted(names[begin])
            await gateway.kill()
            await gateway.start()
            assert await asyncio.gather(*sending) == [(200, "completed")] * 2
    await gateway.stop()
    for each in names:
        assert await heard(client, each) == [each]
        assert len(await run_ids(client, each, 1)) == 1
        await client.get_workflow_handle(each).terminate()


async def test_a_first_message_waits_for_a_worker_and_its_run_is_followed_meanwhile(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_ACCEPTED_TIMEOUT", timedelta(seconds=0.5))
    queue = f"{QUEUE}-{name}"
    async with running_gateway(temporal, tmp_path, inputs=rules(task_queue=queue)) as served:
        assert (await put(served, name, "update", "approve", "hello", id="k1", wait=0))[0] == 202
        await until_logged(served, name, "$run.started")
        async with Worker(client, task_queue=queue, workflows=workflows.WORKFLOWS):
            _, answer = await put(served, name, "update", "approve", "hello", id="k1")
            assert answer["result"] == {"approved": "hello"}
            assert await heard(client, name) == ["hello"]
            await client.get_workflow_handle(name).signal("end")
            await until_logged(served, name, "$run.closed")
    assert len(await run_ids(client, name, 1)) == 1


async def test_a_start_passes_through_the_gateway_s_codec(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    config = client.config(active_config=True)
    config["data_converter"] = BARE
    secret, queue = Client(**config), f"{QUEUE}-secret"
    mine = rules(task_queue=queue, workflow_id="agent/{session}", args=[["a secret"]])
    codec = "tests.temporal.test_encryption:BARE"
    async with (
        running_gateway(temporal, tmp_path, data_converter=codec, inputs=mine) as served,
        Worker(secret, task_queue=queue, workflows=workflows.WORKFLOWS),
    ):
        _, answer = await put(served, name, "update", "approve", "another")
        assert answer["result"] == {"approved": "another"}
        handle: WorkflowHandle[Any, Any] = secret.get_workflow_handle(f"agent/{name}")
        assert await handle.query("all_heard") == ["a secret", "another"]
        assert await (await handle.describe()).memo_value("wakeline.session") == name
        history = (await handle.fetch_history()).to_json()
        assert "another" not in history
        await handle.signal("end")
        await until_logged(served, name, "$run.closed")
