"""Publishers that the gateway does not let in or cannot hear: said at once, or logged after a moment, never a silent hang."""

from __future__ import annotations

import asyncio
import logging

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, DefaultPayloadConverter

from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve
from tests.unit.publisher.scripted import RIGHTLY, ScriptedGateway
from wakeline import outages
from wakeline.client import SessionClient
from wakeline.errors import (
    NotAllowedError,
    SessionNotFoundError,
    TokenExpiredError,
    TokenMissingError,
    UnavailableError,
    WakelineError,
)
from wakeline.publisher import Nudger, SessionPublisher, SyncSessionPublisher

ENOUGH = 60  # seconds; no test is meant to come near it


@pytest.fixture
async def guarded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.delenv("WAKELINE_TOKEN", raising=False)
    return await serve(token_secret=SECRET)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_FIRST_SECONDS", 0.1)


async def test_a_publisher_without_a_token_fails_at_once(guarded: Served) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(TokenMissingError, match="expected a token, got none") as caught:
            async with SessionPublisher(guarded.url, session="s"):
                pytest.fail("it opened")
        assert "WAKELINE_TOKEN" in caught.value.hint
        with pytest.raises(TokenMissingError):
            await asyncio.to_thread(SyncSessionPublisher(guarded.url, session="s").__enter__)
        async with SessionClient(guarded.url) as client:
            with pytest.raises(TokenMissingError):
                await client.session("s").publish("t", 1)
            with pytest.raises(TokenMissingError):
                await anext(client.session("s").events())


async def test_a_nudger_without_a_token_logs_that_once(guarded: Served, caplog: pytest.LogCaptureFixture) -> None:
    async with Nudger(guarded.url) as nudger, asyncio.timeout(ENOUGH):
        while not caplog.records:
            nudger.nudge("order-1")
            await asyncio.sleep(0.01)
        for _ in range(20):
            nudger.nudge("order-1")
            await asyncio.sleep(0.01)
    (message,) = caplog.messages
    assert "expected a token, got none" in message


async def test_a_token_that_never_reaches_the_gateway_is_not_sent_for_ever(script: ScriptedGateway) -> None:
    script.close_with = 4401
    async with asyncio.timeout(ENOUGH):
        with pytest.raises(TokenMissingError, match="to receive the token that was sent"):
            async with SessionPublisher(script.url, lambda: "fresh", session="s"):
                pytest.fail("it opened")
    assert script.connections == 2


async def test_a_gateway_that_is_away_is_logged_and_that_it_is_back(
    away: ScriptedGateway, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wakeline")
    async with SessionPublisher(away.url, session="s") as session, Nudger(away.url) as nudger:
        nudger.nudge("order-1")
        await session.topic("t").publish(1)
        async with asyncio.timeout(ENOUGH):
            while not caplog.messages:
                await asyncio.sleep(0.01)
        await away.start()
        await session.flush()
    first, last = caplog.records
    assert (first.levelname, last.levelname) == ("WARNING", "INFO")
    assert first.message.startswith(f"Reaching the gateway at {away.url} has failed for ")
    assert last.message.startswith(f"Reaching the gateway at {away.url} works again after ")


async def test_a_gateway_that_is_there_and_cannot_append_is_logged(
    script: ScriptedGateway, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    full = {"code": "storage_full", "message": "the disk is full", "hint": "Make space."}
    script.script = lambda frame: [{"type": "error", "channel": frame["channel"], "error": full}]
    session = await SessionPublisher(script.url, session="s").__aenter__()
    await session.topic("t").publish(1)
    async with asyncio.timeout(ENOUGH):
        while not any("the disk is full" in message for message in caplog.messages):
            await asyncio.sleep(0.01)
    script.script = lambda _: RIGHTLY
    await session.aclose()
    assert script.events() == [1]


async def test_reading_logs_an_outage_unless_the_reader_has_on_lost(
    away: ScriptedGateway, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with SessionClient(away.url) as client:
        told: list[str] = []
        listening = asyncio.create_task(anext(client.session("s").events(on_lost=lambda e: told.append(e.code))))
        reading = asyncio.create_task(anext(client.session("r").events()))
        async with asyncio.timeout(ENOUGH):
            while not caplog.messages:
                await asyncio.sleep(0.01)
        for task in (listening, reading):
            task.cancel()
        await asyncio.wait([listening, reading])
    assert told == ["unavailable"]
    assert caplog.messages[0].startswith(f"Reading from the gateway at {away.url} has failed for ")


async def publish_one(url: str, given: str | None) -> None:
    async with SessionPublisher(url, given, session="mine", on_unavailable="error") as session:
        await session.topic("t").publish(1)
        await session.flush()


async def test_what_an_activity_s_failure_shows_has_a_hint_and_no_address(
    guarded: Served, away: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = token(sub="worker", exp=1_000_000_000)
    monkeypatch.setenv("WAKELINE_TOKEN", ended)
    cases: list[tuple[str, str | None, type[WakelineError], list[str]]] = [
        (
            guarded.url,
            ended,
            TokenExpiredError,
            ["the token of 'worker' expired at 2001-09-09", "came from WAKELINE_TOKEN"],
        ),
        (
            guarded.url,
            None,
            TokenMissingError,
            [
                "Pass token=… (--token), or set WAKELINE_TOKEN; `wakeline token --user NAME --session SESSION --allow publish`"
            ],
        ),
        (
            guarded.url,
            token(sessions=["other"], allow=["publish"]),
            SessionNotFoundError,
            ["the token does not reach session 'mine'", "wakeline.sessions"],
        ),
        (guarded.url, token(sessions=["mine"], allow=["read"]), NotAllowedError, ["'publish'", "wakeline.allow"]),
        (away.url, None, UnavailableError, ["the gateway cannot be reached: connection refused", "/healthz"]),
    ]
    for url, given, kind, said in cases:
        if given is None:
            monkeypatch.delenv("WAKELINE_TOKEN", raising=False)
        with pytest.raises(kind) as raised:
            await publish_one(url, given)
        assert [words for words in said if words not in str(raised.value)] == [], str(raised.value)
        failure = Failure()
        DefaultFailureConverter().to_failure(raised.value, DefaultPayloadConverter(), failure)
        assert "127.0.0.1" not in str(failure)
        assert failure.message == str(raised.value)
