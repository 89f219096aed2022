from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.faces.chats import gateway
from tests.faces.pages import FOLDER, hosting
from tests.faces.workflows import QUEUE, Answer, Chat, Listener, model
from tests.gateways import GatewayProcess
from tests.nodejs import install


@pytest.fixture(scope="session", autouse=True)
async def packages() -> AsyncIterator[None]:
    """The packages of the pages, and the process in which they run."""
    install(FOLDER)
    async with hosting():
        yield


@pytest.fixture(scope="module", autouse=True)
async def worker(client: Client) -> AsyncIterator[None]:
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[Chat, Answer, Listener],
        activities=[model],
        max_heartbeat_throttle_interval=timedelta(seconds=0.5),  # so that activities soon learn that they are cancelled
    ):
        yield


@pytest.fixture(scope="module")
async def running(
    temporal: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory, forks: None
) -> AsyncIterator[GatewayProcess]:
    """A gateway for a file's tests, each of which has a chat of its own."""
    async with gateway(temporal, tmp_path_factory.mktemp("chats")) as started:
        yield started


@pytest.fixture
async def own(temporal: WorkflowEnvironment, tmp_path: Path, forks: None) -> AsyncIterator[GatewayProcess]:
    """A gateway of the test's own, which it may end."""
    async with gateway(temporal, tmp_path) as started:
        yield started


@pytest.fixture
async def chat(client: Client) -> AsyncIterator[str]:
    """The name of a chat, whose workflow is ended afterwards."""
    name = f"chat-{uuid.uuid4().hex[:8]}"
    yield name
    handle: Any = client.get_workflow_handle(name)
    with suppress(RPCError):
        await handle.terminate()


@pytest.fixture
async def over() -> AsyncIterator[asyncio.Event]:
    """Ends an activity that does not learn of its cancellation, at the latest after the test."""
    event = asyncio.Event()
    yield event
    event.set()
