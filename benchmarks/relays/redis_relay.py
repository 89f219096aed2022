"""The usual alternative: Redis pub/sub relayed to server-sent events by FastAPI on uvicorn.

`/each/{channel}` is what tutorials show: every client has its own subscription to Redis. `/shared/{channel}` is kinder
to the machine: one subscription a channel and one queue a client. Neither stores anything.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator

import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse


def make_app(redis_url: str) -> FastAPI:
    app = FastAPI()
    # Without these the client allows 100 connections, and ends a subscription that is silent for 5 seconds.
    client: redis.Redis = redis.from_url(redis_url, decode_responses=True, max_connections=100_000, socket_timeout=None)
    queues: dict[str, set[asyncio.Queue[str]]] = {}
    readers: dict[str, asyncio.Task[None]] = {}

    async def own_subscription(channel: str) -> AsyncIterator[str]:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    yield f"data: {message['data']}\n\n"

    async def read(channel: str) -> None:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    for queue in queues[channel]:
                        queue.put_nowait(message["data"])

    async def own_queue(channel: str) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.setdefault(channel, set()).add(queue)
        if channel not in readers:
            readers[channel] = asyncio.create_task(read(channel))
        try:
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            queues[channel].discard(queue)

    @app.get("/each/{channel}")
    async def each(channel: str) -> StreamingResponse:
        return StreamingResponse(own_subscription(channel), media_type="text/event-stream")

    @app.get("/shared/{channel}")
    async def shared(channel: str) -> StreamingResponse:
        return StreamingResponse(own_queue(channel), media_type="text/event-stream")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("redis_url")
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(make_app(parser.parse_args().redis_url), log_level="warning", access_log=False)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
