"""The scene: a Temporal server, a gateway, a worker, three workflows and two devices."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from wakeline.cli.demo.agent import stream_answer
from wakeline.cli.demo.approval import Approvals
from wakeline.cli.demo.devices import DemoDevice
from wakeline.cli.demo.push import PushEndpoint, gateway_settings
from wakeline.cli.demo.workflows import AgentWorkflow, OrderWorkflow, PipelineWorkflow
from wakeline.cli.processes import Process, TemporalServer, free_port
from wakeline.client import SessionClient
from wakeline.errors import UnavailableError
from wakeline.streams import WorkflowStreamClient
from wakeline.streams.wire import OFFSET_QUERY

QUEUE: Final = "wakeline-demo"
KINDS: Final[dict[str, Any]] = {
    "order": OrderWorkflow.run,
    "agent": AgentWorkflow.run,
    "pipeline": PipelineWorkflow.run,
}


class Play(msgspec.Struct):
    """One workflow of the scene: its session, and its number of events according to Temporal."""

    session: str
    kind: str
    handle: WorkflowHandle[Any, Any]
    status: str = "running"
    sent: int = 0


class Gateway:
    """The gateway's process, which can be killed and restarts on the same port and data."""

    def __init__(self, directory: Path, temporal: str, page: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = False
        self.restarts = 0
        self._log = (directory / "gateway.log").open("ab")
        settings = directory / "gateway.toml"
        settings.write_text(gateway_settings(page))
        self._process = Process(
            [
                *(sys.executable, "-m", "wakeline", "serve", "--no-auth", "--port", str(self.port)),
                *("--data", str(directory / "data"), "--temporal", temporal, "--cors-origins", page),
                *("--config", str(settings)),
            ],
            output=self._log,
            # Settings of the user's own gateway, such as keys for tokens, do not apply to the demo's.
            environment={name: value for name, value in os.environ.items() if not name.startswith("WAKELINE_")},
        )

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        await self._process.start()
        async with aiohttp.ClientSession() as http:
            for _ in range(600):
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/healthz"):
                        self.up = True
                        return
                if not self._process.running:
                    break
                await asyncio.sleep(0.05)
        raise UnavailableError(
            f"the gateway did not start, its last log line: {self._last_words()}",
            hint="Run `wakeline serve --no-auth` by itself to see more.",
        )

    def _last_words(self) -> str:
        lines = Path(self._log.name).read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "none")

    async def kill_and_restart(self) -> None:
        """Kill the process with SIGKILL, then start it again."""
        self.up = False
        await self._process.kill()
        await self.start()
        self.restarts += 1

    async def stop(self) -> None:
        """Stop the process."""
        self.up = False
        await self._process.stop()
        self._log.close()


class Scene:
    """Everything that runs, and the actions on it."""

    def __init__(self, temporal: Client, gateway: Gateway, devices: list[DemoDevice], push: PushEndpoint) -> None:
        self.temporal = temporal
        self.gateway = gateway
        self.devices = devices
        self.push = push
        self.plays: list[Play] = []
        self._numbers = dict.fromkeys(KINDS, 0)

    async def begin(self, kind: str, seconds: float) -> Play:
        """Start a workflow, and have every device watch its session."""
        self._numbers[kind] += 1
        session = f"{kind}-{self._numbers[kind]}"
        handle = await self.temporal.start_workflow(KINDS[kind], seconds, id=session, task_queue=QUEUE)
        pinned = self.temporal.get_workflow_handle(session, run_id=handle.first_execution_run_id)
        play = Play(session, kind, pinned)
        self.plays.append(play)
        for device in self.devices:
            device.watch(session)
        return play

    def running(self, kind: str | None = None) -> list[Play]:
        """Return the workflows that have not ended."""
        return [play for play in self.plays if play.status == "running" and kind in (None, play.kind)]

    def is_shown(self, kind: str) -> bool:
        """Return whether each device that is online has received the end of each workflow of a kind."""
        sessions = [play.session for play in self.plays if play.kind == kind]
        online = [device for device in self.devices if device.online]
        return all(device.sessions[session].status is not None for device in online for session in sessions)

    async def terminate(self, play: Play) -> None:
        """Terminate a workflow, as an operator would."""
        with suppress(RPCError):  # the workflow has just ended by itself
            await play.handle.terminate(reason="terminated in the demo")

    async def look(self) -> None:
        """Update the status and the number of events of every workflow from Temporal."""
        for play in self.running():
            with suppress(RPCError):
                status = (await play.handle.describe()).status
                play.sent = await play.handle.query(OFFSET_QUERY, result_type=int)
                if status is not None and status.name != "RUNNING":
                    play.status = status.name.lower()

    def counter(self) -> tuple[int, int, int]:
        """Return the numbers of sent, missing and duplicate events so far.

        An event that has not arrived yet is not missing. A received event counts as sent, even if Temporal was last queried
        before it.
        """
        seen = [seen for device in self.devices for seen in device.sessions.values()]
        sent = sum(max(p.sent, *(len(d.sessions[p.session].items) for d in self.devices)) for p in self.plays)
        return sent, sum(s.missing for s in seen), sum(s.duplicate for s in seen)

    async def verdict(self) -> tuple[int, int, int, list[str]]:
        """Compare what each device received with what Temporal has, once every workflow has ended.

        Returns:
            Events sent, missing and duplicate over all devices, and everything else that is wrong, in words.
        """
        sent = missing = duplicate = 0
        wrong: list[str] = []
        for play in self.plays:
            stream = WorkflowStreamClient.create(self.temporal, play.session)  # past the gateway
            truth = [(item.topic, item.data) async for item in stream.subscribe()]
            sent += len(truth)
            logs = set()
            for device in self.devices:
                seen = device.sessions[play.session]
                missing += seen.missing + max(0, len(truth) - len(seen.items))
                duplicate += seen.duplicate + max(0, len(seen.items) - len(truth))
                logs.add(tuple(seen.raw))
                if seen.items != truth:
                    wrong.append(f"{device.name} did not see {play.session} as it was published")
                if seen.status != play.status:
                    wrong.append(f"{device.name} saw {play.session} end as {seen.status}, it is {play.status}")
            if len(logs) != 1:
                wrong.append(f"the devices did not see the same bytes of {play.session}")
        return sent, missing, duplicate, wrong


def counter_line(sent: int, missing: int, duplicate: int) -> str:
    """Return, for example, `sent 4,812 · missing 0 · duplicate 0`."""
    return f"sent {sent:,} · missing {missing:,} · duplicate {duplicate:,}"


@asynccontextmanager
async def scene(page_origin: str) -> AsyncIterator[Scene]:
    """Start everything; always remove everything."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wakeline-demo-")))
        server = TemporalServer()
        stack.push_async_callback(server.stop)
        push = PushEndpoint()
        await stack.enter_async_context(push.serve())
        gateway = Gateway(directory, server.address, page_origin)
        stack.push_async_callback(gateway.stop)
        await server.start()
        temporal, _ = await asyncio.gather(server.ready(), gateway.start())  # the gateway starts without Temporal, too
        workflows = [OrderWorkflow, AgentWorkflow, PipelineWorkflow]
        await push.subscribe(gateway.url, "phone")
        activities: list[Callable[..., Any]] = [stream_answer, Approvals(gateway.url).approve_payment]
        worker = Worker(temporal, task_queue=QUEUE, workflows=workflows, activities=activities)
        await stack.enter_async_context(worker)
        client = await stack.enter_async_context(SessionClient(gateway.url))
        devices = [DemoDevice(name, client) for name in ("laptop", "phone")]
        for device in devices:
            stack.push_async_callback(device.go_offline)
        yield Scene(temporal, gateway, devices, push)
