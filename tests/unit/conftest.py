from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import Served
from tests.watchdog import loop_is_never_held
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

Serve = Callable[..., Awaitable[Served]]

# For tests of what is on disk, of the time that reading takes, or of what happens meanwhile: the gateways' logs are files.
on_disk = pytest.mark.parametrize("kept_in", ["sqlite"])


@pytest.fixture
def kept_in() -> str:
    """The engine of the gateways that a test starts."""
    return "memory"


@pytest.fixture
async def serve(tmp_path: Path, kept_in: str) -> AsyncIterator[Serve]:
    """Start gateways in this process, on free ports; each ends with the test, which fails if one held the event loop."""
    with loop_is_never_held():
        async with AsyncExitStack() as stack:

            async def start(**changed: Any) -> Served:
                asked = {"no_auth": not any(key in changed for key in ("no_auth", "token_secret", "token_jwks"))}
                kept = {"data": str(tmp_path), "engine": kept_in, "durability": "process"}
                url = await stack.enter_async_context(gateway(Settings(**{"port": 0, **kept, **asked, **changed})))
                return await stack.enter_async_context(Served(url))

            yield start


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()
