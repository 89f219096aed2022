"""A connection that ends with the block that uses it, also where a test fails in it.

One that is left behind warns when it is collected, and fails whatever test runs at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def connecting(
    host: str, port: int | str, *, limit: int = 1 << 16
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server until the block ends.

    Args:
        host: The server's address.
        port: Its port.
        limit: The size of the reader's buffer.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
