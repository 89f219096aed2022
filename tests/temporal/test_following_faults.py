"""Bad input, and bad times, of what is followed: each is told, and none stops the others."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.gateways import GatewayProcess
from tests.support import Served
from tests.temporal import run_workflows as workflows
from tests.temporal.test_follower import running_gateway, told
from tests.temporal.test_runs import QUEUE, start, steps
from wakeline.gateway.settings import Follow


@pytest.fixture
def name() -> str:
    return f"faults-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=QUEUE, workflows=workflows.WORKFLOWS, activities=workflows.ACTIVITIES):
        yield


async def log_of(served: Served, session: str) -> list[dict[str, Any]]:
    """A session's events, whether or not somebody watches it."""
    path = f"/v1/sessions/{quote(session, safe='')}/events?limit=10000"
    status, answer = await served.call("GET", path)
    return answer["events"] if status == 200 else []


async def ended(served: Served, *sessions: str, seconds: float = 40) -> list[list[dict[str, Any]]]:
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
    async with asyncio.timeout(40):
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
        async with asyncio.timeout(30):
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
        async with asyncio.timeout(30):
            are_whole([await stream.rest() for stream in streams])
        are_whole(await ended(served, *ruled, f"{name}-line"))
        assert not await log_of(served, f"{name}-rule-1")
        registration = {"workflow_id": long, "session": f"{name}-long"}
        assert (await served.call("POST", "/v1/runs", json=registration))[0] == 200
        are_whole(await ended(served, f"{name}-long"))
        for bad in ("x" * 1001, "", "\ud800", "a\x00"):
            status, answer = await served.call("POST", "/v1/runs", json={"workflow_id": bad, "session": "s"})
            assert (status, answer["error"]["code"]) in ((404, "workflow_not_found"), (400, "body_invalid")), bad


@pytest.mark.parametrize("ahead", ["+2h", "-2h"])
async def test_a_gateway_s_clock_may_be_hours_off(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, ahead: str
) -> None:
    process = GatewayProcess(
        tmp_path,
        *("--temporal", temporal.client.service_client.config.target_host),
        prefix=("faketime", "-f", ahead),
        environment={
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "WAKELINE_DURABILITY": "process",
            "WAKELINE_SWEEP_INTERVAL": "0.2",
            "WAKELINE_CLOSE_WATCHES": "1",
            "WAKELINE_FOLLOW": f'[{{"workflow_id": "{name}-rule*"}}]',
        },
    )
    try:
        await play(client, f"{name}-rule-0")
        await process.start()
        async with Served(process.url) as served:
            stream = await served.stream(f"{name}-0", "wait_for_start=true&until=settled")
            handles = [await start(client, f"{name}-rule-{number}", workflows.Steps.run) for number in (1, 2, 3)]
            await play(client, f"{name}-0")
            async with asyncio.timeout(30):
                are_whole([await stream.rest()])
                while await served.metric("wakeline_runs_followed") < 3:
                    await asyncio.sleep(0.05)
            # Two of these are swept.
            await asyncio.gather(*(steps(handle, "a", "end") for handle in handles))
            logs = await ended(served, *(f"{name}-rule-{number}" for number in range(4)))
            are_whole(logs)

            assert (await served.call("GET", "/readyz"))[1]["status"] == "ready"
    finally:
        await process.kill()
