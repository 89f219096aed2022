"""One real Temporal server for the session, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.servers import temporal_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server, empty at the start of the session."""
    async with temporal_server() as environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(temporal: WorkflowEnvironment) -> Client:
    """A client of the dev server."""
    return temporal.client
