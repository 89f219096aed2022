"""Chooses and joins the gateway's parts, and runs it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from pathlib import Path

import structlog
from aiohttp import web

from wakeline.errors import ListenRefusedError, ProgramMissingError, SettingsInvalidError, WakelineError
from wakeline.gateway.access import Addresses, Auth, Connections, Guard, Keys, Limits, Tickets
from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Exchange, Positions, Presence
from wakeline.gateway.following import Followers, Namespaces, Options, options_of
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.http.routes import application
from wakeline.gateway.inputs import Inputs
from wakeline.gateway.log import Engine
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine, mark_restored
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications import Outbox, notifications
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.requests import Requests
from wakeline.gateway.runtime import supervised, watch_clock
from wakeline.gateway.sessions import (
    Archive,
    Arrivals,
    Core,
    Deletions,
    InputRequests,
    Intents,
    Keeper,
    Retention,
    Runs,
    outlives,
    renew_if_restored,
)
from wakeline.gateway.settings import Settings, unknown_variables

_ENVELOPE_BYTES = 64 * 1024  # what an event is beside its data, at most
_log = structlog.get_logger(__name__)


def _engine(settings: Settings) -> Engine:
    match settings.engine:
        case "memory":
            return MemoryEngine()
        case "sqlite":
            return SqliteEngine(Path(settings.data), durability=settings.durability, erase_within=settings.erase_within)
    try:
        from wakeline.gateway.log.engines.postgres import PostgresEngine
    except ImportError as error:
        raise ProgramMissingError(
            f"expected asyncpg for engine = postgres://…, got: {error}",
            hint="Install it with: pip install 'wakeline[postgres]'",
        ) from None
    return PostgresEngine(settings.engine)


def _lost(_: WakelineError) -> None:
    """Do nothing: the engine logs the loss itself, and refuses every append."""


def declare_restored(directory: Path) -> None:
    """Have the next gateway on a data directory give every session a new epoch.

    Raises:
        StartupError: A gateway runs on it.
        StorageFailedError: There is no database, or it cannot be written.
    """
    mark_restored(directory)


@asynccontextmanager
async def gateway(
    settings: Settings, lost: Callable[[WakelineError], None] = _lost, *, engine: Engine | None = None
) -> AsyncIterator[str]:
    """Run a gateway for as long as the block lasts, and yield its URL.

    Args:
        settings: The settings.
        lost: Called when the store's files are gone. The block has to end then, because nothing is written any more.
        engine: The log; None opens the one that the settings name.

    Raises:
        StartupError: It cannot start with these settings.
    """
    settings.check_listen()
    temporal = _temporal(settings)
    addresses, metrics = Addresses(settings.trusted_proxies), Metrics()
    guard, connections = _guard(settings, addresses), Connections(settings, addresses, metrics)
    async with AsyncExitStack() as stack:
        keys = await _keys(settings, stack)
        log = engine or _engine(settings)
        log.listen_lost(lost)
        await log.open()
        stack.push_async_callback(log.close)
        ownership = Ownership(log, settings.lease, shared=log.shared)
        await ownership.start()
        stack.push_async_callback(ownership.stop)
        core = await _core(settings, log, metrics, ownership, stack)
        _observe(core, connections)
        notifying = await stack.enter_async_context(
            notifications(settings, log, core.outbox, core.positions, metrics, ownership)
        )
        tickets = await _tickets(log, keys, stack)
        namespaces, followers, inputs = None, None, None
        requests = _requests(core, ownership)
        if temporal:
            namespaces, followers = await _follow(temporal, core, ownership, stack)
            inputs = await _inputs(namespaces, followers, core, ownership, stack)
        await requests.start(inputs)
        stack.push_async_callback(requests.stop)
        parts = Parts(
            **{field.name: getattr(core, field.name) for field in fields(core)},
            arrivals=Arrivals(log, followers.watch if followers is not None else None, asks=settings.asks),
            auth=Auth(keys, tickets, guard, issuer=settings.token_issuer, audience=settings.token_audience),
            tickets=tickets,
            limits=Limits(settings, addresses),
            guard=guard,
            connections=connections,
            notifier=notifying.notifier,
            push=notifying.push,
            links=notifying.links,
            archive=_archive(core),
            upstream=followers,
            temporal=namespaces,
            inputs=inputs,
            requests=requests,
        )
        host, port = await _serve(parts, stack)
        _calm_collector()
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _guard(settings: Settings, addresses: Addresses) -> Guard:
    return Guard(
        settings.cors_origins,
        settings.cors_headers,
        loopback_only=not settings.asks,
        addresses=addresses,
        public_url=settings.public_url,
    )


def _temporal(settings: Settings) -> list[Options]:
    """Return how each namespace is reached; none without Temporal.

    Raises:
        SettingsInvalidError: A setting is of use with Temporal only.
    """
    reached = options_of(settings, os.environ)
    unused = [
        name for name in ("follow", "namespace", "inputs") if getattr(settings, name) != getattr(Settings(), name)
    ]
    if unused and not reached:
        raise SettingsInvalidError(
            f"expected the address of Temporal in temporal, which {unused[0]} is for, got none",
            hint=f"Set temporal (--temporal HOST:PORT), or leave {unused[0]} out.",
        )
    return reached


async def _core(
    settings: Settings, engine: Engine, metrics: Metrics, ownership: Ownership, stack: AsyncExitStack
) -> Core:
    runs, presence = Runs(engine), Presence()
    if engine.shared:
        await stack.enter_async_context(Exchange(presence, engine, ownership))
    positions = await stack.enter_async_context(
        Positions(engine, presence, user_devices=settings.user_devices, counted=metrics.count_devices)
    )
    default = Retention(settings.retention_age, settings.retention_events, settings.retention_bytes)
    compacts = await stack.enter_async_context(Compacts(engine, lambda state: outlives(state.config, default)))
    hub = Hub(engine, runs.settled)
    outbox = Outbox(engine)
    deletions = Deletions(
        engine,
        runs,
        positions,
        metrics,
        compacts,
        Intents(engine),
        outbox=outbox,
        requests=InputRequests(engine),
        owns=ownership.owns,
    )
    await deletions.start()  # first: a session whose deletion is unfinished must not be followed again
    await renew_if_restored(engine)
    keeper = Keeper(engine, runs, deletions, default, metrics, compacts=compacts, owns=ownership.owns)
    ownership.listen(keeper.walk)
    await stack.enter_async_context(keeper)
    return Core(
        settings=settings,
        engine=engine,
        metrics=metrics,
        runs=runs,
        presence=presence,
        positions=positions,
        compacts=compacts,
        hub=hub,
        accept=Accept(engine, max_event_bytes=settings.max_event_bytes),
        deletions=deletions,
        keeper=keeper,
        outbox=outbox,
    )


def _archive(core: Core) -> Archive:
    most, most_line = core.settings.max_import_bytes, core.settings.max_body_bytes + _ENVELOPE_BYTES
    return Archive(core.engine, core.runs, core.deletions, most_bytes=most, most_line_bytes=most_line)


async def _follow(
    temporal: list[Options], core: Core, ownership: Ownership, stack: AsyncExitStack
) -> tuple[Namespaces, Followers]:
    """Connect to Temporal, and follow its workflows."""
    metrics = core.metrics
    namespaces = Namespaces(temporal, lambda call, outcome: metrics.calls.labels(call, outcome).inc())
    await namespaces.start()
    stack.push_async_callback(namespaces.stop)
    followers = Followers(namespaces, core.engine, core.accept, core.runs, core.settings, core.hub, ownership)
    await followers.start()
    stack.push_async_callback(followers.stop)
    metrics.observe(metrics.following, followers.count)
    metrics.observe(metrics.closely, followers.closely)
    for connection in namespaces:
        metrics.observe(metrics.temporal.labels(connection.namespace), connection.up)
    return namespaces, followers


async def _inputs(
    namespaces: Namespaces, followers: Followers, core: Core, ownership: Ownership, stack: AsyncExitStack
) -> Inputs:
    """Accept inputs, and carry on those that are unfinished."""
    inputs = Inputs(
        Intents(core.engine),
        core.engine,
        core.accept,
        core.runs,
        namespaces,
        followers,
        ownership,
        core.settings,
        core.metrics,
    )
    await inputs.start()
    stack.push_async_callback(inputs.stop)
    return inputs


def _requests(core: Core, ownership: Ownership) -> Requests:
    """Return the requests for input, which workflows ask through their streams, too."""
    records = InputRequests(core.engine)
    requests = Requests(records, core.engine, core.accept, ownership, core.settings, core.metrics)
    core.accept.ask = requests.ask_from_stream
    return requests


async def _serve(parts: Parts, stack: AsyncExitStack) -> tuple[str, int]:
    """Answer requests from now on; return host and port."""
    runner = web.AppRunner(application(parts), handler_cancellation=True, access_log=None, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    keeping_alive = supervised("keep-alive", lambda: _keep_alive(parts.hub, parts.settings.keep_alive))
    stack.callback(keeping_alive.cancel)
    return await _listen(parts.settings, runner, parts.connections, stack)


def _calm_collector() -> None:
    """Keep the garbage collector from scanning what lives as long as the process."""
    gc.collect()
    gc.freeze()
    # A full scan takes tenths of a second when there are thousands of connections: ten times less often.
    gc.set_threshold(700, 10, 100)


def _observe(core: Core, connections: Connections) -> None:
    """Connect the metrics with the parts that they show."""
    metrics, engine = core.metrics, core.engine
    metrics.observe(metrics.live, core.hub.devices)
    metrics.observe(metrics.open, lambda: len(connections))
    metrics.observe(metrics.present, core.presence.devices)
    if engine.shared:
        engine.counts.events = metrics.events.inc
    else:
        engine.feed.listen(lambda commits: metrics.events.inc(sum(len(commit.events) for commit in commits)))
    engine.counts.publishers, engine.counts.merged = metrics.publishers_added.inc, metrics.merged.inc
    metrics.observe(metrics.erasure, engine.erasure_pending)
    metrics.observe(metrics.wal, engine.log_bytes)


async def _keys(settings: Settings, stack: AsyncExitStack) -> Keys | None:
    """Return the keys that verify tokens; None where no token is required."""
    if not settings.asks:
        return None
    keys = Keys(settings.token_secret, settings.token_jwks)
    await keys.start()
    stack.push_async_callback(keys.stop)
    watching = supervised("clock", watch_clock)
    stack.callback(watching.cancel)
    return keys


async def _tickets(engine: Engine, keys: Keys | None, stack: AsyncExitStack) -> Tickets:
    """Return the tickets, which are shared as the store is.

    A gateway that has its store for itself keeps them in memory: they cost no writes, and are issued on a full disk, too.
    """
    tickets = Tickets(engine if engine.shared else MemoryEngine(), keys)
    await tickets.start()
    stack.push_async_callback(tickets.stop)
    return tickets


async def _listen(
    settings: Settings, runner: web.AppRunner, connections: Connections, stack: AsyncExitStack
) -> tuple[str, int]:
    """Accept connections from now on; return host and port."""
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    try:
        # The loop accepts so many at a time, so that a storm of connections leaves the others their turn …
        server = await loop.create_server(connections.protocol(runner.server), settings.host, settings.port, backlog=16)
    except (OSError, OverflowError) as error:
        raise ListenRefusedError.of(settings.host, settings.port, error) from error
    stack.callback(server.close)
    for listening in server.sockets:  # … and the kernel keeps the rest until then.
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as handle:
            handle.listen(4096)
    watching = supervised("connections", connections.watch)
    stack.callback(watching.cancel)
    host, port = server.sockets[0].getsockname()[:2]
    return host, port


async def _keep_alive(hub: Hub, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        hub.keep_alive()


async def serve(settings: Settings, *, warn_no_auth: bool = True) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Args:
        settings: How.
        warn_no_auth: Log that nobody is asked, where that was said with `--no-auth`.

    Raises:
        StartupError: It cannot start as asked.
        StorageLostError: The data directory was taken from under it.
    """
    stopping = asyncio.Event()
    failures: list[WakelineError] = []

    def lost(error: WakelineError) -> None:
        failures.append(error)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with gateway(settings, lost) as url:
        for said in unknown_variables(os.environ):
            _log.warning(said)
        if settings.no_auth and warn_no_auth:
            _log.warning("--no-auth: whoever reaches this port may read and write every session")
        engine = settings.engine.partition(":")[0]  # without an address, which may have a password
        temporal = ", ".join(options.address for options in options_of(settings, os.environ)) or "off"
        if temporal == "off":
            _log.info("Temporal is off: no workflow is followed; --temporal HOST:PORT turns it on")
        _log.info(f"listening on {url}", engine=engine, data=settings.data, temporal=temporal)
        await stopping.wait()
        _log.info("stopping")
    for failure in failures:
        raise failure
