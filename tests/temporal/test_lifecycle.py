"""Sessions that are closed, deleted or taken elsewhere while a workflow writes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.sharing import Faults, SharedStore
from tests.support import Served
from tests.temporal import follower_workflows as workflows
from tests.temporal.test_follower import either, name, running_gateway, served, start, to_the_end, told, worker
from wakeline.gateway.following.finding.finder import Finder

__all__ = ["name", "served", "worker"]


def path_of(name: str) -> str:
    return f"/v1/sessions/{name.replace('/', '%2F')}"


async def names(served: Served) -> list[str]:
    """The sessions there are; asking for one by its name would have its workflow looked for."""
    _, listed = await served.call("GET", "/v1/sessions")
    return [session["session"] for session in listed["sessions"]]


async def state_when(served: Served, name: str, **wanted: Any) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            status, state = await served.call("GET", path_of(name))
            if status == 200 and all(state[key] == value for key, value in wanted.items()):
                assert isinstance(state, dict)
                return state
            await asyncio.sleep(0.05)


async def until_waiting(served: Served, name: str) -> list[dict[str, Any]]:
    """What a workflow that waits has said so far: twenty numbers."""
    stream = await served.stream(name, "topics=number")
    async with asyncio.timeout(60):
        events = await stream.take(20)
    stream.close()
    return events


async def until_nothing_is_followed(served: Served) -> None:
    async with asyncio.timeout(60):
        while await served.metric("wakeline_runs_followed"):
            await asyncio.sleep(0.05)


@either
@pytest.mark.usefixtures("worker")
async def test_a_deleted_session_stays_deleted_until_a_device_comes(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 20)
    live = await served.stream(name, "topics=number")
    async with asyncio.timeout(60):
        assert told(await live.take(20), "number") == list(range(20))
    await until_waiting(served, name)
    first = await state_when(served, name)
    assert await served.call("DELETE", path_of(name)) == (204, None)
    async with asyncio.timeout(60):
        assert await live.rest() == []
    await handle.signal(workflows.Talks.go)
    await handle.result()
    await until_nothing_is_followed(served)
    assert name not in await names(served)
    events = await to_the_end(served, name)
    assert [e["offset"] for e in events] == list(range(len(events)))
    assert events[0]["topic"] == "$run.started"
    assert told(events, "number") == list(range(20))
    assert (await state_when(served, name))["epoch"] != first["epoch"]


@either
@pytest.mark.usefixtures("worker")
async def test_a_deletion_while_the_follower_writes_is_whole(client: Client, served: Served, name: str) -> None:
    await start(client, name, workflows.Talks.run, "completes", 300)
    for _ in range(8):
        stream = await served.stream(name, "topics=number")
        async with asyncio.timeout(60):
            await stream.next()
        stream.close()
        assert (await served.call("DELETE", path_of(name)))[0] == 204
        await asyncio.sleep(0.1)
        assert name not in await names(served)
    events = await to_the_end(served, name)
    assert [e["offset"] for e in events] == list(range(len(events)))
    assert [e["topic"] for e in events[:1] + events[-2:]] == ["$run.started", "$run.closed", "$session.settled"]
    assert told(events, "number") == list(range(300))


@pytest.mark.usefixtures("worker")
async def test_a_lookup_that_ends_after_a_deletion_does_not_undo_it(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 0)
    asked, may_answer, entered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    named_after, enter = Finder.named_after, Finder.enter

    async def late(finder: Finder, session: str) -> Any:
        asked.set()
        await may_answer.wait()
        return await named_after(finder, session)

    async def noticed(*args: Any, **how: Any) -> Any:
        try:
            return await enter(*args, **how)
        finally:
            entered.set()

    monkeypatch.setattr(Finder, "named_after", late)
    monkeypatch.setattr(Finder, "enter", noticed)
    await served.publish(name, {"topic": "t", "data": 1})
    stream = await served.stream(name)
    async with asyncio.timeout(60):
        await asked.wait()
        await stream.next()
    assert (await served.call("DELETE", path_of(name)))[0] == 204
    may_answer.set()
    async with asyncio.timeout(60):
        await entered.wait()
    await asyncio.sleep(0.1)
    assert name not in await names(served)
    await handle.terminate()


@pytest.mark.parametrize(("by", "sweep_interval"), [("a sweep", 0.2), ("a nudge", 60.0)])
@pytest.mark.usefixtures("worker")
async def test_a_gateway_that_has_not_heard_of_a_deletion_does_not_undo_it(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str, by: str, sweep_interval: float
) -> None:
    store, deaf = SharedStore(), Faults(lost_wakeups=1.0, poll=2.0)
    handle = await start(client, name, workflows.Talks.run, "waits", 20)
    async with (
        running_gateway(temporal, tmp_path, store.engine(deaf, 1), sweep_interval=sweep_interval) as first,
        running_gateway(temporal, tmp_path, store.engine(deaf, 2), sweep_interval=sweep_interval) as second,
    ):
        await until_waiting(first, name)
        owner, other = (first, second) if await first.metric("wakeline_runs_followed") else (second, first)
        async with asyncio.timeout(60):
            live = await other.stream(name, "topics=number")
            await live.take(20)
            assert (await owner.call("DELETE", path_of(name)))[0] == 204
            if by == "a nudge":
                assert (await other.call("POST", "/v1/nudge", json={"workflow_id": name}))[0] == 202
            assert await live.rest() == [], "the gateway has heard of it"
        assert name not in await names(owner)
    await handle.terminate()


@pytest.mark.usefixtures("worker")
async def test_a_gateway_that_has_not_heard_of_a_deletion_follows_the_run_into_the_next_life(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    store, deaf = SharedStore(), Faults(lost_wakeups=1.0)
    handle = await start(client, name, workflows.Talks.run, "waits", 20)
    async with (
        running_gateway(temporal, tmp_path, store.engine(deaf, 1), lease=1.0) as first,
        running_gateway(temporal, tmp_path, store.engine(deaf, 2), lease=1.0) as second,
    ):
        await until_waiting(first, name)
        async with asyncio.timeout(60):
            while not (follows := [await each.metric("wakeline_runs_followed") for each in (first, second)]).count(1):
                await asyncio.sleep(0.05)
        other = first if follows[1] else second
        for _ in range(2):  # by then the follower of the first life has been idle
            assert (await other.call("DELETE", path_of(name)))[0] == 204
            assert told(await until_waiting(other, name), "number") == list(range(20))
    await handle.terminate()


@either
@pytest.mark.usefixtures("worker")
async def test_a_run_that_goes_on_in_a_closed_session_ends_in_the_record_alone(
    client: Client, served: Served, name: str
) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 20)
    live = await served.stream(name)
    await until_waiting(served, name)
    status, closed = await served.call("POST", f"{path_of(name)}/close")
    assert (status, closed["closed"], closed["runs"][0]["status"]) == (200, True, "running")
    async with asyncio.timeout(60):
        events = await live.rest()
    assert events[-1]["topic"] == "$session.closed"
    async with served.http.get(
        f"{path_of(name)}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": live.last_id}
    ) as answer:
        assert answer.status == 204
    await handle.signal(workflows.Talks.go)
    await handle.result()
    state = await state_when(served, name, settled=True)
    assert [run["status"] for run in state["runs"]] == ["completed"]
    assert state["next_offset"] == len(events)
    # Another run of the workflow finds nothing to be added to, and its devices are served what there is.
    await start(client, name, workflows.Talks.run, "completes", 0)
    assert await to_the_end(served, name) == events
    status, refused = await served.call("POST", "/v1/runs", json={"workflow_id": name})
    assert (status, refused["error"]["code"]) == (409, "session_closed")


@pytest.mark.usefixtures("worker")
async def test_age_counts_from_the_end_of_the_last_run(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, name: str
) -> None:
    async with running_gateway(temporal, tmp_path, retention_age=0.5) as served:
        handle = await start(client, name, workflows.Talks.run, "waits", 20)
        await until_waiting(served, name)
        await asyncio.sleep(1.2)
        assert name in await names(served), "its run is open"
        await handle.signal(workflows.Talks.go)
        async with asyncio.timeout(60):
            while name in await names(served):
                await asyncio.sleep(0.05)
    async with running_gateway(temporal, tmp_path) as served:
        assert await names(served) == []


@pytest.mark.usefixtures("worker")
async def test_an_imported_session_is_not_followed(client: Client, served: Served, name: str) -> None:
    handle = await start(client, name, workflows.Talks.run, "waits", 20)
    await until_waiting(served, name)
    async with served.http.get(f"{path_of(name)}/export") as answer:
        file = await answer.read()
    ndjson = {"Content-Type": "application/x-ndjson"}
    status, refused = await served.call("POST", f"{path_of(name)}/import", data=file, headers=ndjson)
    assert (status, refused["error"]["code"]) == (409, "session_exists")
    assert (await served.call("DELETE", path_of(name)))[0] == 204
    status, made = await served.call("POST", f"{path_of(name)}/import", data=file, headers=ndjson)
    assert (status, made["runs"][0]["status"], made["runs"][0]["followed"]) == (201, "unknown", False)
    events = await to_the_end(served, name)
    assert told(events, "number") == list(range(20))
    await handle.signal(workflows.Talks.go)
    await handle.result()
    await until_nothing_is_followed(served)
    assert (await state_when(served, name))["next_offset"] == made["next_offset"]
