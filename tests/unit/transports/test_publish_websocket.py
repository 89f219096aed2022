"""Many publishers on one WebSocket: PROTOCOL.md §3."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.publishers import Line, line
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from tests.unit.conftest import Serve, on_disk
from wakeline.gateway.transports import conversation, publishing


async def log(served: Served, session: str = "s", **headers: str) -> list[dict[str, Any]]:
    status, page = await served.call("GET", f"/v1/sessions/{session}/events", headers=headers)
    assert status == 200, page
    events: list[dict[str, Any]] = page["events"]
    return events


async def data(served: Served) -> list[Any]:
    return [event["data"] for event in await log(served)]


async def test_what_is_told_durable_is_in_the_log_under_its_publisher(served: Served) -> None:
    async with line(served) as client:
        opened = await client.open(run="run-1", activity="7", attempt=2)
        assert {key: opened[key] for key in ("channel", "attempt", "next_sequence", "earlier_events")} == {
            "channel": 1, "attempt": 2, "next_sequence": 0, "earlier_events": 0,
        }  # fmt: skip
        await client.append("a", "b")
        assert await client.next() == {"type": "appended", "channel": 1, "next_sequence": 2, "next_offset": 2}
    events = await log(served)
    assert [(e["data"], e["run"], e["activity"], e["attempt"]) for e in events] == [
        ("a", "run-1", "7", 2), ("b", "run-1", "7", 2),
    ]  # fmt: skip


async def test_keys_messages_and_payloads_come_out_as_they_went_in(served: Served) -> None:
    payload = {"metadata": {"encoding": "YmluYXJ5L3BsYWlu"}, "data": "AAE="}
    events: list[dict[str, Any]] = [
        {"topic": "t", "data": 1, "key": "step"},
        {"topic": "t", "data": "x", "message": {"id": "m", "op": "text"}},
        {"topic": "t", "message": {"id": "m", "op": "none", "complete": True}},
        {"topic": "t", "payload": payload},
    ]
    async with line(served) as client:
        await client.open()
        await client.send({"type": "append", "channel": 1, "sequence": 0, "events": events})
        await client.next("appended")
    came = [{key: event[key] for key in event if key not in ("offset", "time")} for event in await log(served)]
    assert came == [events[0], events[1], {**events[2], "data": None}, events[3]]


async def test_a_batch_sent_again_is_there_once_and_told_again(served: Served) -> None:
    async with line(served) as client:
        await client.open()
        for batch in (["a", "b"], ["a", "b"], ["b", "c"]):
            await client.append(*batch, sequence=0 if batch[0] == "a" else 1)
            await client.next("appended")
    assert await data(served) == ["a", "b", "c"]


@on_disk
async def test_frames_that_share_a_message_are_served_in_order_and_many_may_be_under_way(served: Served) -> None:
    async with line(served) as client:
        await client.open()
        frames = [
            {"type": "append", "channel": 1, "sequence": n, "events": [{"topic": "t", "data": n}]} for n in range(500)
        ]
        await client.send(*frames)
        told = [(await client.next("appended"))["next_sequence"] for _ in range(500)]
    assert told == list(range(1, 501))
    assert await data(served) == list(range(500))


async def test_channels_are_publishers_of_their_own(served: Served) -> None:
    async with line(served) as client:
        for channel in range(50):
            await client.open(channel, publisher=f"p{channel}", session=f"s{channel % 2}")
        for channel in range(50):
            await client.append(channel, channel=channel)
        assert sorted([(await client.next("appended"))["channel"] for _ in range(50)]) == list(range(50))
    for session in (0, 1):
        assert sorted(e["data"] for e in await log(served, f"s{session}")) == list(range(session, 50, 2))


async def test_who_comes_back_learns_what_has_arrived(served: Served) -> None:
    async with line(served) as client:
        await client.open()
        await client.append("a", "b")
        await client.next("appended")
    async with line(served) as client:
        assert (await client.open())["next_sequence"] == 2
        await client.append("c", sequence=2)
        await client.next("appended")
    assert await data(served) == ["a", "b", "c"]


async def test_a_later_attempt_silences_the_earlier_one(served: Served) -> None:
    async with line(served) as old, line(served) as new:
        await old.open(activity="7")
        await old.append("old")
        await old.next("appended")
        await new.open(activity="7", attempt=2)
        await old.append("zombie", sequence=1)
        refused = await old.next("error")
        assert (refused["channel"], refused["error"]["code"], refused["error"]["attempt"]) == (1, "attempt_fenced", 2)
        await new.append("new")
        await new.next("appended")
    assert await data(served) == ["old", {"activity": "7", "attempt": 2, "offsets": [[0, 0]]}, "new"]


@pytest.mark.parametrize(
    ("how", "counts"), [({}, True), ({"activity": "7", "supersede": False}, True), ({"activity": "7"}, False)]
)
async def test_only_an_activity_supersedes_and_only_unless_it_says_otherwise(
    served: Served, how: dict[str, Any], counts: bool
) -> None:
    async with line(served) as client:
        await client.open(**how)
        await client.append("old")
        await client.next("appended")
        assert (await client.open(attempt=2, **how))["earlier_events"] == (1 if counts else 0)
    assert len(await data(served)) == (1 if counts else 2)


async def test_after_an_error_a_channel_is_silent_until_it_is_opened_again_and_the_others_go_on(served: Served) -> None:
    async with line(served) as client:
        await client.open()
        await client.open(2, publisher="q")
        await client.append("gap", sequence=5)
        assert await client.error() == "sequence_gap"
        await client.append("dropped")
        await client.append("other", channel=2)
        assert (await client.next("appended"))["channel"] == 2
        assert (await client.open())["next_sequence"] == 0
        await client.append("taken")
        await client.next("appended")
    assert await data(served) == ["other", "taken"]


BAD_EVENTS: list[dict[str, Any]] = [
    {"topic": ""},
    {"topic": "$own"},
    {"topic": "t", "more": 1},
    {"topic": "t", "data": 1, "payload": {}},
    {"topic": "t", "payload": {"data": "%"}},
    {"topic": "t", "key": ""},
    {"topic": "t", "key": "k" * 257},
    {"topic": "t", "data": 1, "message": {"id": "m", "op": "text"}},
    {"topic": "t", "key": "k", "message": {"id": "m", "op": "none"}},
    {"topic": "t", "payload": {"data": "eA=="}, "message": {"id": "m", "op": "list"}},
    {"topic": "t", "message": {"id": "", "op": "none"}},
    {"topic": "t", "message": {"id": "m", "op": "reverse"}},
    {"topic": "t", "data": "x" * 1_100_000},
]


@pytest.mark.parametrize("event", BAD_EVENTS, ids=lambda event: json.dumps(event)[:50])
async def test_a_bad_event_is_refused_with_its_whole_batch(served: Served, event: dict[str, Any]) -> None:
    async with line(served) as client:
        await client.open()
        batch = [{"topic": "t", "data": "good"}, event]
        await client.send({"type": "append", "channel": 1, "sequence": 0, "events": batch})
        refused = await client.next("error")
        assert refused["channel"] == 1
        assert refused["error"]["message"]
        assert (await client.open())["next_sequence"] == 0


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "append", "channel": 9, "sequence": 0, "events": [{"topic": "t"}]}, "request_invalid"),
        ({"type": "append", "channel": 1, "sequence": 0, "events": []}, "request_invalid"),
        ({"type": "append", "channel": 1, "sequence": -1, "events": [{"topic": "t"}]}, "request_invalid"),
        ({"type": "append", "channel": 1}, "request_invalid"),
        ({"type": "open", "channel": 1, "session": "", "publisher": "p"}, "session_name_invalid"),
        ({"type": "open", "channel": 1, "session": "s", "publisher": ""}, "request_invalid"),
        ({"type": "open", "channel": 1, "session": "s", "publisher": "stream:run"}, "request_invalid"),
        ({"type": "open", "channel": 1, "session": "s", "publisher": "p", "attempt": 0}, "request_invalid"),
        ({"type": "open", "channel": 1, "session": "s", "publisher": "p", "atempt": 1}, "request_invalid"),
        ({"type": "sing", "channel": 1}, "request_invalid"),
        ({"type": "open", "channel": -1, "session": "s", "publisher": "p"}, "request_invalid"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_bad_frame_is_answered_and_the_connection_goes_on(
    served: Served, frame: dict[str, Any], code: str
) -> None:
    async with line(served) as client:
        await client.open()
        await client.send(frame)
        assert await client.error() == code
        await client.send({"type": "ping", "data": [1]})
        assert await client.next() == {"type": "pong", "data": [1]}


async def test_what_is_no_frame_closes_with_4400(served: Served) -> None:
    async with line(served) as client:
        await client.socket.send_str("{")
        assert await client.closed() == 4400
    async with line(served) as client:
        await client.socket.send_bytes(b"{}")
        assert await client.closed() == 4400


async def test_a_plain_request_is_told_what_is_expected(served: Served) -> None:
    status, answer = await served.call("GET", "/v1/publish")
    assert (status, answer["error"]["code"]) == (400, "request_invalid")


async def test_a_closed_channel_takes_nothing_and_there_are_only_so_many(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MAX_CHANNELS", 2)
    async with line(served) as client:
        await client.open(1)
        await client.open(2, publisher="q")
        await client.send({"type": "open", "channel": 3, "session": "s", "publisher": "r"})
        assert await client.error() == "limit_reached"
        await client.send({"type": "close", "channel": 1})
        await client.open(3, publisher="r")
        await client.append("x", channel=1)
        assert await client.error() == "request_invalid"


async def test_a_message_over_the_limit_closes_with_1009(serve: Serve) -> None:
    served = await serve(max_body_bytes=100_000)
    async with line(served) as client:
        await client.socket.send_str("x" * 100_001)
        assert await client.closed() == 1009


@on_disk
async def test_a_connection_that_breaks_leaves_whole_batches(served: Served) -> None:
    """What was under way when it broke has arrived or not, and `opened` tells which."""
    sent = 0
    for _ in range(20):
        async with line(served) as client:
            arrived = (await client.open())["next_sequence"]
            assert sent - 50 <= arrived <= sent or arrived == 0
            for n in range(10):
                await client.append(*range(arrived + n * 5, arrived + n * 5 + 5), sequence=arrived + n * 5)
            sent = arrived + 50
            await asyncio.sleep(0)
            transport = client.socket._response.connection.transport  # type: ignore[union-attr]
            assert transport is not None
            transport.abort()
    everything = await data(served)
    assert everything == list(range(len(everything)))


# Who may.


@pytest.fixture
async def guarded(serve: Serve) -> Served:
    return await serve(token_secret=SECRET)


async def error_of_open(client: Line, session: str = "s") -> str:
    await client.send({"type": "open", "channel": 1, "session": session, "publisher": "p"})
    return await client.error()


async def test_sessions_and_topics_are_those_of_the_token(guarded: Served) -> None:
    async with line(guarded, headers=bearer(sessions=["order-*"], topics=["t"])) as client:
        assert await error_of_open(client, "secret") == "session_not_found"
        await client.open(session="order-1")
        batch = [{"topic": "other", "data": 1}]
        await client.send({"type": "append", "channel": 1, "sequence": 0, "events": batch})
        assert await client.error() == "not_allowed"
    status, answer = await guarded.call("GET", "/v1/publish", headers=bearer(allow=["read"]))
    assert (status, answer["error"]["code"]) == (403, "not_allowed")
    async with line(guarded) as client:
        await client.send({"type": "token", "token": token(allow=["read"])})
        await client.next("token")
        assert await error_of_open(client) == "not_allowed"


async def test_without_a_token_the_first_frame_must_be_one(guarded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async with line(guarded) as client:
        await client.send({"type": "token", "token": token()})
        await client.next("token")
        await client.open()
    async with line(guarded) as client:
        await client.send({"type": "open", "channel": 1, "session": "s", "publisher": "p"})
        assert await client.closed() == 4401
    monkeypatch.setattr(conversation, "TOKEN_SECONDS", 0.2)
    async with line(guarded) as client:
        assert await client.closed() == 4401


async def test_it_ends_with_its_token_and_a_new_one_ends_what_it_does_not_allow(guarded: Served) -> None:
    async with line(guarded, headers=bearer(exp=time.time() + 8)) as client:
        await client.open()
        assert await client.closed() == 4401
    async with line(guarded, headers=bearer()) as client:
        await client.open(1)
        await client.open(2, publisher="q", session="order-1")
        await client.send({"type": "token", "token": token(sessions=["order-*"])})
        await client.next("token")
        refused = await client.next("error")
        assert (refused["channel"], refused["error"]["code"]) == (1, "session_not_found")
        await client.append("x", channel=1)
        await client.append("y", channel=2)
        assert (await client.next("appended"))["channel"] == 2


async def test_who_publishes_too_fast_is_told_when_to_go_on(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, publish_rate=10)
    async with line(served, headers=bearer()) as client:
        await client.open()
        began = time.monotonic()
        await client.append(*range(99))  # to open the channel counts as one more
        await client.next("appended")
        await client.append(1, sequence=99)
        refused = await client.next("error")
        assert refused["error"]["code"] == "limit_reached"
        assert 5 - (time.monotonic() - began) <= refused["error"]["retry_after"] <= 5
        await client.send({"type": "open", "channel": 2, "session": "s", "publisher": "q"})
        refused = await client.next("error")
        assert (refused["channel"], refused["error"]["code"]) == (2, "limit_reached")


async def deleted(served: Served) -> None:
    assert (await served.call("DELETE", "/v1/sessions/s"))[0] == 204


async def test_a_channel_whose_session_was_deleted_does_not_bring_it_back(served: Served) -> None:
    async with line(served) as client:
        opened = await client.open()
        await client.open(2, publisher="q")
        await deleted(served)
        await client.append("a")
        refused = await client.next("error")
        assert (refused["channel"], refused["error"]["code"]) == (1, "session_deleted")
        assert (await served.call("GET", "/v1/sessions/s"))[0] == 404
        await served.publish("s", {"topic": "t", "data": "somebody else's"}, publisher="q", sequence="0")
        await client.append("b", channel=2)
        assert await client.error() == "session_deleted"
        # The append on the heels of an `open` that is refused is not taken either.
        again = {"type": "open", "channel": 1, "session": "s", "publisher": "p", "epoch": opened["epoch"]}
        events = [{"topic": "t", "data": "c"}]
        await client.send(again, {"type": "append", "channel": 1, "sequence": 0, "events": events})
        assert await client.error() == "session_deleted"
        await client.open()
        await client.append("d")
        await client.next("appended")
    assert await data(served) == ["somebody else's", "d"]
