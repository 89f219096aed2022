"""Users are notified of events that none of their devices has seen, and of no others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.receivers import Receiver
from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.rules import Notify

TWO_GATEWAYS = True
ALLOWED = {"outgoing_networks": ("127.0.0.0/8",)}


async def start(serve: Serve, hook: Receiver, **rules: Notify) -> Served:
    return await serve(notify=rules, channels={"ops": hook.channel()}, **ALLOWED)


def alert(number: int = 0) -> dict[str, Any]:
    return {"topic": "alert", "data": {"number": number}}


async def see(served: Served, session: str, cursor: str, device: str = "phone") -> None:
    status, answer = await served.call("PUT", f"/v1/sessions/{session}/devices/{device}", json={"seen": cursor})
    assert status == 200, answer


async def test_a_user_is_notified_of_an_event_that_no_device_has_seen(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=0.05))
    await served.publish("s", {"topic": "other", "data": 1}, alert(7))
    request = (await hook.until(1))[0]
    request.verify()
    assert request.data["user"] == "ada"
    assert request.data["session"] == "s"
    assert request.data["rules"] == ["alerts"]
    assert request.data["count"] == 1
    event = request.data["events"][0]
    assert (event["offset"], event["topic"], event["data"]) == (1, "alert", {"number": 7})


async def test_the_cursor_of_a_notification_reads_the_event(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=0))
    await served.publish("s", {"topic": "other", "data": 1}, alert(7))
    cursor = (await hook.until(1))[0].data["cursor"]
    _, page = await served.call("GET", f"/v1/sessions/s/events?from={cursor}")
    assert [event["offset"] for event in page["events"]] == [1]


async def test_a_user_one_of_whose_devices_has_seen_it_is_not_notified(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), grace=4))
    first = await served.publish("s", alert(1))
    await see(served, "s", f"{first['epoch']}-1")
    second = await served.publish("t", alert(2))
    await see(served, "t", f"{second['epoch']}-0")
    requests = await hook.until(1)
    assert [(request.data["session"], request.offsets) for request in requests] == [("t", [0])]


async def test_a_burst_is_one_notification(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=3))
    await asyncio.gather(*(served.publish("s", alert(number)) for number in range(5)))
    await hook.until(1)
    await served.publish("s", alert(5))
    requests = await hook.until(2)
    assert sorted(offset for request in requests for offset in request.offsets) == [0, 1, 2, 3, 4, 5]
    assert len(requests[0].offsets) == 5


async def test_two_rules_of_one_digest_are_one_notification(serve: Serve, hook: Receiver) -> None:
    alerts = Notify(topics=("alert",), users=("ada",), grace=0.3, digest="work")
    news = Notify(topics=("news",), users=("ada",), grace=0.3, digest="work")
    served = await start(serve, hook, alerts=alerts, news=news)
    await served.publish("s", alert(), {"topic": "news", "data": 1})
    request = (await hook.until(1))[0]
    assert (request.offsets, request.data["rules"]) == ([0, 1], ["alerts", "news"])


async def test_a_critical_event_passes_at_once_and_alone(serve: Serve, hook: Receiver) -> None:
    served = await start(
        serve,
        hook,
        slow=Notify(topics=("alert",), users=("ada",), grace=600),
        fast=Notify(topics=("fire",), users=("ada",), grace=600, critical=True),
    )
    await served.publish("s", alert(), {"topic": "fire", "data": 1}, {"topic": "fire", "data": 2})
    requests = await hook.until(2)
    assert sorted(request.offsets for request in requests) == [[1], [2]]


async def test_a_rule_concerns_its_sessions_only(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), sessions=("a*",), users=("ada",), grace=0))
    await served.publish("b1", alert())
    await served.publish("a1", alert())
    requests = await hook.until(1)
    assert [request.data["session"] for request in requests] == ["a1"]


async def test_a_deleted_session_is_not_notified(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=3))
    await served.publish("gone", alert())
    assert (await served.call("DELETE", "/v1/sessions/gone"))[0] == 204
    await served.publish("kept", alert())
    requests = await hook.until(1)
    assert [request.data["session"] for request in requests] == ["kept"]


async def test_an_error_of_a_channel_is_a_failed_attempt(
    serve: Serve, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def raising(self: Outgoing, url: str, body: bytes, headers: Any) -> Any:
        raise OverflowError(f"no answer of {url} was expected")

    monkeypatch.setattr(Outgoing, "post", raising)
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=0))
    await served.publish("s", alert())
    async with asyncio.timeout(60):
        while True:
            _, page = await served.call("GET", "/v1/notifications?state=pending")
            if any(found["attempts"] for found in page["notifications"]):
                break
            await asyncio.sleep(0.02)
    (found,) = page["notifications"]
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["OverflowError"]


@pytest.mark.parametrize(
    ("rules", "channels"),
    [
        ({"a": Notify(topics=("t",), channels=("nowhere",))}, {"ops": {"url": "https://x.example", "secrets": ["s"]}}),
        ({"a": Notify(topics=("t",))}, {}),
        ({}, {"ops": {"url": "ftp://x.example", "secrets": []}}),
        ({}, {"ops": {"url": "https://x.example", "secrets": []}}),
        ({}, {"ops": {"url": "https://x.example", "secrets": ["whsec_c2hvcnQ="]}}),
        ({}, {"ops": {"url": "https://x.example", "secrets": ["not base64"]}}),
        ({}, {"ops": {"type": "pigeon"}}),
        ({}, {"ops": {"type": "webhook", "address": "x"}}),
    ],
)
async def test_invalid_rules_and_channels_are_refused_at_start(serve: Serve, rules: Any, channels: Any) -> None:
    with pytest.raises(SettingsInvalidError):
        await serve(notify=rules, channels=channels)


@pytest.mark.parametrize(
    "data",
    [
        '"\\ud800"',
        '"\\uD83D x"',
        "1e999",
        "9" * 400,
        "[" * 128 + "]" * 128,
        '{"x":1,"notify":{"title":"forged"}}',
        '""',
    ],
    ids=range(7),
)
async def test_whatever_an_event_says_it_notifies(serve: Serve, hook: Receiver, data: str) -> None:
    served = await start(serve, hook, alerts=Notify(topics=("alert",), users=("ada",), grace=0))
    body = '{"events":[{"topic":"alert","data":DATA}]}'.replace("DATA", data)
    headers = {"Content-Type": "application/json"}
    status, answer = await served.call("POST", "/v1/sessions/s/events", data=body, headers=headers)
    assert status == 200, answer
    await served.publish("s", alert(1))
    requests = await hook.until(1)
    async with asyncio.timeout(60):
        while {offset for request in requests for offset in request.offsets} < {0, 1}:
            await asyncio.sleep(0.02)
    for request in requests:
        request.verify()
        assert "title" not in request.data


async def test_whatever_json_a_durable_stream_is_given_notifies(serve: Serve, hook: Receiver) -> None:
    rules = {"all": Notify(topics=("*",), users=("ada",), grace=0)}
    served = await serve(notify=rules, channels={"ops": hook.channel()}, **ALLOWED)
    headers = {"Content-Type": "application/json"}
    assert (await served.call("PUT", "/v1/stream/s", headers=headers))[0] == 201
    for data in ('["\\ud800"]', '[{"x":"\\uD83D"}]', "[1e999]"):
        assert (await served.call("POST", "/v1/stream/s", data=data, headers=headers))[0] in (200, 204)
    requests = await hook.until(1)
    async with asyncio.timeout(60):
        while {offset for request in requests for offset in request.offsets} < {0, 1, 2}:
            await asyncio.sleep(0.02)
