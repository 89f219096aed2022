from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from tests.faces.pages import FOLDER
from tests.faces.workflows import QUEUE, Answer, Chat, Listener, model
from tests.nodejs import install


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    install(FOLDER)


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
