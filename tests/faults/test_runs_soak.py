"""Workflows that begin, go on and end in every way at random, while the gateway is killed every few seconds.

Or two gateways share a store, and the leases by which they share the runs move every second: one after the other is stopped
for longer than its lease, and then goes on with what it has in its hands.

In the end each session is held against what Temporal itself says of each chain, and against each workflow's own stream, asked
past the gateway: one `$run.closed` for each, with its status, and every event once, in order. WAKELINE_RUNS says how many
chains there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import aiohttp
import pytest
from temporalio.api.enums.v1 import ContinueAsNewInitiator, EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHistoryEventFilterType
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from tests.faults.soak_workflows import Plan, Soaks
from tests.gateways import GatewayProcess
from tests.sharing import Faults, SharedStore
from tests.soak import SEED, dice, times
from tests.stores import served_store
from tests.support import Served
from tests.workers import WorkerProcess
from wakeline.client import RefusedError, SessionClient, SessionEvent
from wakeline.streams.wire import POLL, PollInput, PollResult, decode_payload

CHAINS: Final = int(os.environ.get("WAKELINE_RUNS") or times(12, 20))
AT_ONCE: Final = 40
LEASE: Final = 1.0
GRACE: Final = 3.0
FAULTS: Final = Faults(latency=0.002, lost_wakeups=0.2, repeated_wakeups=0.2)
ENDS: Final = ["completed", "completed", "failed", "canceled", "terminated", "timed_out"]
STATUS: Final = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "canceled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed_out",
}
REASONS: Final = {
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW: "continue_as_new",
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY: "retry",
}


def plan(chance: random.Random) -> Plan:
    return Plan(
        end=chance.choice(ENDS),
        hosts=chance.random() < 0.8,
        carries=chance.random() < 0.8,
        rounds=chance.choice([1, 1, 2, 4]),
        failures=chance.choice([0, 0, 0, 1, 2]),
        events=chance.randint(0, 40),
        burst=chance.randint(5, 30),
    )


@dataclass
class Life:
    """One Workflow Id: what is started under it, how the gateway comes to know, and what a device sees.

    Attributes:
        name: The Workflow Id, and the session's name.
        found: `rule`, `registered` or `device`.
        plans: What is done, one chain after the other.
        watched: Whether a device is there.
        chains: The chains' first run ids.
        seen: What the device has seen.
    """

    name: str
    found: str
    plans: list[Plan]
    watched: bool
    chains: list[str] = field(default_factory=list)
    seen: list[SessionEvent[Any]] = field(default_factory=list, repr=False)

    def saw(self, topic: str, run: str) -> bool:
        return any(event.topic == topic and event.run == run for event in self.seen)


def lives(chance: random.Random) -> Iterator[Life]:
    left = CHAINS
    while left:
        found = chance.choice(["rule", "rule", "registered", "device"])
        plans = [plan(chance) for _ in range(min(left, chance.choice([1, 1, 1, 2, 3])))]
        left -= len(plans)
        watched = found == "device" or chance.random() < 0.3
        yield Life(f"{'by-rule' if found == 'rule' else 'soak'}/{uuid4().hex[:8]}", found, plans, watched)


class Soak:
    """Everything that goes on at the same time."""

    def __init__(self, client: Client, sessions: SessionClient, url: str, queue: str) -> None:
        self._client = client
        self._sessions = sessions
        self._url = url
        self._queue = queue
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def live(self, life: Life, chance: random.Random) -> None:
        async with self._slots:
            await asyncio.sleep(chance.uniform(0, 4))
            for plan in life.plans:
                await self._run(life, plan, chance)

    async def _run(self, life: Life, plan: Plan, chance: random.Random) -> None:
        handle = await self._client.start_workflow(
            Soaks.run,
            plan,
            id=life.name,
            task_queue=self._queue,
            task_timeout=timedelta(seconds=3),  # a task that is lost with its worker is not waited for long
            execution_timeout=timedelta(seconds=chance.uniform(1, 6)) if plan.end == "timed_out" else None,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=chance.uniform(0.1, 1)), maximum_attempts=5),
        )
        run = handle.first_execution_run_id
        assert run is not None
        life.chains.append(run)
        if life.found == "registered":
            await self._register(life.name)
        elif life.found == "device":
            while not life.saw("$run.started", run):
                await asyncio.sleep(0.1)
        latest = self._client.get_workflow_handle(life.name)
        ended = asyncio.ensure_future(latest.result())
        while plan.end in ("canceled", "terminated") and not ended.done():
            await asyncio.wait([ended], timeout=chance.uniform(0, 4))
            # A cancellation that comes just when a run fails or continues as new is not meant for the next run. Or it has ended.
            with suppress(RPCError):
                await (latest.cancel() if plan.end == "canceled" else latest.terminate(reason="enough"))
        with suppress(WorkflowFailureError):
            await ended

    async def _register(self, name: str) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with http.post(
                        f"{self._url}/v1/runs", json={"workflow_id": name}, timeout=aiohttp.ClientTimeout(10)
                    ) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.2)

    async def watch(self, life: Life) -> None:
        """A device: from the beginning, through every kill."""
        while True:
            with suppress(RefusedError):  # not there yet
                position = life.seen[-1].cursor if life.seen else "beginning"
                async for event in self._sessions.session(life.name).events(from_=position):
                    life.seen.append(event)
            await asyncio.sleep(0.2)


async def is_over(over: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until it is over."""
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    return over.is_set()


async def keep_killing(gateway: GatewayProcess, chance: random.Random, over: asyncio.Event) -> int:
    """How often it was killed; now and then while it started, or recovered from the kill before."""
    kills = 0
    while True:
        early = chance.random() < 0.2
        if not early:
            await gateway.ready()
        if await is_over(over, chance.uniform(0, 2) if early else chance.uniform(1, 7)):
            return kills
        await gateway.kill()
        kills += 1
        await gateway.start(wait=False)


async def keep_moving(gateways: list[GatewayProcess], chance: random.Random, over: asyncio.Event) -> int:
    """Stop one after the other for longer than its lease, or kill it; returns how often.

    Now and then both have a while: with hundreds of runs a slow machine would not come to an end within any lease.
    """
    moves = 0
    while not await is_over(over, chance.uniform(0.1, 0.6) if (moves + 1) % 10 else chance.uniform(5, 10)):
        gateway = gateways[moves % len(gateways)]
        if chance.random() < 0.1:
            await gateway.kill()
            await gateway.start()
        else:
            gateway.hold()
            try:
                await asyncio.sleep(LEASE * chance.uniform(1.1, 1.6))
            finally:
                gateway.go_on()
        moves += 1
    return moves


async def keep_restarting(worker: WorkerProcess, chance: random.Random, over: asyncio.Event) -> int:
    """How often it was killed, and started anew: at once, or after ends have been reported without it."""
    kills = 0
    while not await is_over(over, chance.uniform(10, 30)):
        await worker.kill()
        if chance.random() < 0.4:
            await is_over(over, GRACE * chance.uniform(1, 4))
        await worker.start()
        kills += 1
    return kills


async def until_told(served: Served, lives: list[Life]) -> None:
    """Return when every session has the end, and everything else, of every chain."""
    began, left = time.monotonic(), lives
    while left := [life for life in left if not await is_told(served, life)]:
        assert time.monotonic() - began < 60 + CHAINS / 2, f"not told: {left}"
        await asyncio.sleep(0.1)


async def until_seen(lives: list[Life], logs: list[list[SessionEvent[Any]]]) -> None:
    """Return when every device has seen all of its session."""
    async with asyncio.timeout(60):
        while any(len(life.seen) < len(log) for life, log in zip(lives, logs, strict=True) if life.watched):
            await asyncio.sleep(0.05)


async def log_of(sessions: SessionClient, life: Life) -> list[SessionEvent[Any]]:
    """All of a session: a page has a largest size."""
    log: list[SessionEvent[Any]] = []
    while True:
        page = await sessions.session(life.name).page(from_=log[-1].cursor if log else "beginning", limit=10000)
        if not page.events:
            return log
        log += page.events


async def is_told(served: Served, life: Life) -> bool:
    """Whether the session has the end, and everything else, of every chain."""
    status, state = await served.call("GET", f"/v1/sessions/{life.name.replace('/', '%2F')}")
    if status != 200:
        return False
    ended = [run["run"] for run in state["runs"] if run["status"] != "running" and run["drained"]]
    return state["settled"] and len(ended) >= len(life.chains)


class Step(NamedTuple):
    """One Temporal run of a chain, as Temporal has it: what it goes on as, and why."""

    run_id: str
    next_run_id: str
    reason: str


async def steps(client: Client, name: str, run_id: str) -> tuple[list[Step], dict[str, str] | None]:
    """A chain, from one of its runs to its last one, and what that has failed of."""
    found: list[Step] = []
    while run_id:
        handle = client.get_workflow_handle(name, run_id=run_id)
        close = WorkflowHistoryEventFilterType.CLOSE_EVENT
        (last,) = [event async for event in handle.fetch_history_events(event_filter_type=close)]
        attributes = getattr(last, last.WhichOneof("attributes") or "")
        next_run_id: str = getattr(attributes, "new_execution_run_id", "")
        reason = ""
        if next_run_id:
            further = client.get_workflow_handle(name, run_id=next_run_id)
            first = await anext(further.fetch_history_events(page_size=1))
            reason = REASONS[first.workflow_execution_started_event_attributes.initiator]
        found.append(Step(run_id, next_run_id, reason))
        run_id = next_run_id
    if last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
        return found, {"message": "the workflow timed out"}
    failure = getattr(attributes, "failure", None)
    if failure is None:
        return found, None
    return found, {"message": failure.message, "type": failure.application_failure_info.type}


async def stream_of(client: Client, name: str, run_id: str) -> list[Any]:
    """What is in a run's own stream, asked past the gateway."""
    handle = client.get_workflow_handle(name, run_id=run_id)
    found: list[Any] = []
    while True:
        try:
            asked = PollInput(topics=[], from_offset=len(found))
            result = await handle.query(POLL, asked, result_type=PollResult, rpc_timeout=timedelta(seconds=10))
        except RPCError as error:
            if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
                continue  # the worker lost it
            if "closed before WorkflowTaskStarted" in error.message:
                return found
            raise
        assert [item.offset for item in result.items] == list(range(len(found), result.next_offset))
        found += [json.loads(decode_payload(item.data).data) for item in result.items]
        if not result.more_ready:
            return found


async def said(client: Client, name: str, chain: list[Step]) -> list[Any]:
    """What a chain has said in all its streams: a carried one is the same stream, and has it all."""
    found: dict[str, Any] = {}
    for step in chain:
        for data in await stream_of(client, name, step.run_id):
            found.setdefault(json.dumps(data), data)
    return list(found.values())


async def check(
    client: Client, life: Life, log: list[SessionEvent[Any]], report: Counter[str], slots: asyncio.Semaphore
) -> None:
    """Hold a session against Temporal."""
    assert [event.offset for event in log] == list(range(len(log)))
    if life.watched:
        assert [event.raw for event in life.seen] == [event.raw for event in log], "the device saw the log"
    assert [event.run for event in log if event.topic == "$run.started"] == life.chains
    assert log[-1].topic in ("$session.settled", "$run.drained")
    parts = [(run, list(part)) for run, part in groupby((e for e in log if e.run), key=lambda event: event.run)]
    order = [f"{run}: {part[0].topic} at {part[0].time} to {part[-1].topic} at {part[-1].time}" for run, part in parts]
    assert list(dict.fromkeys(run for run, _ in parts)) == [run for run, _ in parts], f"chains are mixed: {order}"
    for run, plan in zip(life.chains, life.plans, strict=True):
        async with slots:
            await check_chain(client, life, plan, [event for event in log if event.run == run], report)


async def check_chain(
    client: Client, life: Life, plan: Plan, log: list[SessionEvent[Any]], report: Counter[str]
) -> None:
    """Hold what a session has of one chain against Temporal."""
    topics = [event.topic for event in log if event.topic not in ("$run.waiting", "$activity.retrying")]
    assert topics[0] == "$run.started"
    begins_at = log[0].data["run_id"]
    # Who registers or comes when a chain has gone on is told from then on; a rule misses nothing, if no device was earlier.
    assert life.found != "rule" or life.watched or begins_at == log[0].run
    chain, failure = await steps(client, life.name, begins_at)
    continued = [event.data for event in log if event.topic == "$run.continued"]
    assert [Step(c["previous_run_id"], c["run_id"], c["reason"]) for c in continued] == chain[:-1]
    description = await client.get_workflow_handle(life.name, run_id=chain[-1].run_id).describe()
    (closed,) = [event.data for event in log if event.topic == "$run.closed"]
    assert description.status is not None
    assert description.close_time is not None
    status = STATUS[description.status]
    assert closed["run_id"] == chain[-1].run_id
    assert closed["status"] == status
    assert closed["closed_at"][:23] == description.close_time.isoformat()[:23]
    assert closed.get("failure") == failure
    assert closed.get("reason") == ("enough" if status == "terminated" else None)
    late = topics[topics.index("$run.closed") + 1 :]
    drained = closed["drained"] or "$run.drained" in late
    assert late == [] if closed["drained"] else late == ["n"] * late.count("n") + ["$run.drained"] * drained
    # Only a later chain, which waits for its turn, lets a rest be abandoned.
    assert drained or log[0].run != life.chains[-1]
    expected = await said(client, life.name, chain) if plan.hosts else []
    # A retry that received more of a stream than was read begins with that; the end of the failed run is then lost.
    lost = {c["previous_run_id"] for c in continued if not c["drained"] and c["reason"] == "retry"}
    check_events([event.data for event in log if event.topic == "n"], expected, closed["drained"], drained, lost)
    report.update([status, *["not drained"] * (not closed["drained"]), *["abandoned"] * (not drained)])
    report.update({"events": len(expected), "continued": len(continued), "waiting": len(log) - len(topics)})
    report.update({"undrained runs": sum(not c["drained"] for c in continued), "lost": len(lost)})


def check_events(found: list[Any], expected: list[Any], at_once: bool, drained: bool, lost: set[str]) -> None:
    """Hold a chain's events against its streams; what came after its end may be in another order, or be abandoned."""
    if at_once:
        assert found == expected
        return
    for run_id in {item["run_id"] for item in [*found, *expected]}:
        of_run = [item["n"] for item in expected if item["run_id"] == run_id]
        numbers = [item["n"] for item in found if item["run_id"] == run_id]
        whole = drained and run_id not in lost
        assert numbers == (of_run if whole else of_run[: len(numbers)])


@asynccontextmanager
async def gateways(count: int, address: str, directory: Path) -> AsyncIterator[list[GatewayProcess]]:
    """One gateway on a file, or two on a store that they share, which is slow and loses wake-ups."""
    # Half of the runs are watched closely, the other half are swept.
    config = f"""sweep_interval = 1
close_watches = {AT_ONCE // 2}
follow = [{{workflow_id = "by-rule/*"}}]
lease = {LEASE}
drain_grace = {GRACE}
"""
    (directory / "wakeline.toml").write_text(config)
    how = ("--temporal", address, "--config", str(directory / "wakeline.toml"))
    async with AsyncExitStack() as stack:
        shared = {}
        if count > 1:
            shared = await stack.enter_async_context(served_store(SharedStore(), directory, FAULTS))
        found = [GatewayProcess(directory / f"data-{number}", *how, environment=shared) for number in range(count)]
        try:
            await asyncio.gather(*(gateway.start() for gateway in found))
            yield found
        finally:
            await asyncio.gather(*(gateway.kill() for gateway in found))


@pytest.mark.timeout(500 + 4 * CHAINS)
@pytest.mark.parametrize("count", [1, 2], ids=["one gateway is killed", "the leases of two move"])
async def test_every_run_ends_once_and_no_event_is_lost_repeated_or_out_of_order(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, count: int
) -> None:
    chance = dice(6)
    address, queue = temporal.client.service_client.config.target_host, f"soak-{uuid4().hex[:8]}"
    worker = WorkerProcess(address, queue, "tests.faults.soak_workflows")
    over, began = asyncio.Event(), time.monotonic()
    everything = list(lives(chance))
    try:
        # Outermost what is used longest: a group ends when its tasks have.
        async with (
            gateways(count, address, tmp_path) as running,
            SessionClient(running[-1].url) as sessions,
            Served(running[0].url) as served,
            asyncio.TaskGroup() as group,
        ):
            await worker.start()
            soak = Soak(client, sessions, running[0].url, queue)
            devices = [group.create_task(soak.watch(life)) for life in everything if life.watched]
            trouble = keep_killing(running[0], chance, over) if count == 1 else keep_moving(running, chance, over)
            killing = group.create_task(trouble)
            restarting = group.create_task(keep_restarting(worker, chance, over))
            living = [group.create_task(soak.live(life, dice(100 + n))) for n, life in enumerate(everything)]
            await asyncio.wait(living, timeout=240 + 2 * CHAINS)
            stuck = [life for life, task in zip(everything, living, strict=True) if not task.done()]
            assert not stuck, f"the gateway has not found, or Temporal not ended: {stuck}"
            over.set()
            kills = await killing, await restarting
            await asyncio.gather(*(gateway.ready() for gateway in running))
            ended = time.monotonic()
            await until_told(served, everything)
            told = time.monotonic()
            logs = [await log_of(sessions, life) for life in everything]
            await until_seen(everything, logs)
            for device in devices:
                device.cancel()
        report, slots = Counter[str](), asyncio.Semaphore(8)
        problems = await asyncio.gather(
            *(check(client, life, log, report, slots) for life, log in zip(everything, logs, strict=True)),
            return_exceptions=True,
        )
    finally:
        await worker.kill()
    print(
        f"\nseed {SEED}: {CHAINS} chains of {len(everything)} Workflow Ids, {count} gateways; stopped or killed: ",
        end="",
    )
    print(f"gateways {kills[0]}, worker {kills[1]} times")
    print(f"{ended - began:.0f} s until all had ended, {told - ended:.0f} s until all was told: {dict(report)}")
    found = [problem for problem in problems if problem is not None]
    if found:
        raise BaseExceptionGroup(f"{len(found)} sessions are wrong", found)
