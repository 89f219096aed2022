from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.pairs import Pair
from tests.sharing import Faults, SharedStore
from tests.support import Served
from tests.watchdog import loop_is_never_held
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Engine
from wakeline.gateway.settings import Settings

Serve = Callable[..., Awaitable[Served]]

# For tests of what is on disk, of the time that reading takes, or of what happens meanwhile: the gateways' logs are files.
on_disk = pytest.mark.parametrize("kept_in", ["sqlite"])


# For tests of both.
on_disk_and_shared = pytest.mark.parametrize("kept_in", ["sqlite", "shared"])

FAULTS = Faults(latency=0.002, lost_wakeups=0.2, repeated_wakeups=0.2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of modules with `TWO_GATEWAYS` also with two gateways on one store.

    Not those with tables of inputs, which are the same at every gateway, and not those `on_disk`.
    """
    table = any(metafunc.definition.iter_markers("parametrize"))
    if "kept_in" in metafunc.fixturenames and getattr(metafunc.module, "TWO_GATEWAYS", False) and not table:
        metafunc.parametrize("kept_in", ["memory", "shared"])


@pytest.fixture
def kept_in() -> str:
    """The engine of the gateways that a test starts; `shared` starts two gateways for each."""
    return "memory"


@pytest.fixture
async def serve(request: pytest.FixtureRequest, kept_in: str) -> AsyncIterator[Serve]:
    """Start gateways in this process, on free ports; each ends with the test, which fails if one held the event loop."""
    store = SharedStore()
    with loop_is_never_held():
        async with AsyncExitStack() as stack:

            async def one(log: Engine | None = None, **changed: Any) -> Served:
                asked = {"no_auth": not any(key in changed for key in ("no_auth", "token_secret", "token_jwks"))}
                kept = {"engine": kept_in, "durability": "process"}
                if changed.get("engine", kept_in) == "sqlite":
                    kept["data"] = str(request.getfixturevalue("tmp_path"))
                settings = Settings(**{"port": 0, **kept, **asked, **changed})
                url = await stack.enter_async_context(gateway(settings, engine=log))
                return await stack.enter_async_context(Served(url))

            async def start(**changed: Any) -> Served:
                if kept_in != "shared":
                    return await one(**changed)
                changed["engine"] = "memory"
                pair = [await one(store.engine(FAULTS, seed), **changed) for seed in range(2)]
                return await stack.enter_async_context(Pair(*pair))

            yield start


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()
