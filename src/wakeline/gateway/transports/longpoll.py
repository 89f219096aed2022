"""One page of JSON: at once, or as soon as there is an event."""

from __future__ import annotations

import asyncio

from aiohttp import web

from wakeline.gateway.hub import Channel
from wakeline.gateway.log import Engine
from wakeline.gateway.topics import Topics
from wakeline.gateway.transports import frames


async def serve(
    engine: Engine, channel: Channel, offset: int, *, topics: Topics | None, limit: int, wait: float
) -> web.Response:
    """Answer with the events from `offset` on; if there are none, wait up to `wait` seconds for the first."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while True:
        page = await engine.read(channel.session, offset, before=channel.tail, limit=limit, topics=topics)
        offset = page.next_offset
        if page.events:
            break
        if offset < channel.tail:
            continue  # a stretch without a matching topic
        remaining = deadline - loop.time()
        if remaining <= 0:
            break
        await channel.wait_beyond(offset, remaining)
    body = frames.page(channel.epoch, page.events, offset, up_to_date=offset >= channel.tail, settled=channel.settled)
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})
