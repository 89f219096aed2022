"""Exports a session to a file, and imports it: one JSON object a line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec

from wakeline.client.errors import TransferError
from wakeline.client.http import LOST, Http
from wakeline.client.structs import SessionState

_PIECE: Final = 1 << 18
_LAST_LINE: Final = 100

OnProgress: TypeAlias = Callable[[int], None] | None


class _End(msgspec.Struct):
    wakeline_export_end: int


async def export(http: Http, path: str, to: Path, on_progress: OnProgress = None) -> int:
    """Write a session to a file, which is replaced only when the export is complete.

    Raises:
        TransferError: It was cut short.
    """
    partial = to.with_name(f"{to.name}.partial")
    try:
        async with await http.open("GET", path) as answer:
            end = await _write(answer, partial, http, on_progress)
        await asyncio.to_thread(os.replace, partial, to)
        return end
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


async def _write(answer: aiohttp.ClientResponse, partial: Path, http: Http, on_progress: OnProgress) -> int:
    last, lines = b"", 0
    file = await asyncio.to_thread(partial.open, "wb")
    with file:
        async for piece in _received(answer, http):
            await asyncio.to_thread(file.write, piece)
            last = (last + piece)[-_LAST_LINE:]
            lines += piece.count(b"\n")
            if on_progress is not None:
                on_progress(lines)
    try:
        return msgspec.json.decode(last.rstrip(b"\n").rpartition(b"\n")[2], type=_End).wakeline_export_end
    except msgspec.DecodeError:
        raise TransferError(f"the export was cut short: its last line is {last[-60:]!r}") from None


async def _received(answer: aiohttp.ClientResponse, http: Http) -> AsyncIterator[bytes]:
    """Yield an export's pieces; only errors of the connection mean that it was cut short."""
    try:
        async for piece in answer.content.iter_chunked(_PIECE):
            yield piece
    except LOST as error:
        raise TransferError(f"the export was cut short: {http.lost(error).message}") from None


async def import_(http: Http, path: str, source: Path, on_progress: OnProgress = None) -> SessionState:
    """Create a session from a file, see `Session.import_`."""
    await asyncio.to_thread(source.stat)  # raises for a missing file before the request
    headers = {"Content-Type": "application/x-ndjson"}
    return await http.call("POST", path, SessionState, headers=headers, body=lambda: _pieces(source, on_progress))


async def _pieces(source: Path, on_progress: OnProgress) -> AsyncIterator[Any]:
    file = await asyncio.to_thread(source.open, "rb")
    lines = 0
    with file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
            lines += piece.count(b"\n")
            if on_progress is not None:
                on_progress(lines)
