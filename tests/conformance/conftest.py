from __future__ import annotations

import pytest_asyncio

from tests.conformance.node import install


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def packages() -> None:
    await install()
