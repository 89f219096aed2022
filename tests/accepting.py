"""A server whose connections end with it, for proxies and servers that a test makes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from wakeline.background import begin, cancel_all

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def accepting(handle: Handle, host: str = "127.0.0.1", *, limit: int = 1 << 16) -> AsyncIterator[int]:
    """Serve connections on a free port, which it yields, until the block ends; none outlives it.

    Args:
        handle: Serves one connection, and is cancelled at the end.
        host: The address to listen at.
        limit: The size of a reader's buffer.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(accepted: socket.socket) -> None:
        # asyncio does it for sockets that it makes. Without it a piece of a message waits 40 ms for an acknowledgement.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader, writer = await asyncio.open_connection(sock=accepted, limit=limit)
        try:
            await handle(reader, writer)
        finally:
            writer.transport.abort()

    def accept() -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = listener.accept()
            # Not in the task: one that is cancelled before its first step closes nothing.
            begin(serve(accepted), tasks).add_done_callback(lambda _: accepted.close())

    # `asyncio.start_server` leaves a connection open that it is about to accept when it is closed.
    loop, listener = asyncio.get_running_loop(), socket.create_server((host, 0))
    listener.setblocking(False)
    loop.add_reader(listener, accept)
    try:
        yield listener.getsockname()[1]
    finally:
        loop.remove_reader(listener)
        listener.close()
        await cancel_all(*tasks)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next turn
