"""A publisher belongs to the token that opened it. PROTOCOL.md §3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.publishers import line
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve, on_disk

TAKEN = (403, "publisher_taken")
WORKER: dict[str, Any] = {"sub": "worker-1", "sessions": ["*"], "allow": ["publish"], "publishers": ["*"]}


async def opened(served: Served, attempt: int, publisher: str = "run:1", **scope: Any) -> tuple[int, str]:
    status, answer = await served.call(
        "PUT", f"/v1/sessions/s/publishers/{publisher}", json={"attempt": attempt}, headers=bearer(**scope)
    )
    return status, answer["error"]["code"] if status != 200 else ""


async def appended(served: Served, attempt: int, sequence: int, topic: str = "delta", **scope: Any) -> tuple[int, str]:
    who = {"Wakeline-Publisher": "run:1", "Wakeline-Attempt": str(attempt), "Wakeline-Sequence": str(sequence)}
    body = {"events": [{"topic": topic, "data": 1}]}
    headers = {**who, "Wakeline-Activity": "1", **bearer(**scope)}
    status, answer = await served.call("POST", "/v1/sessions/s/events", json=body, headers=headers)
    return status, answer["error"]["code"] if status != 200 else ""


@pytest.fixture
async def asking(serve: Serve) -> Served:
    return await serve(token_secret=SECRET)


async def test_another_s_publisher_is_neither_superseded_nor_fenced(asking: Served) -> None:
    assert await appended(asking, 1, 0, sub="worker") == (200, "")
    for scope in ({"sub": "mallory"}, {"sub": "mallory", "topics": ["chat"]}, {"sub": "worker", "topics": ["chat"]}):
        for attempt in (1, 2, 2**53 - 1):
            assert await opened(asking, attempt, **scope) == TAKEN
            assert await appended(asking, attempt, 0, "chat", **scope) == TAKEN
        async with line(asking) as client:
            await client.send({"type": "token", "token": token(**scope)})
            await client.next("token")
            await client.send({"type": "open", "channel": 1, "session": "s", "publisher": "run:1", "attempt": 2})
            assert await client.error() == "publisher_taken"
    assert await appended(asking, 1, 1, sub="worker") == (200, "")
    assert await appended(asking, 2, 0, sub="worker") == (200, "")
    _, page = await asking.call("GET", "/v1/sessions/s/events", headers=bearer())
    assert [event["topic"] for event in page["events"]] == ["delta", "delta", "$attempt.superseded", "delta"]


async def test_workers_with_their_own_sub_share_publishers_that_their_tokens_name(asking: Served) -> None:
    assert await opened(asking, 1_000, sub="mallory") == (200, "")  # before the worker comes to it
    assert await appended(asking, 1, 0, **WORKER) == (200, "")
    assert await appended(asking, 2, 0, **{**WORKER, "sub": "worker-2"}) == (200, "")
    assert await appended(asking, 1, 1, **WORKER) == (409, "attempt_fenced")
    assert await opened(asking, 1_001, sub="mallory") == TAKEN
    assert await opened(asking, 3, **{**WORKER, "publishers": ["run:*"]}) == (200, "")
    assert await opened(asking, 4, **{**WORKER, "publishers": ["other:*"]}) == TAKEN
    assert await opened(asking, 4, **{**WORKER, "publishers": [""]}) == (401, "token_invalid")


async def test_a_new_token_of_a_connection_that_is_held_to_fewer_topics_is_another_s(asking: Served) -> None:
    async with line(asking) as client:
        await client.send({"type": "token", "token": token(sub="worker")})
        await client.next("token")
        await client.open(session="s")
        await client.append("x")
        await client.next("appended")
        await client.send({"type": "token", "token": token(sub="worker", topics=["t"])})
        await client.next("token")
        await client.append("x", sequence=1)
        assert await client.error() == "publisher_taken"


@on_disk
async def test_a_jump_of_attempts_is_refused(served: Served) -> None:
    for attempt in (1_000_001, 2**53 - 1):
        who = {"publisher": "p", "sequence": "0", "attempt": str(attempt)}
        headers = {f"Wakeline-{key.title()}": value for key, value in who.items()}
        body = {"events": [{"topic": "t"}]}
        status, answer = await served.call("POST", "/v1/sessions/s/events", json=body, headers=headers)
        assert (status, answer["error"]["code"]) == (400, "request_invalid")
        assert (await served.call("PUT", "/v1/sessions/s/publishers/p", json={"attempt": attempt}))[0] == 400
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404


async def test_a_producer_of_a_stream_is_its_user_s_too(asking: Served) -> None:
    stream = "/v1/stream/s"
    made = await asking.call("PUT", stream, headers={**bearer(sub="worker"), "Content-Type": "text/plain"})
    assert made[0] == 201

    async def post(sub: str, epoch: int, number: int) -> int:
        who = {"Producer-Id": "p", "Producer-Epoch": str(epoch), "Producer-Seq": str(number)}
        headers = {**bearer(sub=sub), **who, "Content-Type": "text/plain"}
        return (await asking.call("POST", stream, data=b"x", headers=headers))[0]

    assert await post("worker", 0, 0) == 200
    assert await post("mallory", 2**53 - 1, 0) == 403
    assert await post("worker", 0, 1) == 200
    assert await post("worker", 2**53 - 1, 0) == 200, "epochs are as the protocol has them"
