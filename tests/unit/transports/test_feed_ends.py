"""Feeds that end in several ways at once: each of them is answered, and none is taken for a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.test_utils import make_mocked_request

from wakeline.errors import NotAllowedError, WakelineError
from wakeline.gateway.access import ANYONE, NOBODY, Grant
from wakeline.gateway.settings import Settings
from wakeline.gateway.transports import conversation
from wakeline.gateway.transports import feed_frames as frames
from wakeline.gateway.transports.feed import Source
from wakeline.gateway.transports.feed_socket import RESTARTS, TOKEN
from wakeline.gateway.transports.websocket import FeedConnection


class Socket:
    """Says nothing."""

    async def receive(self) -> None:
        await asyncio.Event().wait()


def feed(grant: Grant) -> tuple[Any, list[Any]]:
    """A feed without a connection, and what it answers."""
    limits = SimpleNamespace(address=lambda _: nullcontext(), user=lambda _: nullcontext())
    source = cast(Source, SimpleNamespace(settings=Settings(keep_alive=1000.0, write_timeout=1000.0), limits=limits))
    connection: Any = FeedConnection(make_mocked_request("GET", "/v1/feed"), source, grant, None)
    answers: list[Any] = []
    connection._socket = Socket()
    connection._connection = SimpleNamespace(write=answers.append)
    return connection, answers


async def test_a_feed_whose_time_is_over_can_be_stopped_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "TOKEN_SECONDS", 0.0)
    codes = []
    for turns in range(8):
        connection, _ = feed(NOBODY)
        ending = asyncio.create_task(connection._until_closed())
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.stop(RESTARTS, "the server stops")
        codes.append((await ending).code)
    assert set(codes) == {RESTARTS, TOKEN}


class Refused:
    """A subscription that a new token does not allow, and that ends when it is told to."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def run(self) -> list[frames.ServerFrame]:
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.leaving()
            raise
        return [frames.End("b", "x-1", "deleted")]

    leaving: Callable[[], None]
    task: asyncio.Task[None]

    def check(self, _: Grant) -> None:
        raise NotAllowedError("no")

    def last(self, error: WakelineError) -> list[frames.ServerFrame]:
        return [frames.error_frame(error, "a")]


async def test_a_session_that_ends_while_a_token_takes_another_away_is_told_once() -> None:
    connection, answers = feed(ANYONE)
    one, other = Refused(), Refused()
    one.leaving = other.ended.set
    for name, subscription in (("a", one), ("b", other)):
        connection._subscriptions[name] = subscription
        subscription.task = asyncio.create_task(connection._run(name, subscription))
    await asyncio.sleep(0)
    await connection._regrant(ANYONE)
    await asyncio.wait([one.task, other.task])
    assert connection._subscriptions == {}
    assert len(answers) == 2
