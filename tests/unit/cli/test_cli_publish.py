"""`wakeline publish` reads lines, and while it does nothing else goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from tests.accepting import accepting
from wakeline.cli.publish import _publish

ENOUGH = 20  # seconds; no test is meant to come near it


class ImpatientProxy:
    """Answers each request and then, a moment later, closes the connection without having said that it would."""

    def __init__(self) -> None:
        self.served = 0
        self.closed = threading.Event()
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))

    def __enter__(self) -> ImpatientProxy:
        self._thread.start()
        assert self._ready.wait(ENOUGH)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(ENOUGH)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with accepting(self._serve) as self.port:
            self._ready.set()
            await self._stop.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        self.served += 1
        body = json.dumps({"epoch": "e", "first_offset": 0, "next_offset": 1, "duplicate": False}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        self.closed.set()


async def test_a_connection_that_was_closed_while_it_read_is_not_used_again(capsys: pytest.CaptureFixture[str]) -> None:
    with ImpatientProxy() as proxy:

        def lines() -> Iterator[str]:
            for n in range(3):
                yield f"{n}\n"
                assert proxy.closed.wait(ENOUGH)
                proxy.closed.clear()

        await _publish("s", lines(), "t", f"http://127.0.0.1:{proxy.port}", None)
        assert proxy.served == 3
    assert len(capsys.readouterr().out.splitlines()) == 3
