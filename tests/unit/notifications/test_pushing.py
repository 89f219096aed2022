"""Each device of a user who has not seen an event gets one push, and what a push service answers loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.pushes import PushService, channel, push_service
from tests.receivers import Answer, garbage, status
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.notifications.channels.channel import Outcome, Subscription
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.outbox import Outbox
from wakeline.gateway.notifications.reaching import summed_up
from wakeline.gateway.notifications.sending import USER_IN_FLIGHT
from wakeline.gateway.notifications.subscriptions import short_name
from wakeline.gateway.rules import Notify

TWO_GATEWAYS = True
ALERT = {"topic": "alert", "data": {"text": "Fire!"}}


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with push_service() as found:
        yield found


async def start(serve: Serve, **changed: Any) -> Served:
    """Start a gateway that notifies its one user, who has no name where no token is required."""
    rule = {"topics": ("alert",), "users": ("",), "grace": 0.0, **changed}
    return await serve(notify={"alerts": Notify(**rule)}, channels={"phones": channel()})


async def until(served: Served, query: str, *, attempts: int = 0) -> dict[str, Any]:
    """Wait for a notification with so many attempts, and return it."""
    async with asyncio.timeout(60):
        while True:
            _, page = await served.call("GET", f"/v1/notifications?{query}")
            for found in page["notifications"]:
                if len(found["attempts"]) >= attempts:
                    assert isinstance(found, dict)
                    return found
            await asyncio.sleep(0.02)


async def test_each_device_gets_one_push(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    phone, laptop = service.browser("phone"), service.browser("laptop")
    await phone.subscribe(served)
    await laptop.subscribe(served)
    await served.publish("order-1", ALERT)
    found = await until(served, "state=delivered")
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["phone: 201, laptop: 201"]
    for browser in (phone, laptop):
        (shown,) = browser.shown()
        assert (shown["title"], shown["body"], shown["tag"]) == ("order-1", "Fire!", found["id"])
        assert shown["data"]["cursor"] == found["cursor"]
        assert shown["navigate"] == "https://app.example.com/?session=order-1"


async def test_a_device_that_has_it_is_not_sent_it_again_with_the_others(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    phone, laptop = service.browser("phone"), service.browser("laptop")
    await phone.subscribe(served)
    await laptop.subscribe(served)
    service.answers["laptop"] += [status(500)]
    await served.publish("s", ALERT)
    found = await until(served, "state=pending", attempts=1)
    assert found["attempts"][0]["outcome"] == "phone: 201, laptop: 500"
    await served.call("POST", f"/v1/sessions/s/notifications/{found['id']}/retry")
    await until(served, "state=delivered", attempts=2)
    assert (len(phone.received), len(laptop.received)) == (1, 2)
    assert {push.headers["topic"] for push in service.received} == {laptop.received[0].headers["topic"]}
    await served.call("POST", f"/v1/sessions/s/notifications/{found['id']}/retry")
    await until(served, "state=delivered", attempts=3)
    assert (len(phone.received), len(laptop.received)) == (2, 3), "a delivered one is sent to all by hand"


@pytest.mark.parametrize("gone", [404, 410])
async def test_a_subscription_that_is_gone_is_removed(serve: Serve, service: PushService, gone: int) -> None:
    served = await start(serve)
    await service.browser("phone").subscribe(served)
    await service.browser("laptop").subscribe(served)
    service.answers["phone"] += [status(gone)]
    await served.publish("s", ALERT)
    await until(served, "state=delivered")
    await served.publish("t", ALERT)
    await until(served, "state=delivered&session=t")
    assert sorted(push.name for push in service.received) == ["laptop", "laptop", "phone"]
    _, listed = await served.call("GET", "/v1/push/subscriptions")
    assert [found["device"] for found in listed["subscriptions"]] == ["laptop"]
    assert await served.metric("wakeline_push_subscriptions_removed_total", reason="gone") == 1


async def test_a_user_without_a_subscription_is_not_notified(serve: Serve, service: PushService) -> None:
    served = await start(serve)
    await served.publish("s", ALERT)
    found = await until(served, "state=cancelled")
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["the user has no push subscription"]
    await service.browser("phone").subscribe(served)
    service.answers["phone"] += [status(410)]
    await served.publish("t", ALERT)
    await until(served, "state=cancelled&session=t")
    async with asyncio.timeout(60):  # it is counted once it is stored
        while await served.metric("wakeline_notifications_total", outcome="cancelled") != 2:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (status(403), "pending"),
        (status(413), "dead"),
        (status(429, Retry_After="3600"), "pending"),
        (status(500), "pending"),
        (garbage, "pending"),
    ],
)
async def test_what_the_push_service_answers_decides_what_follows(
    serve: Serve, service: PushService, answer: Answer, state: str
) -> None:
    served = await start(serve)
    await service.browser("phone").subscribe(served)
    service.answers["phone"] += [answer]
    await served.publish("s", ALERT)
    found = await until(served, f"state={state}", attempts=1)
    await served.call("POST", f"/v1/sessions/s/notifications/{found['id']}/retry")
    await until(served, "state=delivered")
    assert len(service.received) == 2
    assert await served.metric("wakeline_channel_disabled", channel="phones") == 0


async def test_a_device_that_has_seen_it_prevents_all_pushes(serve: Serve, service: PushService) -> None:
    served = await start(serve, grace=4)
    phone = service.browser("phone")
    await phone.subscribe(served)
    appended = await served.publish("s", ALERT)
    body = {"seen": f"{appended['epoch']}-1"}
    assert (await served.call("PUT", "/v1/sessions/s/devices/laptop", json=body))[0] == 200
    await served.publish("t", ALERT)
    await until(served, "state=delivered&session=t")
    assert [shown["data"]["session"] for shown in phone.shown()] == ["t"]


async def test_each_user_s_devices_get_that_user_s_notifications(serve: Serve, service: PushService) -> None:
    rules = {"alerts": Notify(topics=("alert",), users=("ada", "bob"), grace=0)}
    served = await serve(notify=rules, channels={"phones": channel()}, token_secret=SECRET)
    for user in ("ada", "bob"):
        headers = bearer(sub=user, sessions=["s"], allow=["ack"])
        await service.browser(f"{user}s-phone").subscribe(served, headers=headers)
    writer = bearer(sub="w", sessions=["*"], allow=["publish"])
    await served.call("POST", "/v1/sessions/s/events", json={"events": [ALERT]}, headers=writer)
    async with asyncio.timeout(60):
        while len(service.received) < 2:
            await asyncio.sleep(0.02)
    assert sorted(push.name for push in service.received) == ["adas-phone", "bobs-phone"]


async def test_a_user_whose_receiver_hangs_does_not_delay_the_others(serve: Serve, service: PushService) -> None:
    release = asyncio.Event()

    async def slow(request: Any) -> Any:
        await release.wait()
        return await status(201)(request)

    rules = {"alerts": Notify(topics=("alert",), users=("ada", "bob"), grace=0)}
    served = await serve(notify=rules, channels={"phones": channel()}, token_secret=SECRET)
    for user in ("ada", "bob"):
        await service.browser(user).subscribe(served, headers=bearer(sub=user, sessions=["*"], allow=["ack"]))
    service.answers["ada"] += [slow] * 40
    writer = bearer(sub="w", sessions=["*"], allow=["publish"])
    for number in range(40):
        await served.call("POST", f"/v1/sessions/s{number}/events", json={"events": [ALERT]}, headers=writer)
    async with asyncio.timeout(60):
        while sum(push.name == "bob" for push in service.received) < 40:
            await asyncio.sleep(0.02)
    release.set()


async def test_an_error_for_one_device_is_a_failed_attempt_for_that_device(
    serve: Serve, service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Outgoing.post

    async def raising(self: Outgoing, url: str, body: bytes, headers: Any) -> Any:
        if url.endswith("phone"):
            raise OverflowError(f"no answer of {url} was expected")
        return await post(self, url, body, headers)

    served = await start(serve)
    phone, laptop = service.browser("phone"), service.browser("laptop")
    await phone.subscribe(served)
    await laptop.subscribe(served)
    monkeypatch.setattr(Outgoing, "post", raising)
    await served.publish("s", ALERT)
    found = await until(served, "state=pending", attempts=1)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["phone: OverflowError, laptop: 201"]
    monkeypatch.setattr(Outgoing, "post", post)
    await served.call("POST", f"/v1/sessions/s/notifications/{found['id']}/retry")
    await until(served, "state=delivered", attempts=2)
    assert (len(phone.received), len(laptop.received)) == (1, 1)


async def test_an_outcome_that_cannot_be_stored_holds_up_no_other_notification(
    serve: Serve, service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, failed = Outbox.change, list[str]()

    async def raising(self: Outbox, session: str, epoch: str, how: Any) -> Any:
        if session.startswith("bad"):
            failed.append(session)
            raise RuntimeError("the outcome cannot be stored")
        return await change(self, session, epoch, how)

    monkeypatch.setattr(Outbox, "change", raising)
    served = await start(serve)
    await service.browser("phone").subscribe(served)
    for number in range(USER_IN_FLIGHT):
        await served.publish(f"bad{number}", ALERT)
    async with asyncio.timeout(60):
        while len(failed) < USER_IN_FLIGHT:
            await asyncio.sleep(0.02)
        await served.publish("good", ALERT)
        await until(served, "state=delivered&session=good")
    assert len(failed) == USER_IN_FLIGHT, "none of them is sent again at once"


PHONE, LAPTOP = (Subscription(name, f"https://push.example.com/{name}", "p", "a", 0.0) for name in ("phone", "laptop"))
DELIVERED, GONE = Outcome("delivered", "201"), Outcome("gone", "410")
REFUSED, FAILED = Outcome("refused", "413"), Outcome("failed", "429", 60.0)


@pytest.mark.parametrize(
    ("phone", "laptop", "verdict"),
    [
        (DELIVERED, DELIVERED, "delivered"),
        (DELIVERED, GONE, "delivered"),
        (DELIVERED, REFUSED, "delivered"),
        (DELIVERED, FAILED, "failed"),
        (GONE, FAILED, "failed"),
        (REFUSED, FAILED, "failed"),
        (GONE, REFUSED, "refused"),
        (GONE, GONE, "unneeded"),
    ],
)
def test_the_outcome_of_an_attempt_is_that_of_its_devices(phone: Outcome, laptop: Outcome, verdict: str) -> None:
    found = summed_up([(PHONE, phone), (LAPTOP, laptop)], ())
    assert found.verdict == verdict
    assert found.reached == ((short_name("phone"),) if phone is DELIVERED else ()) + (
        (short_name("laptop"),) if laptop is DELIVERED else ()
    )
    assert found.retry_after == (60.0 if verdict == "failed" else 0.0)


def test_a_message_that_all_devices_have_is_delivered() -> None:
    assert summed_up([], {short_name("phone")}).verdict == "delivered"
    assert summed_up([], ()).verdict == "unneeded"
