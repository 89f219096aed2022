"""Inputs through everything at once: lost answers, killed gateways, continue-as-new and resets; histories are counted."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.faults.input_workflows import Counted, Counts
from tests.gateways import GatewayProcess
from tests.nats import nats_cluster
from tests.postgres import postgres_server
from tests.sharing import Faults, SharedStore
from tests.soak import SEED, SOAK, dice, times
from tests.stores import served_store
from tests.temporal.test_runs import reset
from wakeline.integrations.temporal import WakelinePlugin

ON_SERVERS = [] if SOAK == 1 else [(2, "postgres"), (2, "nats_of_three")]
INPUTS = times(60, 67)
AT_ONCE = 12
FAULTS = Faults(latency=0.002, lost_wakeups=0.2, repeated_wakeups=0.2)
NAMES = {"signal": "say", "update": "approve"}
Handle = WorkflowHandle[Any, Any]


@asynccontextmanager
async def gateways(
    count: int, address: str | None, directory: Path, store: str = "simulated", **changed: str
) -> AsyncIterator[list[GatewayProcess]]:
    """One gateway on a file, or some on a store that they share; each a process of its own, with variables `changed`.

    The store of several is a simulated one, which is slow and loses wake-ups, `postgres`, or `nats_of_three` nodes.
    """
    temporal = [] if address is None else ["--temporal", address]
    async with AsyncExitStack() as stack:
        environment = {"WAKELINE_LEASE": "2", **changed}
        if store == "postgres":
            environment["WAKELINE_ENGINE"] = await stack.enter_context(postgres_server()).database()
        elif store == "nats_of_three":
            environment["WAKELINE_ENGINE"] = stack.enter_context(nats_cluster()).address()
        elif count > 1:
            environment |= await stack.enter_async_context(served_store(SharedStore(), directory, FAULTS))
        found = [
            GatewayProcess(directory / f"data-{number}", *temporal, environment=environment) for number in range(count)
        ]
        try:
            await asyncio.gather(*(gateway.start() for gateway in found))
            yield found
        finally:
            for gateway in found:
                await gateway.kill()


class Devices:
    """Send each input until they have its outcome. Every second answer is lost, and some requests are cut off."""

    def __init__(self, gateways: list[GatewayProcess], session: str, chance: random.Random) -> None:
        self.outcomes: dict[str, tuple[int, Any]] = {}
        self.seen: Counter[str] = Counter()
        self._gateways = gateways
        self._session = session
        self._chance = chance
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answers = 0

    async def send(self, http: aiohttp.ClientSession, key: str) -> None:
        kind = key.split("-")[0]
        body = {"id": key, "kind": kind, "name": NAMES[kind], "args": [key], "wait": 5}
        async with self._slots:
            while key not in self.outcomes:
                url = f"{self._chance.choice(self._gateways).url}/v1/sessions/{self._session}/inputs"
                hurried = aiohttp.ClientTimeout(self._chance.uniform(0.01, 0.3) if self._chance.random() < 0.2 else 60)
                try:
                    async with http.post(url, json=body, timeout=hurried) as answer:
                        status, said = answer.status, await answer.json()
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.seen[type(error).__name__] += 1
                    await asyncio.sleep(0.05)
                    continue
                self._answers += 1
                self.seen[str(status)] += 1
                if status in (429, 503):
                    await asyncio.sleep(self._chance.uniform(0.05, 0.2))
                elif status != 202 and self._answers % 2 == 0:
                    self.outcomes[key] = status, said


async def keep_killing(gateways: list[GatewayProcess], over: asyncio.Event, chance: random.Random) -> int:
    """Kill one after the other, about one a second; returns how often."""
    kills = 0
    while not over.is_set():
        gateway = gateways[kills % len(gateways)]
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), chance.uniform(0.5, 1.5))
        await gateway.kill()
        kills += 1
        await gateway.start()
    return kills


async def keep_changing(client: Client, handle: Handle, chance: random.Random, over: asyncio.Event) -> Counter[str]:
    """Continue the workflow as new, and reset its run or the one before; returns how often."""
    done: Counter[str] = Counter()
    while not over.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), chance.uniform(0.3, 1.5))
        runs = await lineage(client, handle.id)
        act = chance.choice(["continue", "reset", "reset before"])
        if act == "continue":
            await handle.signal("go_on")
            async with asyncio.timeout(60):
                while (await handle.describe()).run_id == runs[-1].run_id:
                    await asyncio.sleep(0.02)
        else:
            if act == "reset before" and (runs[-1].by_reset or len(runs) == 1):
                continue  # what came after that reset would be lost: `test_a_reset_of_a_run_before_one_that_was_reset`
            run_id = runs[-1 if act == "reset" else -2].run_id
            if not (points := await task_ends(client, handle.id, run_id)):
                continue
            await reset(client, handle, run_id, chance.choice(points))
        done[act] += 1
    return done


async def task_ends(client: Client, name: str, run_id: str) -> list[int]:
    """The events of a run that it can be reset to."""
    handle: Handle = client.get_workflow_handle(name, run_id=run_id)
    return [
        event.event_id
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]


class Step(NamedTuple):
    """A run of a chain, and whether a reset has begun it."""

    run_id: str
    by_reset: bool


async def lineage(client: Client, name: str) -> list[Step]:
    """The runs whose histories count, oldest first: a run that was reset is not among them, but in the new run's history."""
    runs: list[Step] = []
    run_id = (await client.get_workflow_handle(name).describe()).run_id
    while run_id:
        handle: Handle = client.get_workflow_handle(name, run_id=run_id)
        first = await anext(handle.fetch_history_events(page_size=1))
        started = first.workflow_execution_started_event_attributes
        runs.append(Step(run_id, by_reset=started.original_execution_run_id != run_id))
        run_id = started.continued_execution_run_id
    return runs[::-1]


async def signals(client: Client, name: str) -> Counter[str]:
    """How often each key is in the history of the workflow's chain."""
    found: Counter[str] = Counter()
    for run_id, _ in await lineage(client, name):
        handle: Handle = client.get_workflow_handle(name, run_id=run_id)
        async for event in handle.fetch_history_events():
            fields = event.workflow_execution_signaled_event_attributes.header.fields
            found.update([fields["wakeline-input"].data.decode().strip('"')] if "wakeline-input" in fields else [])
    return found


async def log(http: aiohttp.ClientSession, path: str) -> list[dict[str, Any]]:
    """A session's whole log, by pages."""
    events: list[dict[str, Any]] = []
    position = "beginning"
    while True:
        async with http.get(f"{path}/events?limit=1000&from={position}") as answer:
            page = await answer.json()
        if not page["events"]:
            return events
        events += page["events"]
        position = page["cursor"]


async def reported(http: aiohttp.ClientSession, url: str, handle: Handle, keys: set[str]) -> list[dict[str, Any]]:
    """Return the log once it has the outcome of each input, and all resets."""
    path, until = f"{url}/v1/sessions/{handle.id}", time.monotonic() + 60
    while True:
        events = await log(http, path)
        missing = keys - ids(events, "$input.completed").keys() - ids(events, "$input.rejected").keys()
        async with http.get(path) as answer:
            reached = (await answer.json())["runs"][-1]["run_id"]
        latest = (await handle.describe()).run_id
        if not missing and reached == latest:
            return events
        assert time.monotonic() < until, f"without an outcome: {missing}; reached {reached} of {latest}"
        await asyncio.sleep(0.1)


def ids(events: list[dict[str, Any]], topic: str) -> Counter[str]:
    return Counter(event["data"]["id"] for event in events if event["topic"] == topic)


@pytest.mark.timeout(480 + INPUTS)
@pytest.mark.parametrize(("count", "store"), [(1, "simulated"), (2, "simulated"), *ON_SERVERS])
async def test_each_input_is_handled_once_through_kills_lost_answers_continuations_and_resets(
    client: Client, tmp_path: Path, count: int, store: str
) -> None:
    chance, name = dice(15), f"counts-{uuid.uuid4().hex[:8]}"
    keys = [f"{kind}-{number}" for number in range((INPUTS + 1) // 2) for kind in NAMES]
    plugin = WakelinePlugin("http://127.0.0.1:9", report=None, nudge=False)
    over = asyncio.Event()
    async with (
        Worker(client, task_queue=name, workflows=[Counts], plugins=[plugin]),
        gateways(count, client.service_client.config.target_host, tmp_path, store) as running,
        aiohttp.ClientSession() as http,
    ):
        await client.start_workflow(Counts.run, Counted(), id=name, task_queue=name)
        handle: Handle = client.get_workflow_handle(name)
        devices = Devices(running, name, chance)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(keep_killing(running, over, chance))
            changing = group.create_task(keep_changing(client, handle, chance, over))
            async with asyncio.TaskGroup() as sending:
                for key in keys:
                    sending.create_task(devices.send(http, key))
            over.set()
        seconds = time.monotonic() - began
        events = await reported(http, running[0].url, handle, set(keys))
        print(
            f"{count} gateways, {store}, seed {SEED}: {len(keys)} inputs in {seconds:.0f} s, {len(keys) / seconds:.1f} a second; "
            f"{killing.result()} kills, "
            f"{dict(changing.result())}; answers: {dict(devices.seen)}"
        )
        counted = await handle.query(Counts.all_counted)
        histories = await signals(client, name)
        await handle.terminate()
    once = Counter(keys)
    assert Counter(status for status, _ in devices.outcomes.values()) == {200: len(keys)}
    assert [answer for _, answer in devices.outcomes.values() if answer["status"] != "completed"] == []
    assert Counter(counted.done) == once, "a handler with `once` has handled each once"
    assert histories == Counter(key for key in keys if key.startswith("signal")), "each signal is in the history once"
    assert Counter(counted.heard) == once
    assert ids(events, "$input.accepted") == once
    assert ids(events, "$input.completed") == once
    assert ids(events, "$input.rejected") == ids(events, "$input.undone") == Counter()
