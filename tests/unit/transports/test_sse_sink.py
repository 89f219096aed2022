"""What is written to a stream waits for the client, and only a client that takes nothing is cut."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from wakeline.gateway.transports.sse import SseSink


class Client:
    """Takes what it is written in the next turn of the loop, or never."""

    def __init__(self, *, takes: bool) -> None:
        self.writing_paused = False
        self.cut = False
        self._takes = takes
        self._taken = asyncio.get_running_loop().create_future()
        transport = SimpleNamespace(
            is_closing=lambda: False, write=self._write, abort=self._abort, get_extra_info=lambda _: None
        )
        self.request: Any = SimpleNamespace(transport=transport, protocol=self, writer=self)

    def _write(self, _: bytes) -> None:
        self.writing_paused = True
        if self._takes:
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self.writing_paused = False
        self._taken.set_result(None)

    def _abort(self) -> None:
        self.cut = True

    async def drain(self) -> None:
        await self._taken


async def test_a_client_that_has_taken_everything_is_not_cut_because_we_were_stopped() -> None:
    client = Client(takes=True)
    await SseSink(client.request, 0.0).send(b"page")  # its time is over in the turn in which it takes it
    assert not client.cut


async def test_a_client_that_takes_nothing_is_cut() -> None:
    client = Client(takes=False)
    with pytest.raises(ConnectionAbortedError):
        await SseSink(client.request, 0.0).send(b"page")
    assert client.cut
