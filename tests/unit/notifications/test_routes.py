"""Notifications are listed, shown and sent again by those who manage their sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.receivers import Answer, Receiver, garbage, many_headers, status
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.rules import Notify

TWO_GATEWAYS = True
RULES = {"alerts": Notify(topics=("alert",), users=("ada",), grace=0)}
ALERT = {"topic": "alert", "data": 1}


async def start(serve: Serve, hook: Receiver, **changed: Any) -> Served:
    channels = {"ops": hook.channel()}
    return await serve(notify=RULES, channels=channels, outgoing_networks=("127.0.0.1",), **changed)


async def listed(served: Served, query: str = "", **how: Any) -> list[dict[str, Any]]:
    code, answer = await served.call("GET", f"/v1/notifications?{query}", **how)
    assert code == 200, answer
    found: list[dict[str, Any]] = answer["notifications"]
    return found


async def until(served: Served, query: str, count: int = 1) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while len(found := await listed(served, query)) < count:
            await asyncio.sleep(0.02)
    return found


async def test_a_delivered_notification_is_listed_with_its_attempt(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    found = (await until(served, "state=delivered"))[0]
    assert found["id"] == hook.received[0].id
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["200"]
    assert (found["user"], found["channel"], found["count"], found["next_attempt"]) == ("ada", "ops", 1, None)


async def test_a_failed_notification_is_pending_and_says_why(serve: Serve, hook: Receiver) -> None:
    hook.always = status(500)
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    async with asyncio.timeout(60):
        while not (found := await listed(served, "state=pending")) or not found[0]["attempts"]:
            await asyncio.sleep(0.02)
    assert [attempt["outcome"] for attempt in found[0]["attempts"]] == ["500"]
    assert found[0]["next_attempt"] > found[0]["created"]


@pytest.mark.parametrize(
    "answer",
    [status(307, Location="http://169.254.169.254/"), garbage, many_headers],
    ids=["redirect", "garbage", "headers"],
)
async def test_a_receiver_that_answers_badly_gets_it_again(serve: Serve, hook: Receiver, answer: Answer) -> None:
    hook.answers.append(answer)
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    async with asyncio.timeout(60):
        while not (found := await listed(served, "state=pending")) or not found[0]["attempts"]:
            await asyncio.sleep(0.02)
    await retried_until_delivered(served, found[0]["id"])
    assert [request.id for request in hook.received] == [found[0]["id"]] * 2


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/hook", "http://receiver.invalid/hook", "https://127.0.0.1:{port}/hook"]
)
async def test_what_a_receiver_that_cannot_be_reached_was_sent_is_pending(
    serve: Serve, hook: Receiver, url: str
) -> None:
    hook.url = url.format(port=hook.url.split(":")[2].split("/")[0])
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    async with asyncio.timeout(60):
        while not (found := await listed(served, "state=pending")) or not found[0]["attempts"]:
            await asyncio.sleep(0.02)
    assert found[0]["attempts"][0]["outcome"]
    assert hook.received == []


async def retried_until_delivered(served: Served, name: str) -> None:
    code, _ = await served.call("POST", f"/v1/sessions/s/notifications/{name}/retry")
    assert code == 200
    await until(served, "state=delivered")


async def test_a_dead_notification_is_sent_again_under_the_same_id(serve: Serve, hook: Receiver) -> None:
    hook.answers.append(status(400, webhook_delivery="abort-message"))
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    dead = (await until(served, "state=dead"))[0]
    path = f"/v1/sessions/s/notifications/{dead['id']}"
    code, shown = await served.call("GET", path)
    assert code == 200
    assert shown["events"][0]["data"] == 1
    code, retried = await served.call("POST", f"{path}/retry")
    assert (code, retried["state"]) == (200, "pending")
    await until(served, "state=delivered")
    assert [request.id for request in hook.received] == [dead["id"]] * 2
    assert await listed(served, "state=dead") == []


async def test_a_receiver_that_is_gone_gets_nothing_more_until_a_retry_succeeds(serve: Serve, hook: Receiver) -> None:
    hook.answers.append(status(410))
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    first = (await until(served, "state=dead"))[0]
    assert await served.metric("wakeline_channel_disabled", channel="ops") == 1
    await served.publish("t", ALERT)
    second = (await until(served, "state=dead&session=t"))[0]
    assert second["attempts"][0]["outcome"] == "the channel is disabled"
    assert len(hook.received) == 1
    await served.call("POST", f"/v1/sessions/s/notifications/{first['id']}/retry")
    await until(served, "state=delivered&session=s")
    await served.publish("u", ALERT)
    await until(served, "state=delivered&session=u")
    assert await served.metric("wakeline_channel_disabled", channel="ops") == 0


async def test_dead_notifications_of_a_time_and_channel_are_sent_again_together(serve: Serve, hook: Receiver) -> None:
    hook.always = status(400, webhook_delivery="abort-message")
    served = await start(serve, hook)
    for number in range(3):
        await served.publish(f"s{number}", ALERT)
    created = sorted(found["created"] for found in await until(served, "state=dead", 3))
    hook.always = status(200)
    path = "/v1/notifications/retry"
    for nothing in ("state=delivered", f"to={created[0]}", "from=2100-01-01T00:00:00Z"):
        assert await served.call("POST", f"{path}?{nothing}") == (200, {"retried": 0, "after": None})
    code, answer = await served.call("POST", f"{path}?channel=ops&from={created[0]}&limit=2")
    assert (code, answer) == (200, {"retried": 2, "after": "s1"})
    code, answer = await served.call("POST", f"{path}?channel=ops&from={created[0]}&after=s1")
    assert (code, answer) == (200, {"retried": 1, "after": None})
    await until(served, "state=delivered", 3)
    for wrong in ("from=yesterday", "channel=other"):
        code, answer = await served.call("POST", f"{path}?{wrong}")
        assert (code, answer["error"]["code"]) == (400, "request_invalid")


async def test_the_list_is_read_in_pages(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    for number in range(5):
        await served.publish(f"s{number}", ALERT)
    await until(served, "state=delivered", 5)
    names, after = [], ""
    while after is not None:
        _, page = await served.call("GET", f"/v1/notifications?limit=2&after={after}")
        names += [found["session"] for found in page["notifications"]]
        after = page["after"]
    assert names == [f"s{number}" for number in range(5)]


async def test_only_those_who_manage_a_session_read_its_notifications(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, token_secret=SECRET)
    all_of_it = bearer(sessions=["*"], allow=["publish", "manage", "read"])
    events = {"events": [ALERT]}
    for session in ("mine", "yours"):
        await served.call("POST", f"/v1/sessions/{session}/events", json=events, headers=all_of_it)
    await hook.until(2)
    mine = bearer(sessions=["mine"], allow=["manage"])
    assert {found["session"] for found in await listed(served, headers=mine)} == {"mine"}
    other = next(request.id for request in hook.received if request.data["session"] == "yours")
    code, _ = await served.call("GET", f"/v1/sessions/yours/notifications/{other}", headers=mine)
    assert code == 404
    code, _ = await served.call("GET", "/v1/notifications", headers=bearer(sessions=["*"], allow=["read"]))
    assert code == 403


async def test_an_unknown_notification_is_an_error_of_its_own(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await served.publish("s", {"topic": "t", "data": 1})
    for method, path in [
        ("GET", "/v1/sessions/s/notifications/msg_x"),
        ("POST", "/v1/sessions/s/notifications/msg_x/retry"),
    ]:
        code, answer = await served.call(method, path)
        assert (code, answer["error"]["code"]) == (404, "notification_not_found")
    code, answer = await served.call("GET", "/v1/notifications?state=lost")
    assert (code, answer["error"]["code"]) == (400, "request_invalid")


@pytest.mark.parametrize("kept_in", ["sqlite"])
async def test_a_deleted_sessions_notifications_are_erased(serve: Serve, hook: Receiver, kept_in: str) -> None:
    served = await start(serve, hook)
    await served.publish("s", ALERT)
    await until(served, "state=delivered")
    assert (await served.call("DELETE", "/v1/sessions/s"))[0] == 204
    await served.publish("s", {"topic": "t", "data": 1})
    assert await listed(served) == []
