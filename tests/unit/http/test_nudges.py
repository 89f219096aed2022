"""Nudges, by request and by frame: PROTOCOL.md §3."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.publishers import Line, line
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve
from tests.upstream import RecordingUpstream, recording


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> RecordingUpstream:
    return recording(monkeypatch)


async def nudge(served: Served, body: Any, **headers: str) -> tuple[int, Any]:
    return await served.call("POST", "/v1/nudge", json=body, headers=headers)


async def answered(client: Line) -> None:
    """Everything that was sent before has been served."""
    await client.send({"type": "ping"})
    await client.next("pong")


async def test_a_nudge_is_passed_on_and_the_answer_says_nothing(upstream: RecordingUpstream, served: Served) -> None:
    assert await nudge(served, {"workflow_id": "order-1"}) == (202, None)
    assert await nudge(served, {"workflow_id": "ordnung/ä", "namespace": "shop"}) == (202, None)
    many = {"workflows": [{"workflow_id": "a"}, {"workflow_id": "b", "namespace": "shop"}]}
    assert await nudge(served, many) == (202, None)
    assert upstream.nudged == [("order-1", None), ("ordnung/ä", "shop"), ("a", None), ("b", "shop")]


async def test_a_nudge_is_a_frame_that_is_not_answered(upstream: RecordingUpstream, served: Served) -> None:
    async with line(served) as client:
        await client.send(
            {"type": "nudge", "workflow_id": "order-1"},
            {"type": "nudge", "workflow_id": "order-2", "namespace": "shop"},
        )
        await answered(client)
    assert upstream.nudged == [("order-1", None), ("order-2", "shop")]


async def test_the_answer_waits_until_what_was_named_has_ended(upstream: RecordingUpstream, served: Served) -> None:
    upstream.ends_in = 0.05
    many = {"workflows": [{"workflow_id": "a"}, {"workflow_id": "b", "namespace": "shop"}], "wait": 5}
    assert await nudge(served, many) == (202, None)
    assert upstream.waited_for == upstream.are_over == [("a", None), ("b", "shop")]
    upstream.ends_in = 60
    assert await nudge(served, {**many, "wait": 0.05}) == (202, None)
    assert (len(upstream.waited_for), len(upstream.are_over)) == (4, 2)


async def test_without_temporal_it_is_taken_and_passed_over(served: Served) -> None:
    assert await nudge(served, {"workflow_id": "order-1"}) == (202, None)
    assert await nudge(served, {"workflows": [{"workflow_id": "order-1"}], "wait": 5}) == (202, None)
    async with line(served) as client:
        await client.send({"type": "nudge", "workflow_id": "order-1"})
        await answered(client)
    status, _ = await served.call("GET", "/v1/sessions/order-1")
    assert status == 404


BAD: list[Any] = [
    {},
    {"workflow_id": ""},
    {"workflow_id": None},
    {"workflow_id": "w" * 1001},
    {"workflow_id": "ä" * 501},
    {"workflow_id": "w", "namespace": ""},
    {"workflow_id": "w", "namespace": 1},
    {"workflow_id": "w", "sessions": []},
    {"workflows": []},
    {"workflows": None},
    {"workflows": [{"workflow_id": ""}]},
    {"workflows": ["w"]},
    {"workflows": [{"workflow_id": "w"}] * 1001},
    {"workflows": [{"workflow_id": "w"}], "workflow_id": "w"},
    {"workflows": [{"workflow_id": "w"}], "wait": 6},
    {"workflows": [{"workflow_id": "w"}], "wait": -1},
    {"workflows": [{"workflow_id": "w"}], "wait": "1"},
    {"workflow_id": "w", "wait": 1},
    [],
    "w",
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: json.dumps(body)[:50])
async def test_what_names_no_workflow_is_refused(upstream: RecordingUpstream, served: Served, body: Any) -> None:
    status, answer = await nudge(served, body)
    assert (status, answer["error"]["code"]) in ((400, "body_invalid"), (400, "request_invalid"))
    assert upstream.nudged == []


@pytest.mark.parametrize("fields", [{}, {"workflow_id": ""}, {"workflow_id": "w", "namespace": ""}, {"workflow": "w"}])
async def test_a_bad_frame_is_answered_and_the_connection_goes_on(
    upstream: RecordingUpstream, served: Served, fields: dict[str, Any]
) -> None:
    async with line(served) as client:
        await client.open()
        await client.send({"type": "nudge", **fields})
        refused = await client.next("error")
        assert refused["error"]["code"] == "request_invalid"
        assert "channel" not in refused
        await client.append("x")
        await client.next("appended")
    assert upstream.nudged == []


async def test_it_takes_a_token_that_may_publish_wherever(upstream: RecordingUpstream, serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    assert (await nudge(served, {"workflow_id": "w"}))[0] == 401
    status, answer = await nudge(served, {"workflow_id": "w"}, **bearer(allow=["read", "manage"]))
    assert (status, answer["error"]["code"]) == (403, "not_allowed")
    async with line(served) as client:
        await client.send({"type": "token", "token": token(allow=["read"])})
        await client.next("token")
        await client.send({"type": "nudge", "workflow_id": "w"})
        assert await client.error() == "not_allowed"
    assert upstream.nudged == []
    elsewhere = bearer(sessions=["chat-*"], allow=["publish"])
    assert await nudge(served, {"workflow_id": "w"}, **elsewhere) == (202, None)
    assert upstream.nudged == [("w", None)]


async def test_who_nudges_too_often_is_told_so_and_publishes_no_more_either(
    upstream: RecordingUpstream, serve: Serve
) -> None:
    served = await serve(token_secret=SECRET, publish_rate=10)
    many = {"workflows": [{"workflow_id": f"w{n}"} for n in range(100)]}
    assert await nudge(served, many, **bearer()) == (202, None)
    status, answer = await nudge(served, {"workflow_id": "w"}, **bearer())
    assert (status, answer["error"]["code"]) == (429, "limit_reached")
    async with line(served, headers=bearer()) as client:
        await client.send({"type": "nudge", "workflow_id": "w"})
        assert await client.error() == "limit_reached"
    assert len(upstream.nudged) == 100
