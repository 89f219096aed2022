"""Chooses and joins the gateway's parts, and runs it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

from aiohttp import web
from msgspec.structs import replace

from wakeline.background import wait_at_most
from wakeline.errors import SettingsInvalidError, WakelineError
from wakeline.gateway import stores
from wakeline.gateway.access import Addresses, Auth, Connections, Guard, Keys, Limits, Tickets
from wakeline.gateway.delivery import Accept, Compacts, Hub
from wakeline.gateway.devices import Exchange, Positions, Presence
from wakeline.gateway.following import Followers
from wakeline.gateway.http.lasting import Lasting
from wakeline.gateway.http.parts import Parts
from wakeline.gateway.http.routes import application
from wakeline.gateway.inputs import Inputs
from wakeline.gateway.listening import listen, place_of
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.notifications import Outbox, notifications
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Namespaces, Options, options_of
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
    Remembered,
    Retention,
    Runs,
    outlives,
    renew_if_restored,
)
from wakeline.gateway.settings import Settings

_SHARED_LEAVE_SECONDS = 5.0


def _lost(_: WakelineError) -> None:
    """Do nothing: the engine logs the loss itself, and refuses every append."""


@dataclass(frozen=True)
class Running:
    """A gateway that answers requests.

    Attributes:
        url: Where.
        store: The kind of its store and where that is, without credentials.
    """

    url: str
    store: str
    _lasting: Lasting
    _ownership: Ownership
    _seconds: float

    async def leave(self, hurry: Awaitable[object]) -> None:
        """Send the clients and the background work to other gateways.

        Requests are still answered meanwhile, because load balancers take a while to see that `/readyz` fails.

        Args:
            hurry: Ends this early.
        """
        self._lasting.leave(self._seconds)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ownership.leave())
            group.create_task(wait_at_most(self._seconds, hurry))


@asynccontextmanager
async def gateway(
    settings: Settings, lost: Callable[[WakelineError], None] = _lost, *, engine: Engine | None = None
) -> AsyncIterator[str]:
    """Run a gateway for as long as the block lasts, and yield its URL; see `running`."""
    async with running(settings, lost, engine=engine) as started:
        yield started.url


@asynccontextmanager
async def running(
    settings: Settings, lost: Callable[[WakelineError], None] = _lost, *, engine: Engine | None = None
) -> AsyncIterator[Running]:
    """Run a gateway for as long as the block lasts.

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
    guard, connections = Guard(settings, addresses), Connections(settings, addresses, metrics)
    async with AsyncExitStack() as stack:
        keys = await _keys(settings, stack)
        log = engine or stores.engine_of(settings)
        log.listen_lost(lost)
        await log.open()
        stack.push_async_callback(log.close)
        ownership = await _started(Ownership(log, settings.lease, shared=log.shared, place=place_of(settings)), stack)
        core = await _core(settings, log, metrics, ownership, stack)
        _observe(core, connections)
        metrics.observe(metrics.shards, ownership.shards)
        notifying = await stack.enter_async_context(
            notifications(settings, log, core.outbox, core.positions, metrics, ownership)
        )
        # A gateway that has its store for itself keeps tickets in memory: they cost no writes, and are issued on a full disk.
        tickets = await _started(Tickets(log if log.shared else stores.in_memory(), keys), stack)
        namespaces, followers, inputs = None, None, None
        requests = _requests(core, ownership)
        if temporal:
            namespaces, followers = await _follow(temporal, core, ownership, stack)
            inputs = await _inputs(namespaces, followers, core, ownership, stack)
        await requests.start(inputs, None if followers is None else followers.learn)
        stack.push_async_callback(requests.stop)
        parts = Parts(
            **{field.name: getattr(core, field.name) for field in fields(core)},
            arrivals=Arrivals(log, followers.watch if followers is not None else None, asks=settings.asks),
            auth=Auth(settings, keys, tickets, guard),
            tickets=tickets,
            limits=Limits(settings, addresses),
            guard=guard,
            connections=connections,
            notifier=notifying.notifier,
            push=notifying.push,
            links=notifying.links,
            archive=Archive(core.engine, core.runs, core.deletions, settings),
            upstream=followers,
            temporal=namespaces,
            inputs=inputs,
            requests=requests,
        )
        host, port = await _serve(parts, stack)
        _calm_collector()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        yield Running(url, log.name, parts.lasting, ownership, _leave_seconds(settings, log))


def _leave_seconds(settings: Settings, engine: Engine) -> float:
    if settings.leave_within is not None:
        return settings.leave_within
    return _SHARED_LEAVE_SECONDS if engine.shared else 0.0


class _Part(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


P = TypeVar("P", bound=_Part)


async def _started(part: P, stack: AsyncExitStack) -> P:
    """Start a part, which the stack stops."""
    await part.start()
    stack.push_async_callback(part.stop)
    return part


def _temporal(settings: Settings) -> list[Options]:
    """Return how each namespace is reached; none without Temporal.

    Raises:
        SettingsInvalidError: A setting is of use with Temporal only.
    """
    reached = options_of(settings, os.environ)
    default = Settings()
    # The outcomes of requests for input are remembered without Temporal, too.
    default = replace(default, inputs=replace(default.inputs, remembered=settings.inputs.remembered))
    unused = [name for name in ("follow", "namespace", "inputs") if getattr(settings, name) != getattr(default, name)]
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
    deletions = Deletions(engine, runs, positions, metrics, compacts, owns=ownership.owns)
    await deletions.start()  # first: a session whose deletion is unfinished must not be followed again
    await renew_if_restored(engine)
    keeper = Keeper(engine, runs, deletions, default, metrics, compacts=compacts, owns=ownership.owns)
    ownership.listen(keeper.walk, gains=True)
    for part in (Remembered(engine, settings.inputs.remembered, ownership.owns), keeper):
        part.start()
        stack.push_async_callback(part.stop)
    return Core(
        settings=settings,
        engine=engine,
        metrics=metrics,
        runs=runs,
        presence=presence,
        positions=positions,
        compacts=compacts,
        hub=Hub(engine, runs.settled),
        accept=Accept(engine, max_event_bytes=settings.max_event_bytes),
        deletions=deletions,
        keeper=keeper,
        outbox=Outbox(engine),
    )


async def _follow(
    temporal: list[Options], core: Core, ownership: Ownership, stack: AsyncExitStack
) -> tuple[Namespaces, Followers]:
    """Connect to Temporal, and follow its workflows."""
    metrics = core.metrics
    counted = Namespaces(temporal, lambda call, outcome: metrics.calls.labels(call, outcome).inc())
    namespaces = await _started(counted, stack)
    following = Followers(namespaces, core.engine, core.accept, core.runs, core.settings, core.hub, ownership)
    followers = await _started(following, stack)
    metrics.observe(metrics.following, followers.count)
    metrics.observe(metrics.closely, followers.closely)
    for connection in namespaces:
        metrics.observe(metrics.temporal.labels(connection.namespace), connection.up)
    return namespaces, followers


async def _inputs(
    namespaces: Namespaces, followers: Followers, core: Core, ownership: Ownership, stack: AsyncExitStack
) -> Inputs:
    """Accept inputs, and carry on those that are unfinished."""
    engine, settings, metrics = core.engine, core.settings, core.metrics
    intents, accept, runs = Intents(engine), core.accept, core.runs
    inputs = Inputs(intents, engine, accept, runs, namespaces, followers, ownership, settings, metrics)
    return await _started(inputs, stack)


def _requests(core: Core, ownership: Ownership) -> Requests:
    """Return the requests for input, which workflows ask through their streams, too."""
    records = InputRequests(core.engine)
    requests = Requests(records, core.engine, core.accept, ownership, core.settings, core.metrics, core.runs.names)
    core.accept.ask = requests.ask_from_stream
    return requests


async def _serve(parts: Parts, stack: AsyncExitStack) -> tuple[str, int]:
    """Answer requests from now on; return host and port."""
    runner = web.AppRunner(application(parts), handler_cancellation=True, access_log=None, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    stack.callback(supervised("keep-alive", lambda: _keep_alive(parts.hub, parts.settings.keep_alive)).cancel)
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
    metrics.observe(metrics.catching_up, core.hub.catching_up)
    core.hub.written.events, core.hub.written.seconds = metrics.deliveries.inc, metrics.delivery_seconds.observe
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
    keys = await _started(Keys(settings.token_secret, settings.token_jwks), stack)
    stack.callback(supervised("clock", watch_clock).cancel)
    return keys


async def _listen(
    settings: Settings, runner: web.AppRunner, connections: Connections, stack: AsyncExitStack
) -> tuple[str, int]:
    """Accept connections from now on; return host and port."""
    assert runner.server is not None
    protocol = connections.protocol(runner.server)
    server = await listen(settings, protocol, stack)
    stack.callback(supervised("connections", connections.watch).cancel)
    host, port = server.sockets[0].getsockname()[:2]
    return host, port


async def _keep_alive(hub: Hub, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        hub.keep_alive()
