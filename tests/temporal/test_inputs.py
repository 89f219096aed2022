"""From a device to a workflow: each input arrives once, and everybody sees what became of it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.commands import wakeline
from tests.servers import temporal_server
from tests.sharing import Faults, SharedStore
from tests.support import Served
from tests.temporal import input_workflows as workflows
from tests.temporal.test_encryption import BARE
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import reset
from tests.tokens import SECRET, bearer
from tests.unit.inputs.test_intents import intent
from wakeline.client import SessionClient
from wakeline.gateway.inputs import carrying
from wakeline.gateway.inputs.sending import look, send
from wakeline.gateway.inputs.steps import Absent, NotOpen, Outcome, Seen, Unanswered
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.reaching import Namespaces, Options
from wakeline.gateway.rules import InputRules, Start
from wakeline.gateway.sessions import Intents, Kind, Remembered, Run

QUEUE = "inputs"
DAY = 86_400.0
Handle = WorkflowHandle[Any, Any]
Send = Callable[..., Awaitable[Seen]]


@pytest.fixture
def name() -> str:
    return f"inputs-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS):
        yield


@pytest.fixture
async def handle(client: Client, name: str) -> AsyncIterator[Handle]:
    await client.start_workflow(workflows.Listens.run, [], id=name, task_queue=QUEUE)
    yield client.get_workflow_handle(name)
    try:
        await client.get_workflow_handle(name).terminate()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended
            raise


@pytest.fixture
async def served(temporal: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Served]:
    async with running_gateway(temporal, tmp_path) as running:
        yield running


async def put(served: Served, session: str, kind: str, name: str, *args: Any, **more: Any) -> tuple[int, Any]:
    """Send an input; its id is `id`, or a new one."""
    body = {"id": str(uuid.uuid4()), "kind": kind, "name": name, "args": list(args), "wait": 30, **more}
    return await served.call("POST", f"/v1/sessions/{session}/inputs", json=body)


async def log(served: Served, session: str) -> list[dict[str, Any]]:
    """A session's events; none if there is no session yet."""
    status, page = await served.call("GET", f"/v1/sessions/{session}/events?limit=1000")
    events = [] if status == 404 else page["events"]
    assert isinstance(events, list)
    return events


async def settled(served: Served, session: str, name: str, *args: Any, id: str) -> str:
    """Send an update until its outcome is known, and return how it went."""
    while (status := (await put(served, session, "update", name, *args, id=id))[1]["status"]) == "accepted":
        pass
    return str(status)


async def until_logged(served: Served, session: str, topic: str) -> list[Any]:
    """What the events of a topic say, once there is one."""
    async with asyncio.timeout(60):
        while not (found := told(await log(served, session), topic)):
            await asyncio.sleep(0.05)
    return found


async def run_id(handle: Handle) -> str:
    return (await handle.describe()).run_id


async def continued(handle: Handle) -> None:
    """Have the workflow continue as new, and return when it has."""
    before = await run_id(handle)
    await handle.signal("go_on")
    async with asyncio.timeout(60):
        while await run_id(handle) == before:
            await asyncio.sleep(0.02)


async def test_a_signal_reaches_the_workflow_and_everybody_sees_it(handle: Handle, served: Served, name: str) -> None:
    status, answer = await put(served, name, "signal", "say", "hello", id="k1", device="phone")
    assert (status, answer) == (200, {"id": "k1", "status": "completed"})
    assert await handle.query("all_heard") == ["hello"]
    events = await log(served, name)
    assert told(events, "$input.accepted") == [{"id": "k1", "kind": "signal", "name": "say", "device": "phone"}]
    assert told(events, "$input.completed") == [{"id": "k1"}]


async def test_a_forgotten_key_is_that_of_another_input_while_its_run_lives(
    handle: Handle, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    engine = MemoryEngine()
    async with running_gateway(temporal, tmp_path, engine) as served:
        for text in ("first", "second"):
            for kind, method in (("signal", "say"), ("update", "approve")):
                status, answer = await put(served, name, kind, method, text, id=f"k-{kind}")
                assert (status, answer["status"]) == (200, "completed")
            await Remembered(engine, 7 * DAY, lambda _: True, lambda: time.time() + 30 * DAY).sweep()
            assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k-signal"))[0] == 404
        assert await handle.query("all_heard") == ["first", "first", "second", "second"]


async def test_an_update_is_answered_with_its_result(handle: Handle, served: Served, name: str) -> None:
    status, answer = await put(served, name, "update", "approve", "order 1", id="k1")
    assert (status, answer) == (200, {"id": "k1", "status": "completed", "result": {"approved": "order 1"}})
    assert told(await log(served, name), "$input.completed") == [{"id": "k1", "result": {"approved": "order 1"}}]
    assert await served.call("GET", f"/v1/sessions/{name}/inputs/k1") == (200, answer)


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_the_same_input_again_gets_the_stored_answer(
    handle: Handle, served: Served, name: str, kind: str, method: str
) -> None:
    first = await put(served, name, kind, method, "hello", id="k1")
    assert await put(served, name, kind, method, "hello", id="k1", wait=1) == first
    status, answer = await put(served, name, kind, method, "something else", id="k1")
    assert (status, answer["error"]["code"]) == (409, "input_conflict")
    assert await handle.query("all_heard") == ["hello"]
    assert len(told(await log(served, name), "$input.accepted", "$input.completed")) == 2


@pytest.mark.parametrize(
    ("method", "args", "failure"),
    [
        ("approve", ["nothing"], {"message": "there is nothing to approve", "type": "Nothing"}),
        ("fails", [], {"message": "out of stock", "type": "OutOfStock"}),
        ("unheard_of", [], None),
        ("approve", [1, 2, 3], None),
    ],
)
async def test_an_update_that_the_workflow_refuses(
    handle: Handle, served: Served, name: str, method: str, args: list[Any], failure: dict[str, str] | None
) -> None:
    status, answer = await put(served, name, "update", method, *args, id="k1")
    assert (status, answer["status"]) == (200, "rejected")
    assert answer["failure"] == (failure or answer["failure"])
    assert told(await log(served, name), "$input.rejected") == [{"id": "k1", "failure": answer["failure"]}]
    assert await put(served, name, "update", method, *args, id="k1") == (status, answer)
    assert await handle.query("all_heard") == []


async def test_an_update_that_fails_the_workflow_s_task_is_rejected_and_the_run_goes_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "_FAILING_SECONDS", 0.5)
    async with (
        temporal_server(history_longPollExpirationInterval="2s") as own,
        Worker(own.client, task_queue=QUEUE, workflows=workflows.WORKFLOWS),
        running_gateway(own, tmp_path) as served,
    ):
        handle: Handle = await own.client.start_workflow(workflows.Listens.run, [], id=name, task_queue=QUEUE)
        async with asyncio.timeout(200):  # Temporal pauses between the tasks, the longer the more have failed
            broken = asyncio.create_task(settled(served, name, "breaks", "once", id="k1"))
            await until_logged(served, name, "$input.accepted")
            # The first call is held by Temporal for a while; the second one learns at once that the task fails.
            assert await settled(served, name, "breaks", id="k2") == "rejected"
            assert await broken == "rejected"
            failures = {said["failure"]["type"] for said in told(await log(served, name), "$input.rejected")}
            # Temporal answers the first call by itself if the task fails once the worker has the update.
            assert "UpdateNotAccepted" in failures <= {"UpdateNotAccepted", "UnprocessedUpdate"}
            monkeypatch.setattr(carrying, "_FAILING_SECONDS", 600.0)  # the task may still fail for a moment
            assert await settled(served, name, "approve", "next", id="k3") == "completed"
        assert await handle.query("all_heard") == ["next"]


async def test_an_answer_that_takes_longer_is_fetched_later(handle: Handle, served: Served, name: str) -> None:
    body = {"id": "k1", "kind": "update", "name": "waits", "args": ["a moment"], "wait": 0.2}
    async with served.http.post(f"/v1/sessions/{name}/inputs", json=body) as answer:
        assert (answer.status, await answer.json()) == (202, {"id": "k1", "status": "accepted"})
        where = answer.headers["Location"]
    assert await served.call("GET", where) == (202, {"id": "k1", "status": "accepted"})
    await put(served, name, "signal", "release")
    await until_logged(served, name, "$input.completed")
    async with asyncio.timeout(60):
        while (found := await served.call("GET", where))[0] == 202:
            await asyncio.sleep(0.05)
    assert found == (200, {"id": "k1", "status": "completed", "result": "released"})
    assert await handle.query("all_heard") == ["a moment"]


async def test_more_updates_than_temporal_takes_at_once_are_refused(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, run_updates=2) as served:
        for key in ("a", "b"):
            assert (await put(served, name, "update", "waits", key, id=key, wait=0))[0] == 202
        status, answer = await put(served, name, "update", "waits", "c", id="c", wait=0)
        assert (status, answer["error"]["code"]) == (429, "limit_reached")
        assert (await put(served, name, "signal", "release"))[0] == 200
        for key in ("a", "b"):
            assert (await put(served, name, "update", "waits", key, id=key))[1]["result"] == "released"
        assert (await put(served, name, "update", "waits", "c", id="c"))[1]["result"] == "released"
    assert sorted(await handle.query("all_heard")) == ["a", "b", "c"]


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_a_run_that_has_had_too_many_inputs_rejects_the_next(
    tmp_path: Path, name: str, kind: str, method: str
) -> None:
    limits = {"history_maxTotalUpdates": 2, "history_maximumSignalsPerExecution": 2}
    async with (
        temporal_server(**limits) as server,
        running_gateway(server, tmp_path) as served,
        Worker(server.client, task_queue=QUEUE, workflows=workflows.WORKFLOWS),
    ):
        handle = await server.client.start_workflow(workflows.Listens.run, [], id=name, task_queue=QUEUE)
        for key in ("a", "b"):
            assert (await put(served, name, kind, method, key, id=key))[1]["status"] == "completed"
        status, answer = await put(served, name, kind, method, "c", id="c")
        assert (status, answer["status"]) == (200, "rejected")
        assert "limit" in answer["failure"]["message"]
        assert await put(served, name, kind, method, "a", id="a") == (200, {**answer_of("a", kind), "id": "a"})
        assert await handle.query("all_heard") == ["a", "b"]


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_that_temporal_would_refuse_is_not_accepted(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str, kind: str, method: str
) -> None:
    if kind == "signal":  # those of others count
        await handle.signal("say", "from elsewhere")
    limits = {"run_total_updates": 4, "run_total_signals": 4}
    async with running_gateway(temporal, tmp_path, **limits) as served:
        keys = ["a", "b", "c", *(["d"] if kind == "update" else [])]
        for key in keys:
            assert (await put(served, name, kind, method, key, id=key))[1]["status"] == "completed"
        status, answer = await put(served, name, kind, method, "e", id="e")
        assert (status, answer["error"]["code"]) == (429, "limit_reached")
        assert (await served.call("GET", f"/v1/sessions/{name}/inputs/e"))[0] == 404
        assert (await put(served, name, kind, method, "a", id="a"))[1]["status"] == "completed"
        other = ("update", "approve") if kind == "signal" else ("signal", "say")
        assert (await put(served, name, *other, "other"))[1]["status"] == "completed"
        if kind == "update":
            await continued(handle)
            async with asyncio.timeout(60):
                while (answered := await put(served, name, kind, method, "e", id="e"))[0] == 429:
                    await asyncio.sleep(0.05)
            assert answered[1]["status"] == "completed"
    assert Counter(await handle.query("all_heard"))["a"] == 1


def answer_of(text: str, kind: str) -> dict[str, Any]:
    return {"status": "completed", **({"result": {"approved": text}} if kind == "update" else {})}


async def test_inputs_that_no_run_can_get(handle: Handle, served: Served, name: str) -> None:
    async def refused(session: str = name, kind: str = "signal", **more: Any) -> tuple[int, str]:
        status, answer = await put(served, session, kind, "say", "hello", **more)
        return status, answer["error"]["code"] if status >= 400 else answer["status"]

    assert await refused("nobody-has-this-name") == (404, "session_not_found")
    await put(served, name, "signal", "say", "hello")
    assert await refused(run="another") == (404, "workflow_not_found")
    assert await refused(id="") == (400, "request_invalid")
    assert await refused(kind="query") == (400, "body_invalid")
    assert await refused(kind="cancel") == (400, "request_invalid")  # which has no name
    assert (await served.call("GET", f"/v1/sessions/{name}/inputs/none"))[1]["error"]["code"] == "input_not_found"
    status, answer = await put(served, name, "signal", "__temporal_workflow_stream_publish", {})
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    await handle.signal("end")
    await until_logged(served, name, "$run.closed")
    async with asyncio.timeout(60):
        # The log has the end a moment before the run's record has it: until then an input is accepted, and then rejected.
        while (found := await refused())[1] == "rejected":
            await asyncio.sleep(0.05)
    assert found == (409, "run_closed")
    assert await handle.result() == ["hello"]


async def test_a_signal_that_the_workflow_does_not_know_is_kept_and_an_update_is_rejected(
    handle: Handle, served: Served, name: str
) -> None:
    """Nobody notices such a signal: it is in the history, and the run goes on."""
    assert (await put(served, name, "signal", "no_such", 1, id="k1"))[1]["status"] == "completed"
    answer = (await put(served, name, "update", "no_such", 1, id="k2"))[1]
    assert (answer["status"], "no_such" in answer["failure"]["message"]) == ("rejected", True)
    history = await handle.fetch_history()
    signaled = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert [found for found in signaled if found] == ["no_such"]
    events = await log(served, name)
    assert [(data["id"], data["name"]) for data in told(events, "$input.accepted")] == [
        ("k1", "no_such"),
        ("k2", "no_such"),
    ]
    assert [data["id"] for data in told(events, "$input.completed")] == ["k1"]
    assert (await put(served, name, "update", "approve", "yes"))[1]["status"] == "completed"


async def test_an_input_to_a_run_that_just_ended_is_rejected(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def after_its_end(*how: Any) -> Seen:
        await handle.signal("end")
        await handle.result()
        return await send(*how)

    monkeypatch.setattr(carrying, "send", once(after_its_end))
    _, answer = await put(served, name, "signal", "say", "too late", id="k1")
    assert (answer["status"], answer["failure"]["type"]) == ("rejected", "RunClosed")
    assert await handle.result() == []


def once(first: Send) -> Send:
    """The first call is another one than the rest."""
    calls = iter([first])

    async def sent(*how: Any) -> Seen:
        return await next(calls, send)(*how)

    return sent


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_goes_to_the_next_run_if_the_workflow_continued_before_it_was_sent(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    async def after_it_continued(*how: Any) -> Seen:
        await continued(handle)
        return await send(*how)

    monkeypatch.setattr(carrying, "send", once(after_it_continued))
    status, answer = await put(served, name, kind, method, "hello")
    assert (status, answer["status"]) == (200, "completed")
    assert await handle.query("all_heard") == ["hello"]


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_is_not_sent_again_to_the_next_run_if_only_its_answer_was_lost(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    async def without_answer(*how: Any) -> Seen:
        await send(*how)
        await continued(handle)
        return Unanswered()

    monkeypatch.setattr(carrying, "send", once(without_answer))
    status, answer = await put(served, name, kind, method, "hello")
    assert (status, answer["status"]) == (200, "completed")
    assert await handle.query("all_heard") == ["hello"]
    assert len(told(await log(served, name), "$input.completed")) == 1


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_around_a_reset_is_heard_once(
    client: Client,
    handle: Handle,
    served: Served,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: str,
    sent: bool,
) -> None:
    """The run is reset to its beginning before the input is sent, or before its answer arrives."""
    await handle.query("all_heard")  # its first workflow task is completed

    async def around_a_reset(*how: Any) -> Seen:
        if sent:
            await send(*how)
        await reset(client, handle, await run_id(handle), 4)
        return Unanswered() if sent else await send(*how)

    monkeypatch.setattr(carrying, "send", once(around_a_reset))
    status, answer = await put(served, name, kind, method, "hello")
    assert (status, answer["status"]) == (200, "completed")
    assert await handle.query("all_heard") == ["hello"]


async def reset_without_inputs(client: Client, name: str, run_id: str, event: int = 4) -> str:
    """Reset a run to an event of its beginning, and have Temporal not apply again what came after it."""
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=name, run_id=run_id),
            workflow_task_finish_event_id=event,
            request_id=str(uuid.uuid4()),
            reset_reapply_exclude_types=[
                ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL,
                ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE,
            ],
        )
    )
    return answer.run_id


async def test_signals_that_a_reset_excludes_are_sent_again_where_a_rule_says_so(
    client: Client, temporal: WorkflowEnvironment, handle: Handle, name: str, tmp_path: Path
) -> None:
    async with running_gateway(temporal, tmp_path / "2", inputs=InputRules(after_reset="send")) as served:
        await handle.query("all_heard")
        first = await run_id(handle)
        for key, text in (("k1", "one"), ("k2", "two")):
            await put(served, name, "signal", "say", text, id=key)
        await put(served, name, "update", "approve", "three", id="k3")
        new = await reset_without_inputs(client, name, first)
        assert await until_logged(served, name, "$input.undone") == [{"id": "k3", "run_id": new}]
        assert await handle.query("all_heard") == ["one", "two"]
        assert len(told(await log(served, name), "$input.completed")) == 3


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_a_reset_that_excludes_inputs_undoes_them_and_says_so(
    client: Client, handle: Handle, served: Served, name: str, kind: str, method: str, continues: bool
) -> None:
    await handle.query("all_heard")
    first = await run_id(handle)
    await put(served, name, kind, method, "hello", id="k1")
    await put(served, name, "update", "approve", "nothing", id="refused")
    if continues:
        await continued(handle)
    new = await reset_without_inputs(client, name, first)
    assert await handle.query("all_heard") == []
    assert await until_logged(served, name, "$input.undone") == [{"id": "k1", "run_id": new}]
    _, answer = await put(served, name, kind, method, "hello", id="k1")
    assert answer["status"] == "completed"
    assert await handle.query("all_heard") == []  # the same key is the same input
    assert len(told(await log(served, name), "$input.completed")) == 1


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_a_reset_of_a_run_before_one_that_was_reset_undoes_what_came_since_and_says_so(
    client: Client, handle: Handle, served: Served, name: str, kind: str, method: str
) -> None:
    """Temporal applies again what came to the runs that followed the first run at that time, not to their resets."""
    await handle.query("all_heard")
    first = await run_id(handle)
    await put(served, name, kind, method, "to the first", id="k1")
    await continued(handle)
    await put(served, name, kind, method, "to the second", id="k2")
    assert await handle.query("all_heard") == ["to the first", "to the second"]
    await reset(client, handle, await run_id(handle), 4)
    await put(served, name, kind, method, "since its reset", id="k3")
    assert await handle.query("all_heard") == ["to the first", "to the second", "since its reset"]
    new = await reset(client, handle, first, 4)
    assert await handle.query("all_heard") == ["to the first", "to the second"]
    assert await until_logged(served, name, "$input.undone") == [{"id": "k3", "run_id": new}]


async def test_a_reset_of_a_run_that_had_ended_says_which_inputs_it_undoes(
    client: Client, handle: Handle, served: Served, name: str
) -> None:
    await handle.query("all_heard")
    await put(served, name, "signal", "say", "hello", id="k1")
    await handle.signal("end")
    await until_logged(served, name, "$session.settled")
    new = await reset_without_inputs(client, name, await run_id(handle))
    assert await until_logged(served, name, "$input.undone") == [{"id": "k1", "run_id": new}]
    assert [started["run_id"] for started in told(await log(served, name), "$run.started")][-1] == new


async def test_a_reset_that_excludes_nothing_undoes_nothing(
    client: Client, handle: Handle, served: Served, name: str
) -> None:
    await handle.query("all_heard")
    for kind, method in (("signal", "say"), ("update", "approve")):
        await put(served, name, kind, method, kind, id=kind)
    for _ in range(2):  # the second time Temporal applies again what it has applied again
        await reset(client, handle, await run_id(handle), 4)
        assert sorted(await handle.query("all_heard")) == ["signal", "update"]
    await put(served, name, "signal", "end")
    await until_logged(served, name, "$run.closed")
    assert told(await log(served, name), "$input.undone") == []


@pytest.mark.parametrize("ended", [False, True])
async def test_an_update_that_no_worker_has_seen_when_its_run_is_closed_goes_on(
    client: Client, served: Served, name: str, ended: bool
) -> None:
    """Temporal then answers that the workflow is busy, for as long as it keeps the closed run in memory."""
    queue = f"{QUEUE}-{name}"
    async with Worker(client, task_queue=queue, workflows=workflows.WORKFLOWS):
        await client.start_workflow(workflows.Listens.run, [], id=name, task_queue=queue)
        handle: Handle = client.get_workflow_handle(name)
        assert await handle.query("all_heard") == []
    assert (await put(served, name, "update", "approve", "hello", id="k1", wait=1))[0] == 202
    if ended:
        await handle.terminate()
        (rejected,) = await until_logged(served, name, "$input.rejected")
        assert rejected["failure"]["type"] == "RunClosed"
        return
    await reset(client, handle, await run_id(handle), 4)
    async with Worker(client, task_queue=queue, workflows=workflows.WORKFLOWS):
        assert await until_logged(served, name, "$input.completed") == [{"id": "k1", "result": {"approved": "hello"}}]
        assert await handle.query("all_heard") == ["hello"]
        await handle.terminate()


@pytest.mark.parametrize("excluded", [False, True])
async def test_an_update_that_waits_through_a_reset_is_completed_by_the_new_run(
    client: Client, handle: Handle, served: Served, name: str, excluded: bool
) -> None:
    await handle.query("all_heard")
    assert (await put(served, name, "update", "waits", "hello", id="k1", wait=0))[0] == 202
    async with asyncio.timeout(60):
        while await handle.query("all_heard") != ["hello"]:
            await asyncio.sleep(0.02)
    await (
        reset_without_inputs(client, name, await run_id(handle))
        if excluded
        else reset(client, handle, await run_id(handle), 4)
    )
    await handle.signal("release")
    assert await until_logged(served, name, "$input.completed") == [{"id": "k1", "result": "released"}]
    assert await handle.query("all_heard") == ["hello"]
    assert told(await log(served, name), "$input.undone") == []


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_an_input_is_carried_on_by_the_next_gateway(
    temporal: WorkflowEnvironment,
    handle: Handle,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: str,
    sent: bool,
    continues: bool,
) -> None:
    """Nobody sends it again: the gateway stops between intent and call, or between call and outcome."""
    reached = asyncio.Event()

    async def stuck(*how: Any) -> Seen:
        if sent:
            await send(*how)
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(carrying, "send", stuck)
    async with running_gateway(temporal, tmp_path) as served:
        assert (await put(served, name, kind, method, "hello", id="k1", wait=0))[0] == 202
        await asyncio.wait_for(reached.wait(), 60)
    if continues:
        await continued(handle)
    monkeypatch.setattr(carrying, "send", send)
    async with running_gateway(temporal, tmp_path) as served:
        (completed,) = await until_logged(served, name, "$input.completed")
        assert completed["id"] == "k1"
        assert len(told(await log(served, name), "$input.accepted")) == 1
    assert await handle.query("all_heard") == ["hello"]


@pytest.mark.parametrize("kind", ["cancel", "terminate"])
async def test_a_device_ends_a_run(handle: Handle, served: Served, name: str, kind: str) -> None:
    body = {"id": "k1", "kind": kind, "wait": 30}
    path = f"/v1/sessions/{name}/inputs"
    assert await served.call("POST", path, json=body) == (200, {"id": "k1", "status": "completed"})
    (closed,) = await until_logged(served, name, "$run.closed")
    assert closed["status"] == {"cancel": "canceled", "terminate": "terminated"}[kind]
    assert told(await log(served, name), "$input.accepted") == [{"id": "k1", "kind": kind}]
    assert await served.call("POST", path, json=body) == (200, {"id": "k1", "status": "completed"})


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("kind", ["cancel", "terminate"])
async def test_a_run_that_was_ended_by_a_call_without_answer_is_found_so(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch, kind: str, sent: bool
) -> None:
    async def without_answer(*how: Any) -> Seen:
        if sent:
            await send(*how)
        else:
            await handle.signal("end")
        with suppress(WorkflowFailureError):
            await handle.result()
        return Unanswered()

    monkeypatch.setattr(carrying, "send", once(without_answer))
    status, answer = await served.call("POST", f"/v1/sessions/{name}/inputs", json={"id": "k1", "kind": kind})
    assert (status, answer["status"]) == (200, "completed" if sent else "rejected")


async def test_a_run_that_continued_as_new_is_cancelled_as_it_goes_on(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def after_it_continued(*how: Any) -> Seen:
        await continued(handle)
        return await send(*how)

    monkeypatch.setattr(carrying, "send", once(after_it_continued))
    _, answer = await served.call("POST", f"/v1/sessions/{name}/inputs", json={"id": "k1", "kind": "cancel"})
    assert answer["status"] == "completed"
    (closed,) = await until_logged(served, name, "$run.closed")
    assert closed["status"] == "canceled"


@pytest.mark.parametrize("kind", ["cancel", "terminate"])
async def test_ending_a_run_costs_few_calls_however_long_its_history_is(
    client: Client, handle: Handle, name: str, kind: Kind
) -> None:
    """A history of 600 signals has three pages; the run is open, has ended by the input, or has ended without it."""
    await asyncio.gather(*(handle.signal("say", str(number)) for number in range(600)))
    address = client.service_client.config.target_host
    calls: Counter[str] = Counter()
    (connection,) = Namespaces([Options(address=address)], lambda call, _: calls.update([call]))
    await connection.start()
    try:
        of = replace(intent(name, run_id=await run_id(handle)), kind=kind, name="", workflow_id=name, run=name)
        of = replace(of, accepted_at=time.time(), args=Raw(b"[]"))
        run = Run(name, of.run_id, of.run_id, of.run_id, "Listens", "")
        calls.clear()
        assert await send(connection, of, of.run_id) == Outcome("completed")
        with suppress(WorkflowFailureError):
            await handle.result()
        assert await look(connection, of, run) == Outcome("completed")
        late = replace(of, id="late", accepted_at=time.time() + 3600)
        assert await send(connection, late, of.run_id) == (Outcome("completed") if kind == "cancel" else NotOpen())
        if kind == "terminate":
            assert await look(connection, late, run) == Absent()
    finally:
        await connection.stop()
    print(kind, dict(calls))
    assert sum(count for call, count in calls.items() if "History" in call) <= 3


async def test_two_devices_that_cancel_have_cancelled_both(handle: Handle, served: Served, name: str) -> None:
    await handle.signal("stay")
    path = f"/v1/sessions/{name}/inputs"
    for key in ("k1", "k2"):
        answer = await served.call("POST", path, json={"id": key, "kind": "cancel"})
        assert answer == (200, {"id": key, "status": "completed"})
    await handle.signal("end")


async def test_the_python_client_sends_inputs(handle: Handle, served: Served, name: str) -> None:
    async with SessionClient(served.url) as client:
        session = client.session(name)
        outcome = await session.send("approve", ["order 1"])
        assert (outcome.status, outcome.result) == ("completed", {"approved": "order 1"})
        outcome = await session.send("approve", ["nothing"])
        assert (outcome.status, outcome.failure) == (
            "rejected",
            {"message": "there is nothing to approve", "type": "Nothing"},
        )
        assert (await session.send("waits", ["a moment"], wait=timedelta(seconds=0.1))).status == "accepted"
        assert (await session.send("say", ["hello"], kind="signal")).status == "completed"
    assert await handle.query("all_heard") == ["order 1", "a moment", "hello"]


@pytest.mark.usefixtures("forks")
async def test_the_command_sends_inputs(handle: Handle, served: Served, name: str) -> None:
    async def printed(*arguments: str) -> tuple[int, Any]:
        code, output, _ = await wakeline("input", name, *arguments, "--url", served.url)
        return code, json.loads(output)

    once = await printed("approve", "order 1", "--id", "k1")
    assert once == (0, {"id": "k1", "status": "completed", "result": {"approved": "order 1"}})
    assert await printed("approve", "order 1", "--id", "k1") == once
    code, outcome = await printed("approve", "nothing")
    assert (code, outcome["status"]) == (1, "rejected")
    code, outcome = await printed("say", "hello there", "--kind", "signal", "--device", "shell")
    assert (code, outcome["status"]) == (0, "completed")
    assert await handle.query("all_heard") == ["order 1", "hello there"]
    assert (await printed("--kind", "terminate"))[0] == 0


async def signals_of(client: Client, name: str) -> Counter[str]:
    """How often each key is in the histories of the workflow's runs."""
    found: Counter[str] = Counter()
    async for run in client.list_workflows(f'WorkflowId = "{name}"'):
        handle: Handle = client.get_workflow_handle(name, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                header = event.workflow_execution_signaled_event_attributes.header.fields
                found.update(field.data.decode() for key, field in header.items() if key == "wakeline-input")
    return found


@pytest.mark.parametrize(("kind", "method"), [("signal", "say"), ("update", "approve")])
async def test_two_gateways_that_get_the_same_input_send_it_once(
    temporal: WorkflowEnvironment, client: Client, handle: Handle, tmp_path: Path, name: str, kind: str, method: str
) -> None:
    store, faults = SharedStore(), Faults(latency=0.002, lost_wakeups=0.2, repeated_wakeups=0.2)
    async with (
        running_gateway(temporal, tmp_path, store.engine(faults, 1), lease=1.0) as one,
        running_gateway(temporal, tmp_path, store.engine(faults, 2), lease=1.0) as two,
    ):
        keys = [f"k{number}" for number in range(10)]
        calls = [put(served, name, kind, method, key, id=key) for key in keys for served in (one, two)]
        answers = []
        for begin in range(0, len(calls), 4):
            answers += await asyncio.gather(*calls[begin : begin + 4])
            if begin == 8:
                await continued(handle)
        assert {(status, answer["status"]) for status, answer in answers} == {(200, "completed")}
        events = await log(two, name)
        assert Counter(data["id"] for data in told(events, "$input.completed")) == Counter(keys)
    assert Counter(await handle.query("all_heard")) == Counter(keys)
    if kind == "signal":
        assert await signals_of(client, name) == Counter(f'"{key}"' for key in keys)


async def test_an_input_of_a_gateway_that_died_is_carried_on_by_another(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stuck = SharedStore(), asyncio.Event()
    first, second = store.engine(seed=1), store.engine(seed=2)
    calls = 0

    async def dies(*how: Any) -> Seen:
        nonlocal calls
        calls += 1
        if calls == 1:
            first.cut = True
            stuck.set()
            await asyncio.Event().wait()
        return await send(*how)

    async with (
        running_gateway(temporal, tmp_path, second, lease=1.0) as two,
        running_gateway(temporal, tmp_path, first, lease=1.0) as one,
    ):
        assert (await put(one, name, "signal", "say", "first", id="k0"))[0] == 200
        monkeypatch.setattr(carrying, "send", dies)
        await put(one, name, "signal", "say", "hello", id="k1", wait=0)
        await asyncio.wait_for(stuck.wait(), 60)
        async with asyncio.timeout(60):
            while len(told(await log(two, name), "$input.completed")) < 2:
                await asyncio.sleep(0.05)
    assert await handle.query("all_heard") == ["first", "hello"]


async def test_who_sent_an_input_comes_from_the_token(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        path, body = f"/v1/sessions/{name}/inputs", {"id": "k1", "kind": "signal", "name": "say", "args": ["hello"]}
        alice, bob = bearer(sub="alice", inputs=["say"]), bearer(sub="bob", inputs=["say"])
        assert (await served.call("POST", path, json=body, headers=alice))[0] == 200
        status, answer = await served.call("POST", path, json=body, headers=bob)
        assert (status, answer["error"]["code"]) == (409, "input_conflict")
        for refused in (bearer(inputs=["approve"]), bearer(), bearer(inputs=["say"], allow=["read"])):
            status, answer = await served.call("POST", path, json={**body, "id": "k2"}, headers=refused)
            assert (status, answer["error"]["code"]) == (403, "not_allowed")
        status, answer = await served.call("POST", path, json={**body, "id": "k2", "by": "bob"}, headers=alice)
        assert (status, answer["error"]["code"]) == (400, "body_invalid")
        read = await served.call("GET", f"/v1/sessions/{name}/events", headers=alice)
        (told_of,) = told(read[1]["events"], "$input.accepted")
        assert told_of["by"] == "alice"
    assert await handle.query("all_heard") == ["hello"]


async def test_arguments_and_results_pass_through_the_gateway_s_codec(
    temporal: WorkflowEnvironment, client: Client, tmp_path: Path, name: str
) -> None:
    config = client.config(active_config=True)
    config["data_converter"] = BARE
    secret = Client(**config)
    async with (
        running_gateway(temporal, tmp_path, data_converter="tests.temporal.test_encryption:BARE") as served,
        Worker(secret, task_queue=f"{QUEUE}-secret", workflows=workflows.WORKFLOWS),
    ):
        handle = await secret.start_workflow(workflows.Listens.run, [], id=name, task_queue=f"{QUEUE}-secret")
        _, answer = await put(served, name, "update", "approve", "a secret")
        assert answer["result"] == {"approved": "a secret"}
        _, answer = await put(served, name, "update", "approve", "nothing")
        assert answer["failure"] == {"message": "there is nothing to approve", "type": "Nothing"}
        assert (await put(served, name, "signal", "say", "another"))[0] == 200
        assert await handle.query("all_heard") == ["a secret", "another"]
        assert "another" not in (await handle.fetch_history()).to_json()
        await handle.signal("end")


class Broken(PayloadCodec):
    """A codec whose key is away, for as long as `away` says."""

    def __init__(self, away: int) -> None:
        self.away = away

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        self.away -= 1
        if self.away >= 0:
            raise RuntimeError("no key: secret arguments")
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


BROKEN = DataConverter(payload_codec=Broken(1_000_000))
MENDED = DataConverter(payload_codec=Broken(2))


@pytest.mark.parametrize("kind", ["signal", "update", "start"])
async def test_an_input_that_the_codec_never_encodes_is_rejected(
    temporal: WorkflowEnvironment,
    handle: Handle,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(carrying, "_FAILING_SECONDS", 0.2)
    rule = Start(sessions=("other",), workflow_type="Listens", task_queue=QUEUE, args=[[]])
    async with running_gateway(
        temporal, tmp_path, data_converter="tests.temporal.test_inputs:BROKEN", inputs=InputRules(start={"it": rule})
    ) as served:
        session, method = ("other", "it") if kind == "start" else (name, {"signal": "say"}.get(kind, "approve"))
        _, answer = await put(served, session, kind, method, "hello", id="k1")
        assert (answer["status"], answer["failure"]["type"]) == ("rejected", "EncodingFailed")
        assert "secret" not in str(answer)
        assert told(await log(served, session), "$input.rejected") == [{"id": "k1", "failure": answer["failure"]}]
        assert await put(served, session, kind, method, "hello", id="k1") == (200, answer)
    assert await handle.query("all_heard") == []


async def test_an_input_arrives_once_the_codec_works_again(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, data_converter="tests.temporal.test_inputs:MENDED") as served:
        assert (await put(served, name, "signal", "say", "hello"))[1]["status"] == "completed"
    assert await handle.query("all_heard") == ["hello"]


async def test_a_deleted_session_forgets_its_inputs(handle: Handle, served: Served, name: str) -> None:
    await put(served, name, "signal", "say", "hello", id="k1")
    assert (await served.call("DELETE", f"/v1/sessions/{name}"))[0] == 204
    assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k1"))[0] == 404
    # The key is another one now, also to Temporal, which still knows the earlier input.
    assert (await put(served, name, "signal", "say", "again", id="k1"))[0] == 200
    assert await handle.query("all_heard") == ["hello", "again"]


async def test_an_input_that_a_deletion_has_left_is_none_of_the_next_life(
    handle: Handle, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway that deleted the session is not done yet, or was killed meanwhile."""

    async def killed(intents: Intents, session: str, epoch: str) -> None:
        pass

    await put(served, name, "signal", "say", "hello", id="k1")
    with monkeypatch.context() as patch:
        patch.setattr(Intents, "forget", killed)
        assert (await served.call("DELETE", f"/v1/sessions/{name}"))[0] == 204
    assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k1"))[0] == 404
    assert (await put(served, name, "signal", "say", "again", id="k1"))[0] == 200
    assert await handle.query("all_heard") == ["hello", "again"]


async def test_arguments_that_their_schema_does_not_allow_are_refused_and_nothing_is_sent(
    temporal: WorkflowEnvironment, handle: Handle, tmp_path: Path, name: str
) -> None:
    schema = {"prefixItems": [{"type": "string", "maxLength": 10}], "minItems": 1, "items": False}
    rules = InputRules(schemas={"approve": schema, "say": schema})
    async with running_gateway(temporal, tmp_path, inputs=rules) as served:
        for kind, method in (("signal", "say"), ("update", "approve")):
            for args in ([], [1], ["far too long, really"], ["two", "of them"]):
                status, answer = await put(served, name, kind, method, *args, id="k1")
                assert (status, answer["error"]["code"]) == (400, "value_invalid")
                assert "args" in answer["error"]["message"]
        assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k1"))[0] == 404
        assert (await put(served, name, "update", "approve", "short"))[1]["status"] == "completed"
        assert (await put(served, name, "update", "waits", 1))[1]["status"] == "rejected"  # it has no schema
        assert len(told(await log(served, name), "$input.accepted")) == 2
    assert await handle.query("all_heard") == ["short"]


async def test_an_input_of_a_device_that_has_not_seen_everything_is_refused(
    handle: Handle, served: Served, name: str
) -> None:
    await put(served, name, "signal", "say", "first")
    seen = (await log(served, name))[-1]["offset"]
    assert (await put(served, name, "update", "approve", "seen", id="k1", expect=seen))[1]["status"] == "completed"
    status, answer = await put(served, name, "update", "approve", "not seen", id="k2", expect=seen)
    assert (status, answer["error"]["code"]) == (409, "stale")
    accepted = next(event for event in await log(served, name) if event["data"].get("id") == "k1")
    assert answer["error"]["offset"] == accepted["offset"]
    assert (await served.call("GET", f"/v1/sessions/{name}/inputs/k2"))[0] == 404
    assert (await put(served, name, "update", "approve", "seen", id="k1", expect=seen))[1]["status"] == "completed"
    assert await handle.query("all_heard") == ["first", "seen"]


async def test_of_two_inputs_on_the_same_state_the_first_in_the_log_is_sent(
    handle: Handle, served: Served, name: str
) -> None:
    await put(served, name, "signal", "say", "first")
    seen = (await log(served, name))[-1]["offset"]
    keys = [f"k{number}" for number in range(6)]
    answers = await asyncio.gather(*(put(served, name, "signal", "say", key, id=key, expect=seen) for key in keys))
    events = await log(served, name)
    first = [data["id"] for data in told(events, "$input.accepted")][1]
    assert Counter(status for status, _ in answers) == {200: 1, 409: 5}
    assert [key for key, (status, _) in zip(keys, answers, strict=True) if status == 200] == [first]
    assert {data["failure"]["type"] for data in told(events, "$input.rejected")} <= {"Stale"}
    again = await asyncio.gather(*(put(served, name, "signal", "say", key, id=key, expect=seen) for key in keys))
    assert again == answers
    assert await handle.query("all_heard") == ["first", first]
