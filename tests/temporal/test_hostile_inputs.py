"""Inputs of somebody who means harm, and workflows that answer badly: each gets an answer, and nobody else notices."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, RegisterNamespaceRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.sharing import Faults, SharedStore
from tests.soak import times
from tests.support import Served
from tests.temporal.hostile_workflows import Answers
from tests.temporal.input_workflows import Listens
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_following_faults import until_made
from tests.temporal.test_inputs import log, once, put, until_logged
from tests.tokens import SECRET, bearer
from wakeline.cli.processes import TemporalServer
from wakeline.gateway.app import gateway
from wakeline.gateway.inputs import carrying
from wakeline.gateway.inputs.sending import send
from wakeline.gateway.inputs.steps import Seen, Unanswered
from wakeline.gateway.rules import Follow, Namespace
from wakeline.gateway.settings import Settings

QUEUE = "hostile"
DEEPEST = 128
AWAY = times(2, 4)  # seconds for which Temporal is away
KEYS = ["a/b", "..a", "%2e%2e", "%00", "?a=b#c", '"\\', "<script>", "$cancel", "{input}", "~" * 128]
Handle = WorkflowHandle[Any, Any]


@pytest.fixture
def name() -> str:
    return f"hostile-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=[Answers, Listens]):
        yield


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path) as running:
        yield running


async def answering(client: Client, name: str) -> Handle:
    await client.start_workflow(Answers.run, id=name, task_queue=QUEUE, execution_timeout=timedelta(minutes=4))
    return client.get_workflow_handle(name)


async def listening(client: Client, name: str) -> Handle:
    timeout = timedelta(minutes=4)
    await client.start_workflow(Listens.run, [], id=name, task_queue=QUEUE, execution_timeout=timeout)
    return client.get_workflow_handle(name)


async def test_hostile_keys_name_inputs_like_all_others(client: Client, served: Served, name: str) -> None:
    handle = await answering(client, name)
    for key in KEYS:
        body = {"id": key, "kind": "signal", "name": "say", "args": [key], "wait": 0}
        async with served.http.post(f"/v1/sessions/{name}/inputs", json=body) as answer:
            assert answer.status == 202
            where = answer.headers["Location"]
        async with asyncio.timeout(60):
            while (found := await served.call("GET", where))[0] == 202:
                await asyncio.sleep(0.02)
        assert found == (200, {"id": key, "status": "completed"})
        assert await served.call("GET", f"/v1/sessions/{name}/inputs/{quote(key, safe='')}") == found
    assert await handle.query("all_heard") == KEYS


BAD_RESULTS = [
    "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1),
    "[" * DEEPEST + "]" * DEEPEST,
    "[" * 3_000 + "]" * 3_000,
    '"\xff"',
    '{"a":\r\n 1}',
    "1e999",
    '"\\ud800"',
    "{",
    "",
]


@pytest.mark.parametrize("result", BAD_RESULTS, ids=range(len(BAD_RESULTS)))
async def test_whatever_an_update_or_a_run_returns_is_reported(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str, result: str
) -> None:
    rule = Follow(workflow_id=name, result=True)
    async with running_gateway(temporal, tmp_path, follow=(rule,), sweep_interval=1.0) as served:
        await answering(client, name)
        status, answer = await put(served, name, "update", "bytes_of", result, id="k1")
        assert (status, answer["status"]) == (200, "completed")
        assert {"result", "result_payload"} & set(answer)
        await put(served, name, "signal", "end_with", result)
        (closed,) = await until_logged(served, name, "$run.closed")
        assert closed["status"] == "completed"
        assert {"result", "result_payload"} & set(closed)


@pytest.mark.parametrize("text", ["\x00\x1b[2J", "x" * 100_000, "\U0001f600\u2028"], ids=["control", "long", "emoji"])
async def test_whatever_an_update_fails_of_is_reported(client: Client, served: Served, name: str, text: str) -> None:
    await answering(client, name)
    status, answer = await put(served, name, "update", "fails_with", text, id="k1")
    assert (status, answer["status"]) == (200, "rejected")
    assert answer["failure"]["message"][:100] == text[:100]
    assert len(answer["failure"]["message"]) < 10_000
    assert told(await log(served, name), "$input.rejected") == [{"id": "k1", "failure": answer["failure"]}]


async def test_the_same_key_with_two_bodies_at_two_gateways_is_one_input(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    handle = await answering(client, name)
    store, faults = SharedStore(), Faults(latency=0.005, lost_wakeups=0.2, repeated_wakeups=0.2)
    async with (
        running_gateway(temporal, tmp_path, store.engine(faults, 1), lease=1.0) as one,
        running_gateway(temporal, tmp_path, store.engine(faults, 2), lease=1.0) as two,
    ):
        for number in range(10):
            key = f"k{number}"
            answers = await asyncio.gather(
                *(put(served, name, "signal", "say", f"{key} {who}", id=key) for who, served in enumerate((one, two)))
            )
            assert sorted(status for status, _ in answers) == [200, 409]
            winner = [status for status, _ in answers].index(200)
            assert (await handle.query("all_heard"))[-1] == f"{key} {winner}"
    assert len(await handle.query("all_heard")) == 10


async def test_a_deletion_in_the_middle_ends_an_input_and_its_key_is_free(
    client: Client, served: Served, name: str
) -> None:
    handle = await listening(client, name)
    sending = asyncio.create_task(put(served, name, "update", "waits", "first", id="k1"))
    async with asyncio.timeout(60):
        while await handle.query("all_heard") != ["first"]:
            await asyncio.sleep(0.02)
    assert (await served.call("DELETE", f"/v1/sessions/{name}"))[0] == 204
    assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k1"))[0] == 404
    assert (await put(served, name, "signal", "say", "second", id="k2"))[0] == 200
    assert (await put(served, name, "signal", "say", "third", id="k1"))[0] == 200
    await handle.signal("release")
    assert (await sending)[0] == 202  # its session is gone, and with it the outcome
    assert (await put(served, name, "signal", "say", "third", id="k1"))[1]["status"] == "completed"
    assert await handle.query("all_heard") == ["first", "second", "third"]
    assert told(await log(served, name), "$input.completed") == [{"id": "k2"}, {"id": "k1"}]


async def test_a_token_reaches_no_other_session_s_inputs_and_runs(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    handle, other = await answering(client, name), await answering(client, f"{name}-other")
    run = (await other.describe()).run_id
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        every, mine = bearer(inputs=["*"]), bearer(sub="mallory", sessions=[name], inputs=["*"])

        async def send(session: str, headers: dict[str, str], **more: Any) -> tuple[int, Any]:
            body = {"id": "k1", "kind": "signal", "name": "say", "args": ["hello"], "wait": 30, **more}
            return await served.call("POST", f"/v1/sessions/{session}/inputs", json=body, headers=headers)

        assert (await send(f"{name}-other", every))[0] == 200
        assert (await send(f"{name}-other", mine))[0] == 404
        assert (await send(name, mine, run=run))[1]["error"]["code"] == "workflow_not_found"
        assert (await send(name, mine, kind="terminate", name="", args=[]))[1]["error"]["code"] == "not_allowed"
        for path in ("k1", f"..%2F..%2F{name}-other%2Finputs%2Fk1"):
            answer = await served.call("GET", f"/v1/sessions/{name}/inputs/{path}", headers=mine)
            assert answer[0] == 404, answer
        answer = await served.call("GET", f"/v1/sessions/{name}-other/inputs/k1", headers=mine)
        assert answer[0] == 404
        assert (await send(name, mine))[0] == 200  # the same key in another session is another input
    assert await handle.query("all_heard") == await other.query("all_heard") == ["hello"]


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_to_a_run_that_temporal_has_forgotten_is_rejected(
    client: Client,
    served: Served,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: str,
    sent: bool,
) -> None:
    handle = await listening(client, name)

    async def after_its_deletion(*how: Any) -> Seen:
        if sent:
            await send(*how)
        execution = WorkflowExecution(workflow_id=name, run_id=(await handle.describe()).run_id)
        await client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
        )
        async with asyncio.timeout(60):
            with suppress(RPCError):
                while (await handle.describe()).run_id:
                    await asyncio.sleep(0.2)
        return Unanswered() if sent else await send(*how)

    monkeypatch.setattr(carrying, "send", once(after_its_deletion))
    status, answer = await put(served, name, kind, method, "hello", id="k1")
    assert (status, answer["status"], answer["failure"]["type"]) == (200, "rejected", "RunUnknown")
    assert ("may have received" in answer["failure"]["message"]) is sent
    async with asyncio.timeout(60):
        while (found := await put(served, name, kind, method, "hello"))[0] != 409:
            await asyncio.sleep(0.5)
    assert found[1]["error"]["code"] == "run_closed"


async def test_a_workflow_of_another_namespace_gets_its_inputs_and_its_namesake_none(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=24 * 3600))
    )
    elsewhere = Client(**{**client.config(), "namespace": name})  # type: ignore[arg-type] # mypy widens the TypedDict
    async with asyncio.timeout(60):
        await until_made(elsewhere)
    namesake = await listening(client, name)
    async with (
        Worker(elsewhere, task_queue=QUEUE, workflows=[Listens]),
        running_gateway(temporal, tmp_path, namespaces={name: Namespace()}) as served,
    ):
        handle = await listening(elsewhere, name)
        registered = {"workflow_id": name, "namespace": name, "session": "elsewhere"}
        assert (await served.call("POST", "/v1/runs", json=registered))[0] == 200
        assert (await put(served, "elsewhere", "signal", "say", "one"))[1]["status"] == "completed"
        assert (await put(served, "elsewhere", "update", "approve", "two"))[1]["result"] == {"approved": "two"}
        assert (await put(served, name, "signal", "say", "three"))[1]["status"] == "completed"
        assert await handle.query("all_heard") == ["one", "two"]
        assert await namesake.query("all_heard") == ["three"]
        await handle.terminate()


async def test_inputs_wait_while_temporal_is_away(tmp_path: Path) -> None:
    server = TemporalServer(database=tmp_path / "temporal.db")
    settings = Settings(
        data=str(tmp_path / "data"), port=0, temporal=server.address, durability="process", no_auth=True
    )
    keys = [f"{kind}-{number}" for number in range(4) for kind in ("signal", "update")]
    await server.start()
    try:
        client = await server.ready()
        async with (
            gateway(settings) as url,
            Served(url) as served,
            Worker(client, task_queue=QUEUE, workflows=[Listens]),
        ):
            handle = await listening(client, "order")
            assert (await put(served, "order", "signal", "say", "first"))[0] == 200
            await server.kill()
            for key in keys:
                kind = key.split("-")[0]
                method = {"signal": "say", "update": "approve"}[kind]
                assert (await put(served, "order", kind, method, key, id=key, wait=0))[0] == 202
            await asyncio.sleep(AWAY)
            assert told(await log(served, "order"), "$input.completed")[1:] == []
            await server.start()
            async with asyncio.timeout(120):
                while len(told(await log(served, "order"), "$input.completed")) < 1 + len(keys):
                    await asyncio.sleep(0.1)
            assert Counter(await handle.query("all_heard")) == Counter(["first", *keys])
            assert told(await log(served, "order"), "$input.rejected") == []
            await handle.terminate()
    finally:
        await server.kill()


async def test_updates_that_come_at_once_are_no_more_than_are_allowed(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    handle = await listening(client, name)
    async with running_gateway(temporal, tmp_path, run_updates=2) as served:
        await put(served, name, "signal", "say", "first")
        calls = [put(served, name, "update", "waits", str(number), wait=0) for number in range(20)]
        answers = Counter(status for status, _ in await asyncio.gather(*calls))
        assert answers == {202: 2, 429: 18}
        await handle.signal("release")
        async with asyncio.timeout(60):
            while len(await handle.query("all_heard")) < 3:
                await asyncio.sleep(0.05)
    assert len(await handle.query("all_heard")) == 3
