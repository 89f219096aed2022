"""Serves until a signal asks the gateway to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

from wakeline.errors import WakelineError
from wakeline.gateway.app import running
from wakeline.gateway.reaching import options_of
from wakeline.gateway.settings import Settings, unknown_variables

_log = structlog.get_logger(__name__)


async def serve(settings: Settings, *, warn_no_auth: bool = True) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    A second signal skips the rest of `leave_within`.

    Args:
        settings: The gateway's settings.
        warn_no_auth: Log a warning if `no_auth` is set, so that requests need no token.

    Raises:
        StartupError: The gateway cannot start with these settings.
        StorageLostError: The data directory was removed or replaced while the gateway ran.
    """
    stopping, hurry = asyncio.Event(), asyncio.Event()
    failures: list[WakelineError] = []

    def lost(error: WakelineError) -> None:
        failures.append(error)
        stopping.set()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with running(settings, lost) as gateway:
        for said in unknown_variables(os.environ):
            _log.warning(said)
        if settings.no_auth and warn_no_auth:
            _log.warning("--no-auth: whoever reaches this port may read and write every session")
        temporal = ", ".join(options.address for options in options_of(settings, os.environ)) or "off"
        if temporal == "off":
            _log.info("Temporal is off: no workflow is followed; --temporal HOST:PORT turns it on")
        own = {} if settings.own_port is None else {"own_port": settings.own_port}
        _log.info(f"listening on {gateway.url}", store=gateway.store, temporal=temporal, **own)
        await stopping.wait()
        _log.info("stopping")
        if not failures:
            await gateway.leave(hurry.wait())
    for failure in failures:
        raise failure
