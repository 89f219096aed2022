"""Gateways that are forked: most tests in this folder start several. The engines of those that are killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import pytest

from tests.nats import NatsStore
from tests.postgres import PostgresServer


@pytest.fixture(scope="session", autouse=True)
def _forking(forks: None) -> None:
    return


@pytest.fixture(params=["sqlite", "postgres", "nats", "nats_of_three"])
async def kept_in(request: pytest.FixtureRequest) -> AsyncIterator[Mapping[str, str]]:
    """What a gateway's environment says of the engine: each in turn, with a store of its own."""
    server = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    # The next gateway does the background work of one that was killed when its lease has ended.
    shared = {"WAKELINE_LEASE": "1", "WAKELINE_LEAVE_WITHIN": "0"}
    if isinstance(server, PostgresServer):
        yield {"WAKELINE_ENGINE": await server.database(), **shared}
    elif isinstance(server, NatsStore):
        address = server.address()
        yield {"WAKELINE_ENGINE": address, **shared}
        await server.remove(urlsplit(address).path[1:])
    else:
        yield {}
