"""The one place where the gateway's parts are chosen and joined."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
from aiohttp import web

from wakeline.errors import ListenRefusedError
from wakeline.gateway.accept import Accept
from wakeline.gateway.engines.memory import MemoryEngine
from wakeline.gateway.engines.sqlite import SqliteEngine
from wakeline.gateway.http.parts import Parts, Upstream
from wakeline.gateway.http.routes import application
from wakeline.gateway.hub import Hub
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.runs import Runs
from wakeline.gateway.settings import Settings
from wakeline.gateway.temporal.connection import Connection
from wakeline.gateway.temporal.followers import Followers

_log = structlog.get_logger(__name__)


def _engine(settings: Settings) -> Engine:
    match settings.engine:
        case "memory":
            return MemoryEngine()
        case "sqlite":
            return SqliteEngine(Path(settings.data), durability=settings.durability)


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[str]:
    """Run a gateway for as long as the block lasts; gives its URL.

    Raises:
        StartupError: It cannot start as asked.
    """
    settings.check_listen()
    async with AsyncExitStack() as stack:
        engine = _engine(settings)
        await engine.open()
        stack.push_async_callback(engine.close)
        metrics, runs = Metrics(), Runs(engine)
        hub, accept = Hub(engine, runs), Accept(engine, max_event_bytes=settings.max_event_bytes)
        upstream: Upstream | None = None
        engine.listen(lambda _, events: metrics.events.inc(len(events)))
        metrics.observe(metrics.live, hub.devices)
        if settings.temporal is not None:
            connection = Connection(settings.temporal, settings.namespace)
            followers = Followers(connection, engine, accept, runs, settings, hub.settle)
            await followers.start()
            stack.push_async_callback(followers.stop)
            upstream = followers
            metrics.observe(metrics.following, followers.count)
            metrics.observe(metrics.temporal, lambda: float(followers.health() == "ok"))
        parts = Parts(
            settings=settings, engine=engine, accept=accept, hub=hub, runs=runs, metrics=metrics, upstream=upstream
        )
        runner = web.AppRunner(application(parts), handler_cancellation=True, access_log=None, shutdown_timeout=2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        keeping_alive = asyncio.create_task(_keep_alive(hub, settings.keep_alive))
        stack.callback(keeping_alive.cancel)
        try:
            await web.TCPSite(runner, settings.host, settings.port, backlog=4096).start()
        except OSError as error:
            raise ListenRefusedError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
        host, port = runner.addresses[0][:2]
        # What was made at start stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _keep_alive(hub: Hub, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        hub.keep_alive()


async def serve(settings: Settings) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Raises:
        StartupError: It cannot start as asked.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with gateway(settings) as url:
        if settings.no_auth:
            _log.warning("--no-auth: whoever reaches this port may read and write every session")
        _log.info(
            f"listening on {url}", engine=settings.engine, data=settings.data, temporal=settings.temporal or "off"
        )
        await stopping.wait()
        _log.info("stopping")
