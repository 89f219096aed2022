"""With a real gateway: what it refuses, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.support import Served
from tests.tokens import SECRET, token
from tests.unit.conftest import Serve, on_disk
from wakeline.errors import (
    EventTooLargeError,
    NotAllowedError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
)
from wakeline.publisher import PublishDroppedError, SessionPublisher


async def data(served: Served, session: str = "s", **headers: str) -> list[Any]:
    _, page = await served.call("GET", f"/v1/sessions/{session}/events?limit=10000", headers=headers)
    return [event["data"] for event in page["events"]]


@on_disk
async def test_two_hundred_publishers_at_once(served: Served) -> None:
    async def speak(number: int) -> None:
        async with SessionPublisher(served.url, session=f"s{number}") as session:
            for n in range(50):
                await session.topic("t").publish(n)
                if n % 10 == 0:
                    await session.flush()

    async with asyncio.timeout(60):
        await asyncio.gather(*(speak(number) for number in range(200)))
    for number in (0, 57, 199):
        assert await data(served, f"s{number}") == list(range(50))


async def test_an_event_over_the_gateway_s_own_limit_is_told_alone(serve: Serve) -> None:
    served = await serve(max_event_bytes=100)
    dropped: list[PublishDroppedError] = []
    async with SessionPublisher(served.url, session="s", on_dropped=dropped.append) as session:
        for n in range(40):
            await session.topic("t").publish("x" * 200 if n == 23 else n)
    assert await data(served) == [n for n in range(40) if n != 23]
    (report,) = dropped
    assert isinstance(report, EventTooLargeError)
    assert [event.data for event in report.events] == ["x" * 200]


async def test_a_closed_session_is_told(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        await session.topic("t").publish(1)
        await session.flush()
        assert (await served.call("POST", "/v1/sessions/s/close"))[0] == 200
        await session.topic("t").publish(2)
        with pytest.raises(SessionClosedError) as caught:
            await session.flush()
        assert isinstance(caught.value, PublishDroppedError)
        assert [event.data for event in caught.value.events] == [2]
        with pytest.raises(SessionClosedError):
            await session.topic("t").publish(3)
        with pytest.raises(SessionClosedError):
            await session.aclose()


async def test_a_deleted_session_is_reported_and_not_created_again(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        await session.topic("t").publish(1)
        await session.flush()
        assert (await served.call("DELETE", "/v1/sessions/s"))[0] == 204
        for n in (2, 3):
            await session.topic("t").publish(n)
        with pytest.raises(SessionDeletedError) as caught:
            await session.flush()
        assert isinstance(caught.value, PublishDroppedError)
        assert [event.data for event in caught.value.events] == [2, 3]
        with pytest.raises(SessionDeletedError):
            await session.topic("t").publish(4)
        with pytest.raises(SessionDeletedError):
            await session.aclose()
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404
    async with SessionPublisher(served.url, session="s") as another:
        await another.topic("t").publish(5)
    assert await data(served) == [5]


def granted(seconds: float = 600, **claims: Any) -> str:
    return token(exp=time.time() + seconds, sessions=["s*"], allow=["publish", "read"], **claims)


async def test_a_token_holds_a_publisher_to_its_sessions_and_topics(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    dropped: list[PublishDroppedError] = []
    who = granted(topics=["status"])
    async with SessionPublisher(served.url, who, session="s", on_dropped=dropped.append) as session:
        for n in range(10):
            await session.topic("secret" if n == 4 else "status").publish(n)
    assert [[event.data for event in report.events] for report in dropped] == [[4]]
    assert isinstance(dropped[0], NotAllowedError)
    assert await data(served, Authorization=f"Bearer {who}") == [n for n in range(10) if n != 4]
    with pytest.raises((SessionNotFoundError, NotAllowedError)):
        await SessionPublisher(served.url, who, session="other").__aenter__()


async def test_a_token_that_ends_is_followed_by_a_fresh_one(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    given: list[str] = []

    async def fresh() -> str:
        given.append(granted(1.5 if not given else 600))
        return given[-1]

    async with SessionPublisher(served.url, fresh, session="s") as session:
        number = 0
        async with asyncio.timeout(60):
            while len(given) < 2:
                await session.topic("t").publish(number)
                number += 1
                await asyncio.sleep(0.02)
    assert await data(served, Authorization=f"Bearer {given[-1]}") == list(range(number))
