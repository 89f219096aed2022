"""Writes a long answer in pieces, at its client's pace and with one piece in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import structlog
from aiohttp import web

from wakeline.errors import WakelineError
from wakeline.gateway.access import expiring

_PART_BYTES: Final = 64 * 1024

_log = structlog.get_logger(__name__)


async def write_pieces(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes], *, timeout: float
) -> web.StreamResponse:
    """Answer with pieces; abort the connection if the client is too slow or a piece fails.

    Args:
        request: The request.
        response: Its answer, not begun yet.
        pieces: The body.
        timeout: Seconds in which the client must accept a piece.
    """
    with suppress(ConnectionError):  # the client disconnected
        await response.prepare(request)
        try:
            async with expiring(request):
                async for piece in pieces:
                    # In parts, because the transport copies everything that it cannot send at once.
                    for start in range(0, len(piece), _PART_BYTES):
                        async with asyncio.timeout(timeout):
                            await response.write(piece[start : start + _PART_BYTES])
                await response.write_eof()
                return response
        except (WakelineError, TimeoutError) as error:
            _log.warning("an answer was cut short", path=request.path, error=str(error))
        if request.transport is not None:
            request.transport.abort()
    return response
