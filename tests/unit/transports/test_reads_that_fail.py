"""A log that cannot be read in the middle of a stream: the stream is cut, and its reader resumes."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.support import Served
from wakeline.errors import StorageFailedError
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Page, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings


class Failing(MemoryEngine):
    """Fails to read from an offset on, as long as it is told to."""

    fails_from = 1 << 62
    unknown = ""
    """The session whose state cannot be read."""

    async def state(self, session: str, *, publisher: str | None = None) -> SessionState | None:
        if session == self.unknown:
            raise StorageFailedError("the log cannot be read now")
        return await super().state(session, publisher=publisher)

    async def read(self, session: str, offset: int, **how: Any) -> Page:
        if offset >= self.fails_from:
            raise StorageFailedError("the log cannot be read now")
        page = await super().read(session, offset, **how)
        return Page(page.events[:1], page.began + 1, page.began)


async def collect(answer: aiohttp.ClientResponse, pieces: list[bytes]) -> None:
    async for piece in answer.content.iter_any():
        pieces.append(piece)


@pytest.mark.parametrize("path", ["/v1/sessions/s/events?from=beginning", "/v1/feed?session=s&from=beginning"])
async def test_a_stream_is_cut_where_its_log_cannot_be_read(path: str) -> None:
    engine = Failing()
    async with gateway(Settings(port=0, no_auth=True), engine=engine) as url, Served(url) as served:
        await served.publish("s", *({"topic": "t", "data": number} for number in range(5)))
        engine.fails_from = 2
        async with served.http.get(path, headers={"Accept": "text/event-stream"}) as answer:
            assert answer.status == 200
            pieces: list[bytes] = []
            with pytest.raises(aiohttp.ClientError):
                await collect(answer, pieces)
            read = b"".join(pieces)
        assert b"storage_failed" not in read
        assert b'"data":1' in read
        engine.fails_from = 1 << 62
        stream = await served.stream("s", "from=beginning")
        assert [event["data"] for event in await stream.take(5)] == list(range(5))


async def test_a_feed_is_refused_as_a_whole_while_one_of_its_sessions_cannot_be_prepared() -> None:
    engine = Failing()
    async with gateway(Settings(port=0, no_auth=True), engine=engine) as url, Served(url) as served:
        await served.publish("s", {"topic": "t", "data": 0})
        engine.unknown = "later"
        path = "/v1/feed?session=s&session=later&wait_for_start=true"
        status, answer = await served.call("GET", path, headers={"Accept": "text/event-stream"})
        assert (status, answer["error"]["code"]) == (503, "storage_failed")
