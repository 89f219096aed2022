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


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start gateways in this process, on free ports; each ends with the test, which fails if one held the event loop."""
    with loop_is_never_held():
        async with AsyncExitStack() as stack:

            async def start(**changed: Any) -> Served:
                asked = {"no_auth": not any(key in changed for key in ("no_auth", "token_secret", "token_jwks"))}
                settings = Settings(**{"data": str(tmp_path), "port": 0, "durability": "process", **asked, **changed})
                url = await stack.enter_async_context(gateway(settings))
                return await stack.enter_async_context(Served(url))

            yield start


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()
