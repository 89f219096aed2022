"""The shared connections: one per event loop, URL and token, and another when it is full."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from wakeline.client.http import Token
from wakeline.publisher.connection import MOST_CHANNELS, Connection
from wakeline.publisher.dial import Dial

_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, Token | None], list[Connection]]] = (
    WeakKeyDictionary()
)


def shared_connection(url: str, token: Token | None) -> Connection:
    """Return this event loop's connection to a gateway, with room for one more channel."""
    of_loop = _connections.setdefault(asyncio.get_running_loop(), {})
    known = of_loop.setdefault((url, token), [])
    known[:] = [connection for connection in known if connection.is_kept]
    for connection in known:
        if len(connection) < MOST_CHANNELS:
            return connection
    connection = Connection(Dial(url, token))
    known.append(connection)
    return connection
