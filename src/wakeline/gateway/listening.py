"""The ports that a gateway listens on: `port`, which several may share, and `own_port`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from wakeline.errors import ListenRefusedError
from wakeline.gateway.settings import Settings


async def listen(
    settings: Settings, protocol: Callable[[], asyncio.BaseProtocol], stack: AsyncExitStack
) -> asyncio.Server:
    """Accept connections from now on; return the server of `port`.

    Raises:
        ListenRefusedError: A port is in use or invalid.
    """
    if settings.own_port is not None:
        _accept(await _bind_own(settings, settings.own_port, protocol), stack)
    # Several processes share the port: the kernel gives each of them its part of the connections.
    return _accept(await _bind_port(settings, protocol, shared=settings.processes > 1), stack)


async def check_ports(settings: Settings) -> None:
    """Check that every port of `settings.processes` gateways is free.

    Raises:
        ListenRefusedError: One is not.
    """
    # Not shared: a port of another command's gateways is taken, too.
    (await _bind_port(settings, asyncio.Protocol, shared=False, start=False)).close()
    if settings.own_port is not None:
        for number in range(settings.processes):
            (await _bind_own(settings, settings.own_port + number, asyncio.Protocol, start=False)).close()


def place_of(settings: Settings) -> str:
    """Return what tells a gateway from others: its host's name, its port and its process."""
    port = settings.own_port or settings.port
    return f"{socket.gethostname()}{f':{port}' if port else ''} pid {os.getpid()}"


async def _bind_port(
    settings: Settings, protocol: Callable[[], asyncio.BaseProtocol], *, shared: bool, start: bool = True
) -> asyncio.Server:
    try:
        return await _bind(settings.host, settings.port, protocol, shared=shared, start=start)
    except (OSError, OverflowError) as error:
        raise ListenRefusedError.of(settings.host, settings.port, error, least=int(settings.processes > 1)) from error


async def _bind_own(
    settings: Settings, port: int, protocol: Callable[[], asyncio.BaseProtocol], *, start: bool = True
) -> asyncio.Server:
    try:
        return await _bind(settings.host, port, protocol, start=start)
    except (OSError, OverflowError) as error:
        option = "own_port (WAKELINE_OWN_PORT)"
        if settings.processes > 1:
            option += f", the first of {settings.processes} consecutive ports,"
        raise ListenRefusedError.of(settings.host, port, error, option, least=1) from error


async def _bind(
    host: str, port: int, protocol: Callable[[], asyncio.BaseProtocol], *, shared: bool = False, start: bool
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    # The loop accepts so many at a time, so that a storm of connections leaves the others their turn …
    return await loop.create_server(protocol, host, port, backlog=16, reuse_port=shared or None, start_serving=start)


def _accept(server: asyncio.Server, stack: AsyncExitStack) -> asyncio.Server:
    stack.push_async_callback(_close, server)
    for listening in server.sockets:  # … and the kernel keeps the rest until then.
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as handle:
            handle.listen(4096)
    return server


async def _close(server: asyncio.Server) -> None:
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening)
    # A connection that asyncio has just accepted reaches its protocol first: with its server closed, nothing would close it.
    try:
        await asyncio.sleep(0)
    finally:
        server.close()
