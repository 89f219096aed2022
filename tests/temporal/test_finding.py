"""How runs are found: by rule, through restarts; by a device that waits; by publishers; and what is refused."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.publishers import line
from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import QUEUE, start, steps, until
from tests.tokens import SECRET, token
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.reaching.visibility import Visibility
from wakeline.gateway.rules import Follow


@pytest.fixture
def name() -> str:
    return f"found-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


async def settled(served: Served, session: str) -> list[dict[str, Any]]:
    """A session's events, when it is settled; nobody watches it, or asks for it by name before."""
    async with asyncio.timeout(60):
        while True:
            listed = (await served.call("GET", "/v1/sessions?limit=1000"))[1]["sessions"]
            if any(found["session"] == unquote(session) and found["settled"] for found in listed):
                events: list[dict[str, Any]] = (await served.call("GET", f"/v1/sessions/{session}/events"))[1]["events"]
                return events
            await asyncio.sleep(0.05)


async def short(client: Client, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """A workflow that says one thing and ends."""
    handle = await start(client, workflow_id, workflows.Steps.run)
    await steps(handle, "a", "end")
    await handle.result()
    return handle


async def test_what_a_rule_is_for_is_followed_and_nothing_is_missed_while_no_gateway_runs(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    rules = (
        Follow(workflow_id=f"{name}-it's*", session="chat-{workflow_id}"),
        Follow(workflow_type="Ste*", workflow_id=f"{name}-by-type*", result=True),
        Follow(query=f"WorkflowId STARTS_WITH '{name}-by-query'"),
    )
    how = {"follow": rules, "sweep_interval": 0.2}
    open_before = await start(client, f"{name}-by-type-0", workflows.Steps.run)
    await steps(open_before, "a")
    async with running_gateway(temporal, tmp_path, **how) as served:
        await short(client, f"{name}-it's one")
        events = await settled(served, f"chat-{name}-it%27s%20one")
        assert told(events, "step") == ["a"]
        await short(client, f"{name}-by-type-1")
        assert told(await settled(served, f"{name}-by-type-1"), "$run.closed")[0]["result"] == {"steps": 1}
        await short(client, f"{name}-by-query")
        assert told(await settled(served, f"{name}-by-query"), "step") == ["a"]
        await short(client, f"{name}-other")
    # Starts and ends while no gateway runs.
    await asyncio.gather(*(short(client, f"{name}-by-type-{number}") for number in range(2, 5)))
    await steps(open_before, "end")
    async with running_gateway(temporal, tmp_path, **how) as served:
        for number in range(5):
            events = await settled(served, f"{name}-by-type-{number}")
            assert told(events, "step") == ["a"], number
            assert [c["status"] for c in told(events, "$run.closed")] == ["completed"]
        names = [s["session"] for s in (await served.call("GET", "/v1/sessions?limit=1000"))[1]["sessions"]]
    assert f"{name}-other" not in names


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (Follow(), "expected workflow_type, workflow_id, task_queue or query"),
        (Follow(workflow_type="A*b"), "expected a name, with \\* at its end only"),
        (Follow(workflow_type="A", session="{user}"), "expected a session of text and {workflow_id}"),
        (Follow(workflow_type="A", session="{workflow_id"), "expected a session of text and {workflow_id}"),
        (Follow(workflow_type="A", namespace="elsewhere"), "expected a namespace of the settings"),
    ],
)
async def test_a_rule_that_cannot_be_followed_is_refused_at_the_start(
    temporal: WorkflowEnvironment, tmp_path: Path, rule: Follow, wrong: str
) -> None:
    with pytest.raises(SettingsInvalidError, match=wrong):
        async with running_gateway(temporal, tmp_path, follow=(rule,)):
            pass


async def test_a_device_may_wait_for_a_workflow_that_has_not_been_started(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2) as served:
        assert (await served.call("GET", f"/v1/sessions/{name}/events"))[0] == 404
        stream = await served.stream(name, "until=settled&wait_for_start=true")
        assert stream.answer.status == 200
        await short(client, name)
        async with asyncio.timeout(60):
            events = await stream.rest()
    assert told(events, "step") == ["a"]


@pytest.mark.parametrize(
    ("sessions", "allow", "status"),
    [
        (["exactly"], ["read"], 200),
        (["exa*"], ["read"], 404),
        (["exa*"], ["read", "manage"], 200),
        (["other"], ["read"], 404),
    ],
)
async def test_waiting_takes_a_token_that_names_the_session_or_may_manage_it(
    temporal: WorkflowEnvironment, tmp_path: Path, sessions: list[str], allow: list[str], status: int
) -> None:
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        bearer = {"Authorization": f"Bearer {token(sessions=sessions, allow=allow)}"}
        query = "/v1/sessions/exactly/events?wait_for_start=true"
        answered, told = await served.call("GET", query, headers=bearer)
        assert answered == status
        if status == 404:
            assert "names the session in its claim wakeline.sessions, without *" in told["error"]["hint"]
            assert "waits until it is started" not in told["error"]["hint"]


async def test_a_run_that_a_device_waits_for_and_that_a_rule_has_elsewhere_is_in_both_sessions(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    """Whichever a sweep comes to first does not take it from the other."""
    rules = (Follow(workflow_id=f"{name}*", session="chat-{workflow_id}"),)
    async with running_gateway(temporal, tmp_path, follow=rules, sweep_interval=0.2) as served:
        stream = await served.stream(name, "until=settled&wait_for_start=true")
        await short(client, name)
        assert told(await settled(served, f"chat-{name}"), "step") == ["a"]
        async with asyncio.timeout(60):
            assert told(await stream.rest(), "step") == ["a"]


async def test_a_publisher_s_first_append_has_its_workflow_followed(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        may = {"Authorization": f"Bearer {token(sessions=[name, 'chat'], allow=['read', 'publish'])}"}

        async def publish(session: str, workflow: str) -> None:
            await served.call(
                "POST",
                f"/v1/sessions/{session}/events",
                json={"events": [{"topic": "t"}]},
                headers={**may, "Wakeline-Workflow": workflow},
            )

        own = await start(client, name, workflows.Steps.run)
        guest = await start(client, f"{name}-guest", workflows.Steps.run, memo={"wakeline.session": "chat"})
        stranger = await start(client, f"{name}-stranger", workflows.Steps.run)
        await publish(name, name)
        await publish("chat", guest.id)
        await publish("chat", stranger.id)
        for handle in (own, guest, stranger):
            await steps(handle, "a", "end")
            await handle.result()

        async def runs(session: str) -> list[str]:
            answer = await served.call("GET", f"/v1/sessions/{session}", headers=may)
            return [run["workflow_id"] for run in answer[1]["runs"]]

        async with asyncio.timeout(60):
            while not (await runs(name) and await runs("chat")):
                await asyncio.sleep(0.05)
        assert (await runs(name), await runs("chat")) == ([name], [guest.id])


async def test_managing_a_prefix_gives_no_other_workflow_s_stream_and_reveals_none(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    victim = await short(client, f"{name}-victim")
    await client.start_workflow(
        workflows.Steps.run, id=f"{name}-guest", task_queue=QUEUE, memo={"wakeline.session": f"{name}-chat"}
    )
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:

        async def register(
            workflow: str, session: str | None, allow: tuple[str, ...] = (), reached: str = f"{name}-m*"
        ) -> tuple[int, Any, float]:
            began = asyncio.get_running_loop().time()
            scope = ["read", "publish", "manage", *allow]
            bearer = {"Authorization": f"Bearer {token(sessions=[reached], allow=scope)}"}
            body = {"workflow_id": workflow, "result": True, **({"session": session} if session else {})}
            status, answer = await served.call("POST", "/v1/runs", json=body, headers=bearer)
            return status, answer, asyncio.get_running_loop().time() - began

        mine = f"{name}-mallory"
        there, missing = await asyncio.gather(register(victim.id, mine), register(f"{name}-nobody", mine))
        told_of = there[1]["error"]["message"].replace(victim.id, f"{name}-nobody")
        assert (there[0], told_of) == (404, missing[1]["error"]["message"])
        assert missing[0] == 404
        assert min(there[2], missing[2]) >= 1, "Temporal's own time to say so is not shown"
        for workflow in (victim.id, f"{name}-nobody"):
            status, answer, _ = await register(workflow, None)
            assert (status, answer["error"]["code"]) == (404, "session_not_found")
        reads = {"Authorization": f"Bearer {token(sessions=[f'{name}-m*'], allow=['read'])}"}
        names = (victim.id, f"{name}-nobody", f"{name}-m-nobody")
        told = [(await served.call("GET", f"/v1/sessions/{one}/events", headers=reads))[1]["error"] for one in names]
        assert len({error["hint"] for error in told}) == 1
        assert "the token does not reach it" in told[0]["hint"]
        assert "Temporal has no workflow of this id either" in told[0]["hint"]
        # Nor by a publisher that names it, in any of the ways in which it may.
        bearer = {"Authorization": f"Bearer {token(sessions=[mine], allow=['read', 'publish', 'manage'])}"}
        headers = {**bearer, "Wakeline-Workflow": victim.id}
        await served.call("POST", f"/v1/sessions/{mine}/events", json={"events": [{"topic": "t"}]}, headers=headers)
        await served.call("PUT", f"/v1/sessions/{mine}/publishers/p", json={"workflow": victim.id}, headers=bearer)
        # The workflow's own session, the one that it names, or the permission: each is enough.
        assert (await register(victim.id, f"{name}-mine", reached=f"{name}-*"))[0] == 200
        assert (await register(f"{name}-guest", f"{name}-chat", reached=f"{name}-chat"))[0] == 200
        assert (await register(f"{name}-guest", mine, reached=mine))[0] == 404
        assert (await served.call("GET", f"/v1/sessions/{mine}", headers=bearer))[1]["runs"] == []
        assert (await register(victim.id, mine, ("follow",)))[0] == 200
    await client.get_workflow_handle(f"{name}-guest").terminate()


async def test_a_publisher_that_may_not_name_its_workflow_is_warned_and_is_not_told_whether_that_exists(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    victim = await short(client, f"{name}-victim")
    guest = await client.start_workflow(
        workflows.Steps.run, id=f"{name}-guest", task_queue=QUEUE, memo={"wakeline.session": f"{name}-chat"}
    )
    async with running_gateway(temporal, tmp_path, no_auth=False, token_secret=SECRET) as served:
        bearer = {"Authorization": f"Bearer {token(sessions=[f'{name}-chat'], allow=['publish'])}"}
        async with line(served, headers=bearer) as publisher:
            messages = []
            for channel, workflow in enumerate([guest.id, victim.id, f"{name}-nobody"]):
                began = asyncio.get_running_loop().time()
                await publisher.open(channel, session=f"{name}-chat", publisher=f"p{channel}", workflow=workflow)
                if workflow != guest.id:  # which names the session
                    warned = await publisher.next("warning")
                    assert asyncio.get_running_loop().time() - began > 0.9, "Temporal's own time to say so is not shown"
                    assert warned["channel"] == channel
                    messages.append((warned["message"].replace(workflow, "it"), warned["hint"]))
    assert messages[0] == messages[1]
    assert "wakeline.session" in messages[0][1]
    await guest.terminate()


async def test_the_run_that_a_publisher_names_is_followed_even_if_another_has_begun(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    """What it published while Temporal was away, or is late with, is of a run that has its end told, too."""
    first, second = [await (await short(client, name)).describe() for _ in range(2)]
    async with running_gateway(temporal, tmp_path) as served:
        for run in (first.run_id, second.run_id, "of its own naming"):
            headers = {"Wakeline-Workflow": name, "Wakeline-Run": quote(run)}
            body = {"events": [{"topic": "t"}]}
            await served.call("POST", f"/v1/sessions/{name}/events", json=body, headers=headers)
        async with asyncio.timeout(60):
            stream, closed = await served.stream(name), set[str]()
            while len(closed) < 2:
                event = await stream.next()
                closed |= {event["data"]["run_id"]} if event["topic"] == "$run.closed" else set()
    assert closed == {first.run_id, second.run_id}


async def test_a_session_follows_into_what_the_workflow_says_unless_it_is_said_where(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    handle = await start(client, name, workflows.Steps.run, memo={"wakeline.session": f"{name}-chat"})
    async with running_gateway(temporal, tmp_path) as served:
        # It is not found by its own name: what it says is for the readers of another session.
        assert (await served.call("GET", f"/v1/sessions/{name}/events"))[0] == 404
        _, run = await served.call("POST", "/v1/runs", json={"workflow_id": name})
        assert run["session"] == f"{name}-chat"
        status, run = await served.call("POST", "/v1/runs", json={"workflow_id": name, "namespace": "elsewhere"})
        assert (status, run["error"]["code"]) == (404, "workflow_not_found")
        await steps(handle, "a", "end")
        assert told(await settled(served, f"{name}-chat"), "step") == ["a"]


async def test_a_nudge_has_a_swept_run_read_at_once(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    how = {"close_watches": 0, "sweep_interval": 0.3, "poll_fastest": 600.0, "poll_slowest": 600.0}
    async with running_gateway(temporal, tmp_path, **how) as served:
        handle = await start(client, name, workflows.Steps.run)
        stream = await served.stream(name, "until=settled")
        await stream.next()
        assert await served.metric("wakeline_runs_watched_closely") == 0
        for number in range(5):
            await steps(handle, str(number))
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            assert told(await until(stream, "step"), "step") == [str(number)]
        # That it has ended the sweep tells.
        await steps(handle, "end")
        events = await until(stream, "$run.closed")
    assert told(events, "$run.closed")[0]["status"] == "completed"


async def test_what_a_sweep_listed_before_it_failed_has_ended_nevertheless(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed twice is told once: what the page before the failure had is not new to the next sweep."""
    listing, failures = Visibility.listed, 0

    async def failing(visibility: Visibility, query: str, **how: Any) -> AsyncIterator[WorkflowExecutionInfo]:
        nonlocal failures
        async for info in listing(visibility, query, **how):
            yield info
            if query.startswith("CloseTime") and info.execution.workflow_id == name and not failures:
                failures += 1
                raise RPCError("the next page cannot be had", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(Visibility, "listed", failing)
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2, close_watches=0) as served:
        handle = await start(client, name, workflows.Steps.run)
        await served.call("POST", "/v1/runs", json={"workflow_id": name})
        await steps(handle, "a", "end")
        assert told(await settled(served, name), "$run.closed")[0]["status"] == "completed"
    assert failures == 1
