"""Who is asking: tokens from a string, from the environment, from a function that makes fresh ones."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.tokens import SECRET, token
from tests.unit.conftest import Serve
from tests.unit.transports.scripted import frame, opening, refused, scripted
from wakeline.client import SessionClient
from wakeline.errors import (
    NotAllowedError,
    RequestInvalidError,
    SessionNotFoundError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
)

EXPIRED = refused(401, "token_expired")
STREAM = opening(0) + frame(0)


async def test_a_fresh_token_is_asked_for_when_the_last_one_has_expired() -> None:
    given: list[str] = []

    async def fresh() -> str:
        given.append(f"e30.e30.{len(given)}")
        return given[-1]

    async with scripted(STREAM, EXPIRED, EXPIRED, STREAM) as server, SessionClient(server.url, fresh) as client:
        events = client.session("s").events()
        await anext(events)
        with pytest.raises(TokenExpiredError):  # the fresh one is no better
            await anext(events)
        async with client.session("s").events() as more:
            await anext(more)
        assert server.tokens == [f"Bearer e30.e30.{n}" for n in (0, 0, 1, 2)]


async def test_many_requests_at_once_ask_for_one_token() -> None:
    given: list[str] = []

    async def fresh() -> str:
        await asyncio.sleep(0.05)
        given.append(f"e30.e30.{len(given)}")
        return given[-1]

    async with scripted(STREAM) as server, SessionClient(server.url, fresh) as client:
        await asyncio.gather(*(anext(client.session("s").events()) for _ in range(5)))
        assert len(given) == 1


async def test_a_plain_function_and_a_string_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKELINE_TOKEN", "from-the-environment")
    async with scripted(EXPIRED) as server:
        monkeypatch.setenv("WAKELINE_URL", server.url)
        for client in (SessionClient(), SessionClient(token="given"), SessionClient(token=lambda: "made")):
            async with client:
                with pytest.raises(TokenExpiredError):
                    await client.session("s").state()
        # Only what makes tokens is asked again.
        given = ["from-the-environment", "given", "made", "made"]
        assert server.tokens == [f"Bearer {text}" for text in given]


@pytest.mark.parametrize("given", ["from-a-file\n", " from-a-file\r\n"])
async def test_white_space_around_a_token_is_not_sent(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("WAKELINE_TOKEN", given)
    async with scripted(refused(401, "token_invalid")) as server:
        for client in (SessionClient(server.url), SessionClient(server.url, lambda: given)):
            async with client:
                with pytest.raises(TokenInvalidError) as raised:
                    await client.session("s").state()
                assert raised.value.hint.startswith("The token came from WAKELINE_TOKEN.")
        assert server.tokens == ["Bearer from-a-file"] * 2


async def test_a_token_of_two_lines_is_refused_with_what_to_correct() -> None:
    async with scripted(STREAM) as server, SessionClient(server.url, "two\nlines") as client:
        with pytest.raises(RequestInvalidError, match="a token that fit into an HTTP request") as raised:
            await client.session("s").state()
    assert "a token is one line" in raised.value.hint


async def test_a_function_that_fails_is_told() -> None:
    def broken() -> str:
        raise LookupError("no session at the identity provider")

    async with scripted(STREAM) as server, SessionClient(server.url, broken) as client:
        with pytest.raises(LookupError):
            await anext(client.session("s").events())
        assert server.requests == []


async def test_a_reading_outlives_its_tokens(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)

    def fresh() -> str:
        return token(exp=time.time() + 6)

    made = 0

    def counted() -> str:
        nonlocal made
        made += 1
        return fresh()

    async with SessionClient(served.url, token()) as publisher, SessionClient(served.url, counted) as client:
        session = publisher.session("s")
        await session.publish("t", 0)
        seen: list[int] = []
        async with asyncio.timeout(60), client.session("s").events() as events:
            while made < 3:
                seen.append((await anext(events)).offset)
                await session.publish("t", len(seen))
                await asyncio.sleep(0.1)
        assert seen == list(range(len(seen)))


async def test_refusals_of_a_real_gateway_are_of_their_class(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    for given, kind in [
        (None, TokenMissingError),
        ("nonsense", TokenInvalidError),
        (token(exp=time.time() - 60), TokenExpiredError),
        (token(sessions=["other"]), SessionNotFoundError),
        (token(allow=["publish"]), NotAllowedError),
    ]:
        async with SessionClient(served.url, given) as client:
            with pytest.raises(kind):
                await client.session("s").state()


async def test_a_token_for_some_topics_reads_them_without_missing_the_others(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    async with SessionClient(served.url, token()) as publisher:
        await publisher.session("s").publish_many([("a" if n % 3 else "b", n) for n in range(9)])
    async with SessionClient(served.url, token(topics=["b"])) as client, client.session("s").events() as events:
        assert [(await anext(events)).offset for _ in range(3)] == [0, 3, 6]
