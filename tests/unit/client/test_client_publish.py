"""Publishing from Python: once, or until it is known to be there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiohttp import web

from tests.support import Served
from tests.unit.transports.scripted import Answer, refused, scripted
from wakeline.client import RefusedError, SessionClient
from wakeline.errors import (
    AttemptFencedError,
    LimitReachedError,
    RequestInvalidError,
    SequenceGapError,
    StorageFailedError,
    TopicInvalidError,
    UnavailableError,
)

DONE = web.json_response({"first_offset": 3, "next_offset": 4, "epoch": "aaaaaaaaaa", "duplicate": True})


async def gone(request: web.Request) -> web.StreamResponse:
    """Taken, and the connection breaks before the answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_batch_is_appended_and_its_place_told(served: Served) -> None:
    async with SessionClient(served.url) as client:
        session = client.session("s")
        published = await session.publish_many([("t", 1), {"topic": "u", "data": 2, "run": "r", "activity": "a"}])
        assert (published.first_offset, published.next_offset, published.duplicate) == (0, 2, False)
        assert (await session.publish("t")).first_offset == 2
        assert [(e.topic, e.data, e.run) for e in (await session.page()).events] == [
            ("t", 1, None),
            ("u", 2, "r"),
            ("t", None, None),
        ]


async def test_large_data_goes_through(served: Served) -> None:
    async with SessionClient(served.url) as client:
        await client.session("s").publish("t", "x" * 1_000_000)
        async with client.session("s").events() as events:
            assert (await anext(events)).data == "x" * 1_000_000


async def test_the_same_events_are_there_once_and_earlier_attempts_shut_out(served: Served) -> None:
    async with SessionClient(served.url) as client:
        session = client.session("s")
        first = await session.publish_many([("t", 0), ("t", 1)], publisher="p", sequence=0)
        again = await session.publish_many([("t", 1)], publisher="p", sequence=1)
        assert (first.duplicate, again.duplicate, again.first_offset) == (False, True, 1)
        with pytest.raises(SequenceGapError) as gap:
            await session.publish("t", publisher="p", sequence=7)
        assert (gap.value.expected, gap.value.status, isinstance(gap.value, RefusedError)) == (2, 409, True)
        await session.publish("t", publisher="p", attempt=2, sequence=0)
        with pytest.raises(AttemptFencedError) as fenced:
            await session.publish("t", publisher="p", attempt=1, sequence=2)
        assert fenced.value.attempt == 2
        with pytest.raises(TopicInvalidError):
            await session.publish("$own")


async def test_an_unknown_outcome_is_sent_again_under_a_publishers_name() -> None:
    answers: list[Answer] = [gone, refused(503, "storage_failed"), refused(429, "limit_reached", retry_after=0), DONE]
    async with scripted(*answers) as server, SessionClient(server.url) as client:
        published = await client.session("s").publish("t", 1, publisher="p", attempt=2, sequence=5)
        assert published.duplicate
        assert set(server.bodies) == {b'{"events":[{"topic":"t","data":1}]}'}
        names = ("Wakeline-Publisher", "Wakeline-Attempt", "Wakeline-Sequence")
        assert {tuple(request.headers[name] for name in names) for request in server.requests} == {("p", "2", "5")}
        assert len(server.requests) == 4


async def test_without_a_name_it_is_sent_once() -> None:
    async with scripted(gone) as server, SessionClient(server.url) as client:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await client.session("s").publish("t")
        assert len(server.requests) == 1
    async with scripted(refused(429, "limit_reached", retry_after=7)) as server, SessionClient(server.url) as client:
        with pytest.raises(LimitReachedError) as limit:
            await client.session("s").publish("t")
        assert limit.value.retry_after == 7


async def test_after_the_retry_timeout_the_last_reason_is_told() -> None:
    async with (
        scripted(refused(503, "storage_failed")) as server,
        SessionClient(server.url, retry_timeout=timedelta(seconds=2)) as client,
    ):
        with pytest.raises(StorageFailedError):
            await client.session("s").publish("t", publisher="p", sequence=0)
        assert len(server.requests) > 2


async def test_half_of_what_makes_it_idempotent_is_refused() -> None:
    async with SessionClient() as client:
        with pytest.raises(RequestInvalidError, match="publisher and sequence together"):
            await client.session("s").publish("t", publisher="p")
        with pytest.raises(RequestInvalidError, match="publisher and sequence together"):
            await client.session("s").publish("t", sequence=0)
