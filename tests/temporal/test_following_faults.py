"""Bad input, and bad times, of what is followed: each is told, and none stops the others."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.gateways import GatewayProcess
from tests.servers import temporal_server
from tests.soak import SOAK, times
from tests.support import Served
from tests.temporal import odd_workflows
from tests.temporal import run_workflows as workflows
from tests.temporal.fronts import front, wire
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import QUEUE, reset, start, steps, until
from wakeline.cli.processes import free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.rules import Follow
from wakeline.gateway.sessions import Run, Runs
from wakeline.gateway.settings import Settings


@pytest.fixture
def name() -> str:
    return f"faults-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


@asynccontextmanager
async def gateway_at(address: str, data: Path, **changed: Any) -> AsyncIterator[Served]:
    """A gateway that reaches Temporal by what stands between."""
    settings = Settings(data=str(data), port=0, temporal=address, durability="process", no_auth=True, **changed)
    async with gateway(settings) as url, Served(url) as served:
        yield served


async def log_of(served: Served, session: str) -> list[dict[str, Any]]:
    """A session's events, if there is one; asking for it does not make Wakeline look for its workflow."""
    listed = (await served.call("GET", "/v1/sessions?limit=1000"))[1]["sessions"]
    if session not in [found["session"] for found in listed]:
        return []
    path = f"/v1/sessions/{quote(session, safe='')}/events?limit=10000"
    events: list[dict[str, Any]] = (await served.call("GET", path))[1]["events"]
    return events


async def ended(served: Served, *sessions: str, seconds: float = 60) -> list[list[dict[str, Any]]]:
    """The sessions' events when each has told an end; they are looked at without a device."""
    logs: list[list[dict[str, Any]]] = []
    async with asyncio.timeout(seconds):
        for session in sessions:
            while not told(log := await log_of(served, session), "$session.settled"):
                await asyncio.sleep(0.05)
            logs.append(log)
    return logs


async def health(served: Served, beginning: str) -> str:
    """What `/readyz` says of Temporal, when that begins so."""
    async with asyncio.timeout(60):
        while True:
            _, answer = await served.call("GET", "/readyz")
            temporal: str = answer["temporal"]
            if temporal.startswith(beginning):
                assert answer["status"] == ("ready" if temporal == "ok" else "degraded")
                return temporal
            await asyncio.sleep(0.05)


async def play(client: Client, *names: str) -> None:
    """Workflows that say `a` and end."""

    async def one(name: str) -> None:
        handle = await start(client, name, workflows.Steps.run)
        await steps(handle, "a", "end")
        await handle.result()

    await asyncio.gather(*map(one, names))


def are_whole(logs: Sequence[list[dict[str, Any]]], said: Sequence[str] = ("a",)) -> None:
    """Each session has one run's start, all it said, and its end, once and in order."""
    for log in logs:
        assert [event["offset"] for event in log] == list(range(len(log)))
        about = [event["topic"] for event in log if event["topic"] != "$run.waiting"]
        assert about == ["$run.started", *["step"] * len(said), "$run.closed", "$session.settled"]
        assert told(log, "step") == list(said)
        closed = told(log, "$run.closed")[0]
        assert (closed["status"], closed["drained"]) == ("completed", True)


async def test_a_rule_that_temporal_refuses_is_told_and_stops_nothing_else(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = (
        Follow(workflow_id=f"{name}-a*", query="NoSuchAttribute = 'x'"),
        Follow(workflow_id=f"{name}-b*", session="too-long-" * 60),
        Follow(workflow_id=f"{name}-c*", session="{workflow_id}"),
    )
    how = {"follow": rules, "sweep_interval": 0.2, "close_watches": 0}
    async with running_gateway(temporal, tmp_path, **how) as served:
        refused = await health(served, "invalid rule: ")
        assert "NoSuchAttribute" in refused
        assert f"{name}-a" in refused
        waiting = await served.stream(f"{name}-d", "until=settled&wait_for_start=true")
        await play(client, f"{name}-b1", f"{name}-c1", f"{name}-c\nline")
        await play(client, f"{name}-c2", f"{name}-d")
        are_whole(await ended(served, f"{name}-c1", f"{name}-c2"))
        async with asyncio.timeout(60):
            are_whole([await waiting.rest()])
    told_of = capsys.readouterr().out.splitlines()
    assert sum("cannot be swept now" in line and "NoSuchAttribute" in line for line in told_of) == 1
    assert sum("is not followed" in line for line in told_of) == 2


async def test_workflows_are_found_whatever_their_ids(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    odd = [f"{name}{rest}" for rest in ("it's", '"a"', "back\\slash", "100%_", "snö/☃", "`{x}", "end'", "--'; x")]
    odd += [f"'{name}'", f"\\{name}"]
    long = name + "x" * (1000 - len(name))
    ruled = [f'{name}-rule"\\1', f'{name}-rule"\\2']
    rules = (Follow(workflow_id=f'{name}-rule"\\*'), Follow(workflow_id=f"{name}-'line\n*", session=f"{name}-line"))
    async with running_gateway(temporal, tmp_path, follow=rules, sweep_interval=0.2) as served:
        streams = [await served.stream(session, "until=settled&wait_for_start=true") for session in odd]
        statuses = {session: stream.answer.status for session, stream in zip(odd, streams, strict=True)}
        assert not {s for s, status in statuses.items() if status != 200}
        await play(client, *odd, *ruled, long, f"{name}-'line\nfeed", f"{name}-rule")
        async with asyncio.timeout(60):
            are_whole([await stream.rest() for stream in streams])
        are_whole(await ended(served, *ruled, f"{name}-line"))
        assert not await log_of(served, f"{name}-rule-1")
        registration = {"workflow_id": long, "session": f"{name}-long"}
        assert (await served.call("POST", "/v1/runs", json=registration))[0] == 200
        are_whole(await ended(served, f"{name}-long"))
        for bad in ("x" * 1001, "", "\ud800", "a\x00"):
            status, answer = await served.call("POST", "/v1/runs", json={"workflow_id": bad, "session": "s"})
            refusals = ((404, "workflow_not_found"), (400, "body_invalid"), (400, "request_invalid"))
            assert (status, answer["error"]["code"]) in refusals, bad


async def test_a_gateway_s_clock_may_be_hours_off(client: Client, tmp_path: Path, name: str) -> None:
    environment = {
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "WAKELINE_DURABILITY": "process",
        "WAKELINE_SWEEP_INTERVAL": "0.2",
        "WAKELINE_CLOSE_WATCHES": "1",
        "WAKELINE_FOLLOW": f'[{{"workflow_id": "{name}-rule*"}}]',
    }
    temporal = ("--temporal", client.service_client.config.target_host)
    processes = [
        GatewayProcess(tmp_path / off, *temporal, prefix=("faketime", "-f", off), environment=environment)
        for off in ("+2h", "-2h")
    ]
    await play(client, f"{name}-rule-0")
    try:
        await asyncio.gather(*(process.start() for process in processes))
        async with Served(processes[0].url) as ahead, Served(processes[1].url) as behind:
            both = (ahead, behind)
            streams = [await served.stream(f"{name}-0", "wait_for_start=true&until=settled") for served in both]
            handles = [await start(client, f"{name}-rule-{number}", workflows.Steps.run) for number in (1, 2, 3)]
            await play(client, f"{name}-0")
            async with asyncio.timeout(60):
                are_whole([await stream.rest() for stream in streams])
                while min([await served.metric("wakeline_runs_followed") for served in both]) < 3:
                    await asyncio.sleep(0.05)
            # Two of these are swept.
            await asyncio.gather(*(steps(handle, "a", "end") for handle in handles))
            rules = [f"{name}-rule-{number}" for number in range(4)]
            logs = [await ended(served, *rules, seconds=90) for served in both]
            are_whole([*logs[0], *logs[1]])
            assert logs[0][0][0]["time"] > logs[0][0][-2]["data"]["closed_at"] > logs[1][0][0]["time"]
    finally:
        for process in processes:
            await process.kill()


@asynccontextmanager
async def neighbours(client: Client) -> AsyncIterator[None]:
    """Others, who make as many calls as the namespace is allowed, and more."""

    async def call() -> None:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        while True:
            with suppress(RPCError):
                await client.workflow_service.describe_namespace(request)

    calling = [asyncio.create_task(call()) for _ in range(8)]
    yield
    for task in calling:
        task.cancel()


async def test_a_busy_server_is_told_and_not_overrun(tmp_path: Path, name: str) -> None:
    async with (
        temporal_server(frontend_namespaceRPS=100) as busy,
        Worker(busy.client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES),
        running_gateway(busy, tmp_path, sweep_interval=0.5, drain_grace=60.0) as served,
    ):
        names = [f"{name}-{number}" for number in range(30 * SOAK)]
        handles = [await start(busy.client, each, workflows.Steps.run) for each in names]
        await asyncio.gather(*(registered(served, each) for each in names))

        async def nudge() -> None:
            await served.call("POST", "/v1/nudge", json={"workflows": [{"workflow_id": each} for each in names]})

        async def say(word: str) -> None:
            await asyncio.gather(*(steps(handle, word) for handle in handles))
            await nudge()

        async def refused() -> float:
            return await served.metric("wakeline_temporal_calls_total", outcome="RESOURCE_EXHAUSTED")

        before = await refused()
        await say("a")
        async with neighbours(busy.client):
            # The calls of one nudge may all come before the limit is reached.
            async with asyncio.timeout(60):
                while not (state := (await served.call("GET", "/readyz"))[1]["temporal"]).startswith("busy: "):
                    await nudge()
                    await asyncio.sleep(0.05)
            assert "rate limit exceeded" in state
        await say("b")
        await say("end")
        are_whole(await ended(served, *names, seconds=100), ("a", "b"))
        # It has rested whenever it was told to: each time a few of those that were on their way were refused.
        assert await refused() < before + 2 * len(names)


async def registered(served: Served, name: str) -> None:
    """Have a workflow followed, however often that must be asked for."""
    async with asyncio.timeout(60):
        while (await served.call("POST", "/v1/runs", json={"workflow_id": name}))[0] != 200:
            await asyncio.sleep(0.2)


async def test_calls_that_are_refused_in_the_middle_of_a_run(client: Client, tmp_path: Path, name: str) -> None:
    async with front(client) as before, gateway_at(before.address, tmp_path) as served:
        handles = [await start(client, f"{name}-namespace-{number}", workflows.Steps.run) for number in range(3)]
        await asyncio.gather(*(registered(served, handle.id) for handle in handles))
        streams = [await served.stream(handle.id, "until=settled") for handle in handles]
        for handle in handles:
            await steps(handle, "a")
        for stream in streams:
            assert told(await until(stream, "step"), "step") == ["a"]
        # Some calls, as where a key lacks a permission; then all of them.
        calls = ("GetWorkflowExecutionHistory", "DescribeWorkflowExecution", "QueryWorkflow")
        await before.fail(**{call: [7, "Not for you."] for call in calls})
        for handle in handles:
            await steps(handle, "b")
            await served.call("POST", "/v1/nudge", json={"workflow_id": handle.id})
        assert await health(served, "refused: ") == "refused: Not for you."
        status, answer = await served.call("GET", f"/v1/sessions/{name}-other/events")
        assert (status, answer["error"]["code"]) == (503, "temporal_unavailable")
        await before.fail(all_=[16, "Who are you?"])
        assert await health(served, "refused: Who") == "refused: Who are you?"
        # What a server says that has just been started is believed only when it says so again and again.
        await before.fail(GetWorkflowExecutionHistory=[5, "workflow not found", 2], QueryWorkflow=[5, "not found", 2])
        await asyncio.gather(*(steps(handle, "end") for handle in handles))
        async with asyncio.timeout(60):
            rest = [await stream.rest() for stream in streams]
        for log in rest:
            assert told(log, "step") == ["b"]
            assert [(c["status"], c["drained"]) for c in told(log, "$run.closed")] == [("completed", True)]


async def test_open_runs_wait_for_a_server_that_is_away_at_the_start(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = SqliteEngine(tmp_path)
    await engine.open()
    for number in range(20):
        run = str(uuid.uuid4())
        each = f"{name}-{number}"
        await engine.create_session(NewSession(each))
        await Runs(engine).put(each, Run(each, run, run, run, "Steps", "2026-11-21T05:14:43.123Z"))
    await engine.close()
    async with gateway_at(f"127.0.0.1:{free_port()}", tmp_path) as served:
        assert await health(served, "unreachable: ")
        async with asyncio.timeout(60):
            while await served.metric("wakeline_temporal_calls_total", call="GetSystemInfo") < 3:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            for number in range(20):
                while not (log := await log_of(served, f"{name}-{number}")):
                    await asyncio.sleep(0.05)
                assert [e["topic"] for e in log] == ["$run.started"]
        assert await served.metric("wakeline_runs_followed") == 20
        # Each has tried, and waits.
        assert await served.metric("wakeline_temporal_calls_total", call="DescribeWorkflowExecution") <= 60
    assert "Traceback" not in capsys.readouterr().out


async def test_a_server_that_answers_slowly_or_not_at_all(client: Client, tmp_path: Path, name: str) -> None:
    async with wire(client) as between, gateway_at(between.address, tmp_path) as served:
        await play(client, f"{name}-over")
        await registered(served, f"{name}-over")
        await ended(served, f"{name}-over")
        handle = await start(client, name, workflows.Steps.run)
        stream = await served.stream(name, "until=settled")
        for word, trouble in (("a", between.hold), ("b", between.lose)):
            trouble()
            await steps(handle, word)
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            for _ in range(5):
                async with asyncio.timeout(60):
                    assert await log_of(served, name)
                    are_whole([await log_of(served, f"{name}-over")])
            await health(served, "unreachable: ")
            async with asyncio.timeout(60):
                status, answer = await served.call("GET", f"/v1/sessions/{name}-nobody/events")
            assert (status, answer["error"]["code"]) == (503, "temporal_unavailable")
            between.go_on()
            assert told(await until(stream, "step"), "step") == [word]
        await steps(handle, "end")
        await until(stream, "$session.settled")
        are_whole([await log_of(served, name)], ("a", "b"))


async def test_a_namespace_that_is_made_later(client: Client, tmp_path: Path, name: str) -> None:
    rules = (Follow(workflow_type="Steps"),)
    async with gateway_at(client.service_client.config.target_host, tmp_path, namespace=name, follow=rules) as served:
        assert await health(served, "no such namespace: ") == f"no such namespace: Namespace {name} is not found."
        # A device must not be told that there is no such workflow: it would not come again.
        status, answer = await served.call("GET", f"/v1/sessions/{name}-0/events")
        assert (status, answer["error"]["code"]) == (503, "temporal_unavailable")
        assert name in answer["error"]["message"]
        kept = Duration(seconds=24 * 3600)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=kept)
        )
        there = Client(**{**client.config(), "namespace": name})  # type: ignore[arg-type] # mypy widens the TypedDict
        async with asyncio.timeout(60):
            await until_made(there)
        async with Worker(there, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
            await play(there, f"{name}-0")
            await health(served, "ok")
            are_whole(await ended(served, f"{name}-0"))


async def until_made(client: Client) -> None:
    """Return when workflows can be started in the client's namespace."""
    while True:
        try:
            await client.start_workflow(
                "Nothing", id="probe", task_queue="nobody", execution_timeout=timedelta(seconds=1)
            )
        except RPCError:
            await asyncio.sleep(0.2)
        else:
            return


async def test_what_a_run_says_too_much_of_is_cut_or_told_as_a_gap(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    queue = f"odd-{name}"
    fails = {"deep": (60, 25_000), "long": (1, 1_500_000), "result": (0, 1_500_000)}
    odd = [("ok", 1), ("$x,\n", 2), ("", 3), ("t" * 300, 4), ("big", 1_400_000), ("huge", 3_200_000), ("last", 5)]
    async with running_gateway(temporal, tmp_path) as served:

        async def run(kind: Any, name: str, *given: Any) -> WorkflowHandle[Any, Any]:
            handle: WorkflowHandle[Any, Any] = await client.start_workflow(kind, args=given, id=name, task_queue=queue)
            assert (await served.call("POST", "/v1/runs", json={"workflow_id": name, "result": True}))[0] == 200
            return handle

        # Nothing of this has run when it is over: nothing is waited for.
        never = await run(odd_workflows.Odd.run, f"{name}-never", [])
        await never.terminate(reason="é" * 20_000)
        ((log),) = await ended(served, f"{name}-never")
        closed = told(log, "$run.closed")[0]
        assert (closed["status"], closed["drained"]) == ("terminated", True)
        async with Worker(client, task_queue=queue, workflows=odd_workflows.WORKFLOWS):
            saying = await run(odd_workflows.Odd.run, f"{name}-odd", odd)
            await asyncio.gather(
                *(run(odd_workflows.Fails.run, f"{name}-{how}", *given) for how, given in fails.items())
            )
            logs = await ended(served, *(f"{name}-{how}" for how in fails))
            stream = await served.stream(f"{name}-odd", "until=settled")
            events = await until(stream, "last")
            await saying.signal("go")
            events += await until(stream, "$session.settled")
    by_status = {how: told(log, "$run.closed")[0] for how, log in zip(fails, logs, strict=True)}
    assert by_status["result"]["result_bytes"] == 1_500_002
    for how, message in (("deep", "level 59 üüü"), ("long", "level 0 üüü")):
        failure = by_status[how]["failure"]
        assert failure["message"].startswith(message)
        assert failure["message"].endswith(" bytes in all)")
        assert failure["type"].endswith("… (cut, 100000 bytes in all)")
        assert len(json.dumps(by_status[how]).encode()) < 150_000
    assert by_status["deep"]["failure"]["cause"].startswith("level 0 üüü")
    assert "é" * 4096 + "… (cut, " in closed["reason"]
    said = [e for e in events if e["topic"] in ("ok", "x__", "_", "big", "last", "$gap") or e["topic"][0] == "t"]
    assert [len(e["data"]) for e in said if e["topic"] != "$gap"] == [1, 2, 3, 4, 1_400_000, 5]
    assert told(events, "$gap") == [{"missed": 1, "first_available": 6, "source": "workflow"}]
    assert [e["topic"] for e in said][-3:] == ["big", "$gap", "last"]
    assert told(events, "$run.closed")[0]["drained"]


async def test_very_many_runs_of_one_session_end_at_once(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    count = times(50, 100)
    rules = (Follow(workflow_id=f"{name}-*", session=name),)
    how = {"follow": rules, "sweep_interval": 0.2, "close_watches": 20, "drain_grace": 60.0}
    names = [f"{name}-{number}" for number in range(count)]
    async with running_gateway(temporal, tmp_path, **how) as served:
        handles = await asyncio.gather(*(start(client, each, workflows.Sleeper.run, 3600.0) for each in names))
        async with asyncio.timeout(60 * SOAK):
            while await served.metric("wakeline_runs_followed") < count:
                await asyncio.sleep(0.1)
        await asyncio.gather(*(handle.terminate() for handle in handles))
        async with asyncio.timeout(60 * SOAK):
            while (state := (await served.call("GET", f"/v1/sessions/{name}"))[1])["settled"] is False:
                await asyncio.sleep(0.1)
        log = (await served.call("GET", f"/v1/sessions/{name}/events?limit=10000"))[1]["events"]
        while log[-1]["offset"] + 1 < state["next_offset"]:
            page = f"/v1/sessions/{name}/events?limit=10000&from={state['epoch']}-{log[-1]['offset'] + 1}"
            log += (await served.call("GET", page))[1]["events"]
    assert [event["offset"] for event in log] == list(range(len(log)))
    assert sorted(closed["workflow_id"] for closed in told(log, "$run.closed")) == sorted(names)
    assert {closed["status"] for closed in told(log, "$run.closed")} == {"terminated"}
    assert [event["topic"] for event in log].count("$session.settled") == 1
    assert log[-1]["topic"] == "$session.settled"
    assert len(state["runs"]) == min(count, 1000)


async def test_a_workflow_id_that_is_started_anew_all_the_time(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    count = times(10, 25)
    async with running_gateway(temporal, tmp_path, sweep_interval=0.1) as served:
        stream = await served.stream(name, "wait_for_start=true")
        runs: list[str | None] = []
        events: list[dict[str, Any]] = []
        for number in range(count):
            handle = await start(client, name, workflows.Steps.run)
            runs.append(handle.first_execution_run_id)
            await served.call("POST", "/v1/nudge", json={"workflow_id": name})
            await steps(handle, str(number), "end")
            events += await until(stream, "$session.settled")
        stream.close()
    assert [event["offset"] for event in events] == list(range(len(events)))
    assert told(events, "step") == [str(number) for number in range(count)]
    assert [event["run"] for event in events if event["topic"] == "$run.closed"] == runs
    assert [event["run"] for event in events if event["topic"] == "$run.started"] == runs


async def test_a_reset_of_a_run_that_the_record_no_longer_has(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = "wakeline.gateway.sessions.run_records"
    monkeypatch.setattr(f"{records}.UNDIVIDED_BYTES", 0)
    monkeypatch.setattr(f"{records}._KEPT", 0)  # of the ended runs of a part
    async with running_gateway(temporal, tmp_path, sweep_interval=0.2) as served:
        stream = await served.stream(name, "wait_for_start=true")
        handles = []
        for word in ("a", "b"):
            handles.append(await start(client, name, workflows.Steps.run))
            await steps(handles[-1], word, "end")
            await until(stream, "$session.settled")
        first = handles[0].first_execution_run_id or ""
        async with asyncio.timeout(60):  # the record is written a moment after the events
            while first in [run["run"] for run in (await served.call("GET", f"/v1/sessions/{name}"))[1]["runs"]]:
                await asyncio.sleep(0.05)
        new = await reset(client, handles[0], first, 4)
        events = await until(stream, "$session.settled")
    started, closed = told(events, "$run.started")[0], told(events, "$run.closed")[0]
    assert (started["run_id"], started["reset_of"], closed["run_id"]) == (new, first, new)
    assert told(events, "step") == ["a"]
