"""Every way to end, with and without a worker, a gateway and a stream: told once, and nothing of the stream lost.

All cells are produced at the same time, each by a workflow of its own. There are two workers and four gateways:

| worker | gateway | what happens at the end |
| --- | --- | --- |
| up | up | nothing else |
| up | down | the gateway is stopped before the workflows are told to end, and started when all of them have ended |
| down | up | the gateway's process is held (SIGSTOP) before the workflows are told to end, and goes on when the worker is gone |
| down | down | the gateway's process is killed before the workflows are told to end, and started when the worker is gone |

"The worker is gone" means: its process is killed when every workflow has said its last words, and has completed, failed or been
canceled if it ends by itself; those that are terminated, and most of those that time out, end after that. The worker comes
back when the gateway has told every end. So the last words are durable in Temporal alone, where only a worker can read them.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.docs.markdown import sections, span, tables, text
from tests.gateways import GatewayProcess
from tests.support import Served
from tests.temporal.ending_workflows import FIRST, LAST, WORKFLOWS, Ends
from tests.temporal.test_follower import running_gateway
from tests.workers import WorkerProcess
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.sessions import Runs

STATUSES: Final = ["completed", "failed", "canceled", "terminated", "timed_out"]
UpOrDown = Literal["up", "down"]
BOTH: Final[tuple[UpOrDown, ...]] = ("up", "down")
Log = list[dict[str, Any]]
# Where a worker is up, the end is told when it has answered, however slow the machine is.
_LONG: Final = 60.0
_SHORT: Final = 2.0
_PATIENCE: Final = 60.0
# A workflow that times out must not do so before the gateway is held or killed.
_TIMES_OUT: Final = timedelta(seconds=30)


@dataclass
class Cell:
    """One way to end, and what the session had when the end was told, and when a worker had come back."""

    status: str
    worker: UpOrDown
    gateway: UpOrDown
    stream: bool
    name: str = field(default_factory=lambda: f"ends/{uuid.uuid4().hex[:8]}")
    told: Log = field(default_factory=list)
    finally_: Log = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.status}-worker {self.worker}-gateway {self.gateway}-{'stream' if self.stream else 'no stream'}"


CELLS: Final = [
    Cell(status, worker, gateway, stream)
    for status, worker, gateway, stream in product(STATUSES, BOTH, BOTH, (True, False))
]


def topics(log: Log) -> list[str]:
    """What an event is about; what a run is doing meanwhile is no part of these tests."""
    return [event["topic"] for event in log if event["topic"] != "$run.waiting"]


def data(log: Log, topic: str) -> list[Any]:
    return [event["data"] for event in log if event["topic"] == topic]


async def read(served: Served, session: str) -> Log:
    """A session as it stands."""
    status, answer = await served.call("GET", f"/v1/sessions/{quote(session, safe='')}/events?limit=10000")
    return answer["events"] if status == 200 else []


async def until(served: Served, session: str, enough: Callable[[Log], bool]) -> Log:
    """A session, when there is enough in it."""
    log: Log = []
    try:
        async with asyncio.timeout(_PATIENCE):
            while not enough(log := await read(served, session)):
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"what was awaited did not come into {session}: {topics(log)}")
    return log


def has(topic: str, times: int = 1) -> Callable[[Log], bool]:
    return lambda log: topics(log).count(topic) >= times


async def has_said(handle: WorkflowHandle[Any, Any]) -> None:
    """Return when a workflow that does not end by itself has said its last words."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                if await handle.query(Ends.said, rpc_timeout=timedelta(seconds=5)) == FIRST + LAST:
                    return
            except RPCError:
                pass
            await asyncio.sleep(0.05)


async def has_ended(handle: WorkflowHandle[Any, Any]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while (await handle.describe()).status == WorkflowExecutionStatus.RUNNING:
            await asyncio.sleep(0.1)


class Group:
    """The cells of one gateway and one worker: ten workflows that end together."""

    def __init__(self, client: Client, queue: str, cells: list[Cell]) -> None:
        self.cells = cells
        self._client = client
        self._queue = queue

    async def begin(self, served: Served) -> None:
        """Start the workflows, and return when the gateway has all that they say at first."""
        # Those that time out come last, when everything else is there.
        for timing_out in (False, True):
            await asyncio.gather(
                *(self._begin(served, c) for c in self.cells if (c.status == "timed_out") is timing_out)
            )

    async def _begin(self, served: Served, cell: Cell) -> None:
        timeout = _TIMES_OUT if cell.status == "timed_out" else None
        await self._client.start_workflow(
            Ends.run, args=[cell.status, cell.stream], id=cell.name, task_queue=self._queue, execution_timeout=timeout
        )
        status, answer = await served.call("POST", "/v1/runs", json={"workflow_id": cell.name})
        assert status == 200, answer
        await until(served, cell.name, has("said", len(FIRST)) if cell.stream else has("$run.started"))

    async def end(self) -> None:
        """Tell all of them to end, and return when it takes no worker any more."""
        await asyncio.gather(*(self._end(cell) for cell in self.cells))

    async def _end(self, cell: Cell) -> None:
        handle = self._client.get_workflow_handle(cell.name)
        if cell.status == "canceled":
            await handle.cancel()
        else:
            await handle.signal(Ends.end)
        await (has_said(handle) if cell.status in ("terminated", "timed_out") else has_ended(handle))

    async def end_by_themselves(self) -> None:
        """Return when those that end without a worker have ended, too."""
        for cell in self.cells:
            if cell.status == "terminated":
                await self._client.get_workflow_handle(cell.name).terminate(reason="enough")
        await asyncio.gather(*(has_ended(self._client.get_workflow_handle(cell.name)) for cell in self.cells))

    async def told(self, served: Served) -> None:
        """Keep what the sessions have when every end is told."""
        for cell in self.cells:
            cell.told = await until(served, cell.name, has("$session.settled"))

    async def drained(self, served: Served) -> None:
        """Keep what the sessions have when everything else is told, too."""
        for cell in self.cells:
            cell.finally_ = await until(served, cell.name, has("$run.drained"))


class Scenario:
    """The gateways, the workers, and what becomes of the cells."""

    def __init__(self, temporal: WorkflowEnvironment, folder: Path) -> None:
        self._temporal = temporal
        self._client = temporal.client
        self._folder = folder
        self._queue = f"endings-{uuid.uuid4().hex[:8]}"
        address = temporal.client.service_client.config.target_host
        self._address = address
        self._worker = WorkerProcess(address, f"{self._queue}-down", "tests.temporal.ending_workflows")

    def _group(self, worker: UpOrDown, gateway: UpOrDown) -> Group:
        cells = [cell for cell in CELLS if (cell.worker, cell.gateway) == (worker, gateway)]
        return Group(self._client, f"{self._queue}-{worker}", cells)

    @asynccontextmanager
    async def _gateway(self, name: str) -> AsyncIterator[tuple[GatewayProcess, Served]]:
        environment = {"WAKELINE_DRAIN_GRACE": str(_SHORT), "WAKELINE_DURABILITY": "process"}
        process = GatewayProcess(self._folder / name, "--temporal", self._address, environment=environment)
        try:
            await process.start()
            async with Served(process.url) as served:
                yield process, served
        finally:
            await process.kill()

    async def play(self) -> None:
        """Produce every cell."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._worker.kill)
            worker = Worker(self._client, task_queue=f"{self._queue}-up", workflows=WORKFLOWS)
            await stack.enter_async_context(worker)
            _, held, killed = await asyncio.gather(
                self._worker.start(),
                stack.enter_async_context(self._gateway("held")),
                stack.enter_async_context(self._gateway("killed")),
            )
            await asyncio.gather(self._nothing_else(), self._stopped(), self._gone(held, killed))

    def _within(self, name: str) -> AbstractAsyncContextManager[Served]:
        return running_gateway(self._temporal, self._folder / name, drain_grace=_LONG)

    async def _nothing_else(self) -> None:
        group = self._group("up", "up")
        async with self._within("up") as served:
            await group.begin(served)
            await group.end()
            await group.end_by_themselves()
            await group.told(served)

    async def _stopped(self) -> None:
        group = self._group("up", "down")
        async with self._within("stopped") as served:
            await group.begin(served)
        await group.end()
        await group.end_by_themselves()
        async with self._within("stopped") as served:
            await group.told(served)

    async def _gone(self, held: tuple[GatewayProcess, Served], killed: tuple[GatewayProcess, Served]) -> None:
        groups = [(self._group("down", "up"), held[1]), (self._group("down", "down"), killed[1])]

        async def each(step: Callable[[Group, Served], Awaitable[None]]) -> None:
            await asyncio.gather(*(step(group, served) for group, served in groups))

        await each(lambda group, served: group.begin(served))
        held[0].hold()
        await killed[0].kill()
        await each(lambda group, _: group.end())
        await self._worker.kill()
        await each(lambda group, _: group.end_by_themselves())
        held[0].go_on()
        await killed[0].start()
        await each(lambda group, served: group.told(served))
        await self._worker.start()
        await each(lambda group, served: group.drained(served))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def produced(temporal: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """All cells, produced."""
    await Scenario(temporal, tmp_path_factory.mktemp("endings")).play()
    return CELLS


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_ending_is_told_once_and_nothing_is_lost(produced: list[Cell], cell: Cell) -> None:
    assert cell in produced
    log = cell.finally_ or cell.told
    assert [event["offset"] for event in log] == list(range(len(log)))
    assert topics(log)[0] == "$run.started"
    (closed,) = data(log, "$run.closed")
    assert closed["status"] == cell.status
    assert closed.get("failure") == {
        "failed": {"message": "the order failed", "type": "OutOfStock", "cause": "no stock left"},
        "timed_out": {"message": "the workflow timed out"},
    }.get(cell.status)
    assert closed.get("reason") == ("enough" if cell.status == "terminated" else None)
    # Whatever the cell is, the whole stream is there in the end: once, in order.
    assert data(log, "said") == (FIRST + LAST if cell.stream else [])
    said = ["said"] * (len(FIRST) if cell.stream else 0)
    last = ["said"] * (len(LAST) if cell.stream else 0)
    if cell.worker == "up":
        assert closed["drained"]
        assert topics(log) == ["$run.started", *said, *last, "$run.closed", "$session.settled"]
    else:
        assert not closed["drained"]
        # No worker was there when this was told.
        assert topics(cell.told) == ["$run.started", *said, "$run.closed", "$session.settled"]
        assert log[: len(cell.told)] == cell.told
        assert topics(log)[len(topics(cell.told)) :] == [*last, "$run.drained"]


def summed_up(cell: Cell) -> str:
    """A cell in the words of the documented tables."""
    log = cell.finally_ or cell.told
    (closed,) = data(log, "$run.closed")
    parts = [
        f"`drained: {str(closed['drained']).lower()}`",
        *(f"`{key}`" for key in ("failure", "reason") if key in closed),
    ]
    told = ", ".join(parts)
    late = topics(log)[topics(log).index("$session.settled") + 1 :]
    if not late:
        return told
    return f"{told}; then {'the rest and ' if 'said' in late else ''}`{late[-1]}`"


def test_the_documented_tables_are_what_happens(produced: list[Cell]) -> None:
    statuses, ends = tables(sections(text("docs/concepts/runs.md"))["How a run ends"])
    further = {span(row["status"]): row["further field"] for row in statuses}
    documented = {(row["worker"], row["gateway"]): row for row in ends}
    assert {(cell.status, cell.worker, cell.gateway) for cell in produced} == {
        (s, *at) for s in further for at in documented
    }
    for cell in produced:
        drained, *then = documented[cell.worker, cell.gateway][
            "with a stream" if cell.stream else "without a stream"
        ].split(";")
        closed = f"{drained}, {further[cell.status]}" if further[cell.status] else drained
        assert summed_up(cell) == ";".join([closed, *then])


async def test_an_end_that_temporal_no_longer_has_is_told_as_unknown(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name, queue = f"deleted/{uuid.uuid4().hex[:8]}", f"deleted-{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=WORKFLOWS):
        handle = await client.start_workflow(Ends.run, args=["completed", True], id=name, task_queue=queue)
        async with running_gateway(temporal, tmp_path) as served:
            await served.call("POST", "/v1/runs", json={"workflow_id": name})
            before = await until(served, name, has("said", len(FIRST)))
    # A dev server takes half a minute to delete a workflow that has ended, and no time for one that this ends.
    execution = WorkflowExecution(workflow_id=name, run_id=handle.first_execution_run_id or "")
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    )
    async with asyncio.timeout(_PATIENCE):
        while await is_there(handle):
            await asyncio.sleep(0.05)
    async with running_gateway(temporal, tmp_path, drain_grace=0.5) as served:
        log = await until(served, name, has("$session.settled"))
        async with served.http.get("/metrics") as answer:
            calls = await answer.text()
    assert log[: len(before)] == before
    assert topics(log) == [*topics(before), "$run.closed", "$session.settled"]
    (started,), (closed,) = data(log, "$run.started"), data(log, "$run.closed")
    assert (closed["status"], closed["drained"]) == ("unknown", False)
    assert (closed["workflow_type"], closed["started_at"]) == ("Ends", started["started_at"])
    # Asked a few times, to be sure; not again and again.
    (asked,) = re.findall(r'_total{call="DescribeWorkflowExecution",outcome="NOT_FOUND"} (\d+)', calls)
    assert int(asked) <= 10


async def test_a_crash_between_an_undrained_end_and_its_record_leaves_what_was_told_true(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name = f"crash/{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=name, workflows=WORKFLOWS):
        handle = await client.start_workflow(Ends.run, args=["terminated", True], id=name, task_queue=name)
        async with running_gateway(temporal, tmp_path, drain_grace=_LONG) as served:
            await served.call("POST", "/v1/runs", json={"workflow_id": name})
            await until(served, name, has("said", len(FIRST)))
        await handle.signal(Ends.end)
        await has_said(handle)
        await handle.terminate(reason="enough")
    async with running_gateway(temporal, tmp_path, drain_grace=0.2) as served:
        told = await until(served, name, has("$session.settled"))
    await forget_the_end(tmp_path, name)
    worker = Worker(client, task_queue=name, workflows=WORKFLOWS)
    async with worker, running_gateway(temporal, tmp_path) as served:
        await until_settled(served, name)
        log = await until(served, name, has("$run.drained"))
    assert topics(log) == [*topics(told), *["said"] * len(LAST), "$run.drained"]
    assert [closed["drained"] for closed in data(log, "$run.closed")] == [False]
    assert data(log, "said") == FIRST + LAST


async def test_a_crash_between_an_end_and_its_record_does_not_keep_the_session_from_settling_again(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    name = f"crash/{uuid.uuid4().hex[:8]}"
    async with running_gateway(temporal, tmp_path) as served:

        async def end(number: int, queue: str) -> Log:
            workflow_id = f"{name}-{number}"
            async with Worker(client, task_queue=queue, workflows=WORKFLOWS):
                await client.start_workflow(Ends.run, args=["completed", True], id=workflow_id, task_queue=queue)
                await served.call("POST", "/v1/runs", json={"workflow_id": workflow_id, "session": name})
                await client.get_workflow_handle(workflow_id).signal(Ends.end)
                return await until(served, name, has("$run.closed", number))

        await end(1, name)
        await until(served, name, has("$session.settled"))
    await forget_the_end(tmp_path, name)
    # Nobody can say whether the first has said everything: the end of the second comes before that is given up.
    async with running_gateway(temporal, tmp_path, drain_grace=15.0) as served:
        await end(2, f"{name}-2")
        log = await until(served, name, has("$session.settled", 2))
        await until_settled(served, name)
        assert topics(await read(served, name)) == topics(log)
    assert topics(log)[-2:] == ["$run.closed", "$session.settled"]


async def forget_the_end(folder: Path, session: str) -> None:
    """Leave the record of a session's run as it is right before what follows from the end is written down."""
    engine = SqliteEngine(folder)
    await engine.open()
    runs = Runs(engine)
    (run,) = await runs.of(session)
    await runs.forget(session)
    await runs.restore(session, [msgspec.structs.replace(run, status="running")])
    await engine.close()


async def until_settled(served: Served, session: str) -> None:
    """Return when nothing is left to be told."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            _, state = await served.call("GET", f"/v1/sessions/{quote(session, safe='')}")
            if state["settled"] and all(run["drained"] for run in state["runs"]):
                return
            await asyncio.sleep(0.05)


async def is_there(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError:
        return False
    return True
