"""A gateway for chats, and what their models are to say."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from tests.faces.workflows import QUEUE, scripts
from tests.gateways import GatewayProcess
from tests.tokens import token
from wakeline.cli.processes import free_port


def script(chat: str, *words: tuple[str, Any]) -> None:
    for word in words:
        scripts[chat].put_nowait(word)


OWN = json.dumps({"chat": {"kind": "start", "name": "answer"}})
SIGNALS = json.dumps({"chat": {"kind": "signal", "name": "say", "topics": {"done": "finish"}}})
STOPPED = json.dumps({"chat": {"kind": "update", "name": "message", "start": "chat", "stop": "stop"}})
END = ("end", None)
DONE: tuple[str, Any] = ("publish", ("done", {}, None))


@asynccontextmanager
async def gateway(temporal: WorkflowEnvironment, path: Path, **more: str) -> AsyncIterator[GatewayProcess]:
    port = free_port()
    where = {"url": f"http://127.0.0.1:{port}"}
    if "WAKELINE_TOKEN_SECRET" in more:
        where["token"] = token(sub="worker", exp=time.time() + 600)
    rule = {"sessions": ["chat-*"], "task_queue": QUEUE}
    start = {
        "chat": {**rule, "workflow_type": "Chat", "args": [where]},
        "answer": {**rule, "workflow_type": "Answer"},
    }
    environment = {
        "WAKELINE_TEMPORAL": temporal.client.service_client.config.target_host,
        "WAKELINE_INPUTS": json.dumps({"start": start}),
        "WAKELINE_FACES": json.dumps({"chat": {"kind": "update", "name": "message", "start": "chat"}}),
        **more,
    }
    running = GatewayProcess(path / "data", environment=environment, port=port)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
