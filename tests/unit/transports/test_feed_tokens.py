"""The feed and tokens: who may open it, for how long, and what a new token changes."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.feeds import Feed, feed, raw
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve
from wakeline.gateway.transports import conversation

SHORT = 8.0
"""Seconds of a token whose end a test awaits: more than the machine may hold up the requests before it."""


@pytest.fixture
async def served(serve: Serve) -> Served:
    served = await serve(token_secret=SECRET)
    for name in ("order-1", "order-2", "secret"):
        path = f"/v1/sessions/{name}/events"
        for topic in ("status", "delta"):
            body = {"events": [{"topic": topic, "data": topic}]}
            assert (await served.call("POST", path, json=body, headers=bearer()))[0] == 200
    return served


async def publish(served: Served, session: str, topic: str = "status") -> None:
    body = {"events": [{"topic": topic, "data": topic}]}
    assert (await served.call("POST", f"/v1/sessions/{session}/events", json=body, headers=bearer()))[0] == 200


async def test_ready_says_when_the_token_ends(served: Served) -> None:
    end = time.time() + 100
    async with feed(served, ready=False, headers=bearer(exp=end)) as client:
        ready = await client.next("ready")
        assert ready["expires"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end)))


async def test_a_session_out_of_reach_is_answered_as_one_that_is_not_there(served: Served) -> None:
    async with feed(served, headers=bearer(sessions=["order-*"])) as client:
        answers = []
        for name in ("secret", "nothing"):
            await client.send("subscribe", name)
            answers.append(str(await client.next("error")).replace(name, ""))
        assert answers[0] == answers[1]
        await client.send("ack", "secret", seen="aaaaaaaaaa-0")
        assert await client.error() == "session_not_found"


async def test_what_the_token_does_not_allow_is_refused(served: Served) -> None:
    async with feed(served, "?device=phone", headers=bearer(allow=["publish"])) as client:
        await client.send("subscribe", "order-1")
        assert await client.error() == "not_allowed"
        await client.send("ack", "order-1", seen="aaaaaaaaaa-0")
        assert await client.error() == "not_allowed"


async def test_topics_are_held_to_those_of_the_token(served: Served) -> None:
    async with feed(served, headers=bearer(topics=["status"])) as client:
        await client.subscribe("order-1")
        assert [e["topic"] for e in await client.events(1)] == ["status"]
        await client.subscribe("order-2", topics=["status", "delta"])
        assert [e["topic"] for e in await client.events(1)] == ["status"]


async def test_a_bad_token_is_answered_before_the_handshake(served: Served) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with feed(served, headers={"Authorization": "Bearer nonsense"}):
            pass
    assert refusal.value.status == 401


async def test_a_ticket_opens_it_once(served: Served) -> None:
    _, given = await served.call("POST", "/v1/tickets", headers=bearer())
    async with feed(served, f"?ticket={given['ticket']}") as client:
        await client.subscribe("order-1")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with feed(served, f"?ticket={given['ticket']}"):
            pass
    assert refusal.value.status == 401


async def test_a_client_without_a_token_sends_one_first(served: Served) -> None:
    async with feed(served) as client:
        await client.send("token", token=token())
        assert "expires" in await client.next("token")
        await client.subscribe("order-1")
        await client.events(2)


@pytest.mark.parametrize("kind", ["ping", "subscribe", "unsubscribe", "ack"])
async def test_any_other_frame_before_it_closes_with_4401(served: Served, kind: str) -> None:
    async with feed(served) as client:
        await client.send(kind, "order-1")
        assert await client.closed() == 4401


async def test_without_one_in_time_it_is_closed_with_4401(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "TOKEN_SECONDS", SHORT)
    async with feed(served) as client:
        await client.send("token", token="nonsense")
        await client.error()
        started = time.monotonic()
        assert await client.closed() == 4401
        assert time.monotonic() - started < 30


async def test_it_ends_with_its_token(served: Served) -> None:
    end = time.time() + SHORT
    async with feed(served, headers=bearer(exp=end)) as client:
        await client.subscribe("order-1")
        assert await client.closed() == 4401
    assert -0.1 < time.time() - end < 30


async def test_nothing_is_written_after_the_token_s_end_to_who_does_not_answer(served: Served) -> None:
    end = time.time() + SHORT
    async with raw(served.url, Authorization=bearer(exp=end)["Authorization"]) as client:
        client.send_json({"type": "subscribe", "session": "order-1"})
        assert (await client.closed())[0] == 4401
        await publish(served, "order-1")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.next()


async def test_a_new_token_prolongs_it(served: Served) -> None:
    end = time.time() + SHORT
    async with feed(served, headers=bearer(exp=end)) as client:
        await client.subscribe("order-1")
        await client.events(2)
        await client.send("token", token=token(exp=time.time() + 60))
        assert (await client.next("token"))["expires"] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
        await asyncio.sleep(max(0, end + 0.2 - time.time()))
        await publish(served, "order-1")
        await client.events(1)


async def test_one_that_is_refused_changes_nothing(served: Served) -> None:
    end = time.time() + SHORT
    async with feed(served, headers=bearer(exp=end)) as client:
        for refused in (token(sub="bob"), token(exp=time.time() - 1), token("another secret, as long as it must be")):
            await client.send("token", token=refused)
            assert await client.error() in ("token_invalid", "token_expired")
        await client.subscribe("order-1")
        assert await client.closed() == 4401
    assert -0.1 < time.time() - end < 30


async def test_a_new_token_ends_what_it_does_not_allow(served: Served) -> None:
    async with feed(served, headers=bearer()) as client:
        cursors = {}
        for name in ("order-1", "order-2", "secret"):
            await client.subscribe(name)
            cursors[name] = (await client.next("events"))["cursor"]
        await client.send("token", token=token(sessions=["order-*"]))
        await client.next("token")
        error, end = await client.next("error"), await client.next("end")
        assert (error["session"], error["error"]["code"]) == ("secret", "session_not_found")
        assert end == {"type": "end", "session": "secret", "cursor": cursors["secret"], "reason": "error"}
        await publish(served, "secret")
        await publish(served, "order-1")
        assert [e["topic"] for e in await client.events(1, "order-1")] == ["status"]


async def test_one_with_other_topics_ends_what_is_read_with_the_old_ones(served: Served) -> None:
    async with feed(served, headers=bearer()) as client:
        await client.subscribe("order-1", from_="now")
        await client.send("token", token=token(topics=["status"]))
        await client.next("token")
        assert await client.error() == "not_allowed"
        cursor = (await client.next("end"))["cursor"]
        await publish(served, "order-1", "delta")
        await publish(served, "order-1", "status")
        await client.subscribe("order-1", from_=cursor)
        assert [e["topic"] for e in await client.events(1)] == ["status"]
        await client.send("token", token=token())  # more than before: what is read stays as it was asked for
        await client.next("token")
        await publish(served, "order-1", "delta")
        await publish(served, "order-1", "status")
        assert [e["topic"] for e in await client.events(1)] == ["status"]


async def test_too_many_connections_of_one_user_close_with_4429(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, user_connections=2)

    async def by_header() -> Feed:
        return Feed(await served.http.ws_connect("/v1/feed", headers=bearer()))

    async def by_frame() -> Feed:
        client = Feed(await served.http.ws_connect("/v1/feed"))
        await client.next("ready")
        await client.send("token", token=token())
        return client

    held = [await by_header(), await by_frame()]
    assert [(await client.next())["type"] for client in held] == ["ready", "token"]
    for opening in (by_header, by_frame):
        client = await opening()
        assert await client.closed() == 4429
    for client in held:
        await client.socket.close()
    async with asyncio.timeout(60):
        while True:
            client = await by_header()
            if (await client.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                break
            await asyncio.sleep(0.01)
    await client.socket.close()


async def test_the_sse_feed_ends_with_its_token_and_keeps_to_its_topics(served: Served) -> None:
    end = time.time() + SHORT
    answer = await served.http.get(
        "/v1/feed?session=order-1&session=secret", headers=bearer(exp=end, sessions=["order-*"], topics=["status"])
    )
    text = (await asyncio.wait_for(answer.read(), 60)).decode()
    assert -0.1 < time.time() - end < 30
    assert text.count("\ndata: ") == 2
    assert 'event: reset\ndata: {"session":"secret","error":{"code":"session_not_found"' in text
    assert '"topic":"status"' in text
    assert '"topic":"delta"' not in text


async def test_nobody_reads_the_sse_feed_without_a_token(served: Served) -> None:
    status, answer = await served.call("GET", "/v1/feed?session=order-1")
    assert (status, answer["error"]["code"]) == (401, "token_missing")
