"""`wakeline serve`: the gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from wakeline.cli.core_logs import forward_core_logs
from wakeline.cli.logs import configure
from wakeline.cli.supervision import NUMBER, supervise
from wakeline.errors import ProgramMissingError
from wakeline.gateway.serving import serve as run
from wakeline.gateway.settings import load


def serve(
    *,
    data: str | None = None,
    host: str | None = None,
    port: int | None = None,
    temporal: str | None = None,
    namespace: str | None = None,
    engine: str | None = None,
    processes: int | None = None,
    nats_sync_unchecked: Annotated[bool | None, Parameter(negative=())] = None,
    config: Path | None = None,
    no_auth: Annotated[bool | None, Parameter(negative=())] = None,
    cors_origins: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> None:
    """Run the gateway: publishers post events to it, devices read sessions from it.

    Every setting can also be given as WAKELINE_NAME in the environment or in a TOML file; the command line overrides the
    environment, which overrides the file. SIGTERM stops it cleanly: accepted events are durable, and devices resume after
    the restart.

    Examples:
        wakeline serve --no-auth
        WAKELINE_TOKEN_SECRET=... wakeline serve --host 0.0.0.0 --data /var/lib/wakeline --temporal localhost:7233

    Args:
        data: Directory of the log (default: wakeline-data).
        host: Address to listen on; without keys for tokens loopback only (default: 127.0.0.1).
        port: Port to listen on; 0 selects a free one (default: 7777).
        temporal: HOST:PORT of Temporal. Without it only publishers write sessions.
        namespace: Temporal namespace (default: that of the profile, or default).
        processes: Gateways to start, which share the port: one for each core. Needs an engine that gateways share (default: 1).
        engine: The store of the sessions: sqlite, memory, which is lost at exit, or postgres://USER@HOST/DATABASE or
            nats://HOST,HOST, which gateways share. Give a password in WAKELINE_ENGINE or PGPASSWORD, not here (default: sqlite).
        nats_sync_unchecked: Do not check that NATS writes to its disks before it acknowledges.
        config: A TOML file with settings (default: WAKELINE_CONFIG, if set).
        no_auth: Require no tokens; loopback only. Without it, set WAKELINE_TOKEN_SECRET or token_jwks.
        cors_origins: Origins of web pages that may call, such as http://localhost:3000.
    """
    given = {
        "data": data,
        "host": host,
        "port": port,
        "temporal": temporal,
        "namespace": namespace,
        "engine": engine,
        "processes": processes,
        "nats_sync_unchecked": nats_sync_unchecked,
        "no_auth": no_auth,
        "cors_origins": cors_origins,
    }
    settings = load(given, file=config)
    configure(settings.log_level)
    number = os.environ.get(NUMBER)
    if settings.processes > 1 and number is None:
        sys.exit(asyncio.run(supervise(settings)))
    if number is not None and settings.own_port is not None:
        settings = msgspec.structs.replace(settings, own_port=settings.own_port + int(number))
    forward_core_logs(settings.log_level)
    with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
        runner.run(run(settings))


def loop_factory(event_loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop that a setting names; None for asyncio's own.

    Raises:
        ProgramMissingError: uvloop is not installed.
    """
    if event_loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        raise ProgramMissingError("expected uvloop for event_loop = uvloop: pip install '.[fast]' in a clone") from None
    return uvloop.new_event_loop
