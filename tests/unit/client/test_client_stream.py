"""`Session.events` against servers that lie, stutter and refuse."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from tests.unit.transports.scripted import EPOCH, Answer, frame, opening, refused, scripted, silence
from wakeline.client import EventStream, RefusedError, SessionClient, StreamBrokenError
from wakeline.errors import EpochChangedError, NotAllowedError, SessionNotFoundError, WakelineError

END = web.Response(status=204)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.client.stream._FIRST_PAUSE", 0.001)


async def offsets(events: EventStream[Any]) -> list[int]:
    async with asyncio.timeout(60), events:
        return [event.offset async for event in events]


async def test_repeated_and_reordered_events_come_once_and_in_order() -> None:
    stuttering = opening(0) + frame(0) + frame(0) + frame(1) + frame(0) + frame(1)
    reordered = opening(2) + frame(2) + frame(4) + frame(3)
    from_the_start = opening(0) + b"".join(frame(n) for n in range(6))
    async with scripted(stuttering, reordered, from_the_start, END) as server, SessionClient(server.url) as client:
        assert await offsets(client.session("s").events()) == [0, 1, 2, 3, 4, 5]
        assert server.asked == ["beginning", f"{EPOCH}-2", f"{EPOCH}-3", f"{EPOCH}-6"]


async def test_an_event_that_is_dropped_on_the_way_is_asked_for_again() -> None:
    async with (
        scripted(opening(0) + frame(0) + frame(2), opening(1) + frame(1) + frame(2), END) as server,
        SessionClient(server.url) as client,
    ):
        assert await offsets(client.session("s").events()) == [0, 1, 2]


async def test_one_that_is_dropped_again_and_again_is_an_error() -> None:
    async with scripted(opening(0) + frame(0) + frame(2)) as server, SessionClient(server.url) as client:
        events = client.session("s").events()
        assert (await anext(events)).offset == 0
        with pytest.raises(StreamBrokenError, match="expected offset 1, got 2"):
            await anext(events)
        assert server.asked == ["beginning", f"{EPOCH}-1", f"{EPOCH}-1"]
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_what_topics_leave_out_is_not_missed() -> None:
    async with scripted(opening(0) + frame(3) + frame(8), END) as server, SessionClient(server.url) as client:
        assert await offsets(client.session("s").events(topics=["t", "u.*"])) == [3, 8]
        assert server.requests[0].query["topics"] == "t,u.*"


@pytest.mark.parametrize(
    ("claims", "filtered"),
    [("e30", False), ("eyJ3YWtlbGluZSI6eyJ0b3BpY3MiOlsidCJdfX0", True), ("", True)],
    ids=["a token for all topics", "a token for some", "a token that only the gateway can read"],
)
async def test_what_the_token_leaves_out_is_not_missed(claims: str, filtered: bool) -> None:
    token = f"e30.{claims}.x" if claims else "opaque"
    async with scripted(opening(0) + frame(3)) as server, SessionClient(server.url, token) as client:
        events = client.session("s").events()
        if filtered:
            assert (await anext(events)).offset == 3
        else:
            with pytest.raises(StreamBrokenError):
                await anext(events)
        await events.aclose()


async def test_something_else_than_an_event_stream_is_told() -> None:
    login = web.Response(text="<html>Please log in", content_type="text/html")
    async with scripted(login) as server, SessionClient(server.url) as client:
        with pytest.raises(StreamBrokenError, match="expected text/event-stream, got 200 with text/html"):
            await offsets(client.session("s").events())
        with pytest.raises(RefusedError, match="expected JSON from the gateway, got 200 with b'<html>"):
            await client.session("s").state()


async def test_passing_refusals_are_waited_for_and_told_once() -> None:
    told: list[str] = []

    def lost(error: WakelineError) -> None:
        told.append(error.code)

    answers: list[Answer] = [
        refused(503, "storage_failed"),
        web.Response(status=502, text="<html>bad gateway"),
        refused(429, "limit_reached", retry_after=0),
        opening(0) + frame(0),
        refused(503, "temporal_unavailable"),
        END,
    ]
    async with scripted(*answers) as server, SessionClient(server.url) as client:
        events = client.session("s").events(on_lost=lost, on_resumed=lambda: told.append("resumed"))
        assert await offsets(events) == [0]
    assert told == ["storage_failed", "resumed", "temporal_unavailable", "resumed"]


async def test_a_gateway_says_how_long_to_wait() -> None:
    async with (
        scripted(refused(429, "limit_reached", retry_after=1), opening(0) + frame(0), END) as server,
        SessionClient(server.url) as client,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await offsets(client.session("s").events()) == [0]
        assert loop.time() - began >= 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(404, "session_not_found"), SessionNotFoundError),
        (refused(410, "epoch_changed"), EpochChangedError),
        (refused(403, "not_allowed"), NotAllowedError),
        (refused(418, "of_another_version"), RefusedError),
        (web.Response(status=500, text="oh"), RefusedError),
    ],
)
async def test_other_refusals_end_it(answer: web.Response, kind: type[WakelineError]) -> None:
    async with scripted(opening(0) + frame(0), answer) as server, SessionClient(server.url) as client:
        events = client.session("s").events()
        await anext(events)
        with pytest.raises(kind) as refusal:
            await anext(events)
        assert isinstance(refusal.value, RefusedError)
        assert refusal.value.status == answer.status
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert len(server.requests) == 2


async def test_a_gateway_that_ends_at_once_again_and_again_is_not_asked_without_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wakeline.client.stream._FIRST_PAUSE", 0.05)
    async with scripted(opening(0)) as server, SessionClient(server.url) as client:
        events, began = client.session("s").events(), time.monotonic()
        reading = asyncio.create_task(events.wait())
        async with asyncio.timeout(60):
            while len(server.requests) < 4:
                await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.5 * (0.05 + 0.1), "the second pause is twice as long"
        await events.aclose()
        assert await reading is False


async def test_a_stream_that_says_nothing_is_taken_for_dead() -> None:
    async with (
        scripted(silence) as server,
        SessionClient(server.url, silence=timedelta(milliseconds=100)) as client,
    ):
        lost: list[WakelineError] = []
        events = client.session("s").events(on_lost=lost.append)
        await anext(events)
        reading = asyncio.create_task(events.wait())
        async with asyncio.timeout(60):
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
        await events.aclose()
        await reading
        assert {error.code for error in lost} == {"unavailable"}


async def test_who_waits_for_the_gateway_is_told_at_once_that_it_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.client.stream._FIRST_PAUSE", 3600.0)
    monkeypatch.setattr("wakeline.client.stream._LAST_PAUSE", 3600.0)
    lost = asyncio.Event()
    async with scripted(refused(503, "unavailable")) as server, SessionClient(server.url) as client:
        events = client.session("s").events(on_lost=lambda _: lost.set())
        reading = asyncio.create_task(events.wait())
        async with asyncio.timeout(60):
            await lost.wait()
            await events.aclose()
            assert await reading is False


async def test_a_silent_session_is_asked_again_at_once_after_each_connection_that_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that ends connections now and then must not make the next event late."""
    monkeypatch.setattr("wakeline.client.stream._LAST_PAUSE", 3600.0)
    monkeypatch.setattr("wakeline.client.stream._LASTING_SECONDS", -1.0)
    answers: list[Answer] = [opening(0)] * 30
    async with scripted(*answers, opening(0) + frame(0), END) as server, SessionClient(server.url) as client:
        assert await offsets(client.session("s").events()) == [0]
        assert len(server.requests) == 32
