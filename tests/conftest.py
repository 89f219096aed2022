"""A real Temporal server for the session, and a client of it. Processes that are forked. How Hypothesis tries things."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from zlib import crc32

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.commands import forking
from tests.nats import NatsStore, nats_cluster, nats_server
from tests.postgres import PostgresServer, postgres_server
from tests.servers import temporal_server
from tests.soak import SEED, SOAK

pytest_plugins = ["tests.leftovers", "tests.processes"]

# What is imported while tests are collected stays: to look for garbage in it takes a fifth of the collection.
gc.disable()

# A service writes tracebacks as JSON. Drawn for a terminal, each takes a tenth of a second.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

_UNIT = Path(__file__).with_name("unit")

# No test is timed: machines are shared. A change is judged by the same examples as the one before it; soaks look for others.
settings.register_profile(
    "wakeline", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=SOAK == 1
)
settings.load_profile("wakeline")


def _share_of(item: pytest.Item) -> str:
    """What one process runs: a file, a unit test, or half of the tests that need a certain server, which takes time to start.

    Some unit tests wait for seconds: a file of them would keep one process busy when the others are done.
    """
    file, _, name = item.nodeid.partition("::")
    parameters = name.partition("[")[2].rstrip("]").split("-")
    for server in ("nats_of_three", "nats", "postgres"):
        if server in parameters or file.startswith(f"tests/shared/test_{server}"):
            return f"{server} {crc32(file.encode()) % 2}"
    return item.nodeid.partition("[")[0] if file.startswith("tests/unit/") else file


def pytest_report_header() -> str:
    return f"WAKELINE_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have each failure say how what is left to chance can be had again."""
    report = yield
    if report.failed:
        report.sections.append(("What was left to chance", f"WAKELINE_SEED={SEED}"))
    return report


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test with a long parameter by how that begins."""
    if isinstance(val, str | bytes) and len(val) > 60:
        return f"{val[:40]!a}, {len(val)} in all"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the unit tests last: they are given out one by one, so no process has much left when the others are done."""
    items.sort(key=lambda item: item.path.is_relative_to(_UNIT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Look for garbage from now on, and only among what the tests make; run the tests, in several processes if wanted."""
    from tests import leftovers, processes  # as plugins they must not be imported before this file

    gc.freeze()
    gc.enable()
    return processes.run(session, _share_of, lambda: leftovers.forked(session.config))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server, empty at the start of the session."""
    async with temporal_server() as environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(temporal: WorkflowEnvironment) -> Client:
    """A client of the dev server."""
    return temporal.client


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each test has a database of its own, or empties it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsStore]:
    """A NATS server with JetStream; each test has a store of its own."""
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def nats_of_three() -> Iterator[NatsStore]:
    """Three NATS servers that replicate every store."""
    with nats_cluster() as servers:
        yield servers


@pytest.fixture(scope="session")
def forks() -> Iterator[None]:
    """Commands and gateways are forked from a process that has imported everything."""
    with forking():
        yield
