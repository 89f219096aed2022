"""A receiver that accepts no pushes takes no room from the notifications of other users."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from aiohttp import web

from tests.pushes import channel, push_service
from tests.receivers import status
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from tests.unit.notifications.test_schedule import message
from wakeline.gateway.notifications import crowding
from wakeline.gateway.notifications.channels.channel import Outcome
from wakeline.gateway.notifications.crowding import (
    MOST_FAILING,
    MOST_WAITING,
    REASON,
    REASON_WAITING,
    SLOW_SECONDS,
    relieved,
)
from wakeline.gateway.notifications.deciding import PENDING_BYTES, PENDING_MESSAGES, size_of
from wakeline.gateway.notifications.sending import after, stored_after
from wakeline.gateway.notifications.values import Box, Message
from wakeline.gateway.rules import Notify

NOW = 1_700_000_000.0


def failing(user: str, number: int, **changed: object) -> Message:
    made = msgspec.structs.replace(message(), id=f"{user}{number}", user=user, channel="phones", created=NOW + number)
    return msgspec.structs.replace(after(made, Outcome("failed", "phone: 503"), NOW, 0.1, 0.5), **changed)


def states(*messages: Message) -> dict[str, str]:
    box, ended = relieved(Box("e", 0, messages=messages), {"phones"}, NOW)
    assert {one.id for one in ended} == {one.id for one in box.messages if one.state == "dead"}
    return {one.id: one.state for one in box.messages}


def test_the_oldest_of_a_user_s_failing_pushes_is_dead() -> None:
    messages = [failing("ada", number) for number in range(MOST_FAILING + 1)]
    box, (ended,) = relieved(Box("e", 0, messages=(*messages, failing("bob", 0))), {"phones"}, NOW)
    assert ended.id == "ada0"
    assert [attempt.outcome for attempt in ended.attempts] == ["phone: 503", REASON]
    assert [one.id for one in box.messages if one.state == "pending"] == [
        "ada1",
        "ada2",
        "ada3",
        "ada4",
        "ada5",
        "bob0",
    ]


def test_critical_ones_are_dead_last() -> None:
    found = states(*(failing("ada", number, critical=number < 2) for number in range(MOST_FAILING + 2)))
    assert [id for id, state in found.items() if state == "dead"] == ["ada2", "ada3"]


@pytest.mark.parametrize("changed", [{"failures": 0}, {"channel": "ops"}, {"state": "delivered"}])
def test_what_was_not_sent_yet_and_what_goes_to_a_webhook_stays(changed: dict[str, object]) -> None:
    messages = [failing("ada", number, **changed) for number in range(50)]
    assert "dead" not in states(*messages).values()


def test_half_of_a_box_is_for_others_whoever_fails() -> None:
    found = states(*(failing(f"user-{user:02d}-", number) for user in range(40) for number in range(3)))
    kept = Counter(id.rpartition("-")[0] for id, state in found.items() if state == "pending")
    assert kept.total() == PENDING_MESSAGES // 2
    assert set(kept.values()) == {1, 2}, "those with the most give way"


def test_long_ones_take_half_of_a_box_too() -> None:
    event = msgspec.Raw(b'"' + b"x" * 1_000 + b'"')
    messages = [failing("ada", number, events=(event,) * 10) for number in range(MOST_FAILING)]
    box, ended = relieved(Box("e", 0, messages=tuple(messages)), {"phones"}, NOW)
    kept = [one for one in box.messages if one.state == "pending"]
    assert kept
    assert ended
    assert sum(map(size_of, kept)) <= PENDING_BYTES // 2


def waiting(user: str, number: int, **changed: object) -> Message:
    return msgspec.structs.replace(failing(user, number), failures=0, attempts=(), **changed)


def test_a_user_whose_endpoint_never_answers_keeps_a_share_of_a_full_box() -> None:
    messages = [waiting("ada", number, critical=number == 10) for number in range(PENDING_MESSAGES - 1)]
    box = Box("e", 0, messages=(*messages, waiting("bob", 500)))
    kept, ended = relieved(box, {"phones"}, NOW + 500)
    assert {one.attempts[-1].outcome for one in ended} == {REASON_WAITING}
    pending = [one.id for one in kept.messages if one.state == "pending"]
    assert pending[:5] == ["ada0", "ada1", "ada2", "ada3", "ada10"], "attempts are being made, and the critical one"
    assert pending[-2:] == [f"ada{PENDING_MESSAGES - 2}", "bob500"]
    assert len(pending) == MOST_WAITING + 1


def test_a_burst_that_is_being_sent_is_not_ended() -> None:
    box = Box("e", 0, messages=tuple(waiting("ada", 0, id=f"ada{number}") for number in range(PENDING_MESSAGES)))
    assert relieved(box, {"phones"}, NOW + SLOW_SECONDS) == (box, [])
    rest = msgspec.structs.replace(box, messages=box.messages[1:])
    assert relieved(rest, {"phones"}, NOW + 60) == (rest, []), "the box is not full"


def test_many_users_whose_endpoints_never_answer_share_half_of_a_box() -> None:
    messages = tuple(waiting(f"user{user}", user, id=f"{user}-{number}") for user in range(20) for number in range(5))
    box, _ = relieved(Box("e", 0, messages=messages), {"phones"}, NOW + 60)
    assert sum(one.state == "pending" for one in box.messages) == PENDING_MESSAGES // 2


def test_a_push_that_ended_during_its_attempt_stays_dead_unless_it_was_accepted() -> None:
    sent = failing("ada", 0)
    box = Box("e", 0, messages=(msgspec.structs.replace(sent, state="dead"),))
    assert stored_after(box, sent) == box
    accepted = after(sent, Outcome("delivered", "201"), NOW, 0.1, 0.5)
    assert stored_after(box, accepted).messages == (accepted,)


def test_an_attempt_that_ends_after_another_gateway_s_takes_nothing_back() -> None:
    """A gateway that was paused makes an attempt of a session that another one has taken over."""
    begun = waiting("ada", 0)
    there = after(begun, Outcome("delivered", "phone: 201", reached=("phone",)), NOW + 1, 0.1, 0.5)
    here = after(begun, Outcome("failed", "laptop: 503", reached=("laptop",)), NOW, 9.0, 0.5)
    (merged,) = stored_after(Box("e", 0, messages=(there,)), here).messages
    assert merged.state == "delivered"
    assert set(merged.reached) == {"phone", "laptop"}
    assert [attempt.outcome for attempt in merged.attempts] == ["laptop: 503", "phone: 201"]
    (merged,) = stored_after(Box("e", 0, messages=(here,)), there).messages
    assert (merged.state, set(merged.reached)) == ("delivered", {"phone", "laptop"})


async def test_others_are_notified_while_a_users_endpoint_accepts_nothing(serve: Serve) -> None:
    rules = {
        "fires": Notify(topics=("fire",), users=("ada",), critical=True),
        "news": Notify(topics=("news",), users=("bob",), grace=0),
    }
    async with push_service() as service:
        served = await serve(notify=rules, channels={"phones": channel()}, token_secret=SECRET)
        ada, bob = service.browser("ada"), service.browser("bob")
        for browser in (ada, bob):
            await browser.subscribe(served, headers=bearer(sub=browser.name, sessions=["*"], allow=["ack"]))
        service.answers["ada"] += [status(503)] * 1_000
        writer = bearer(sub="w", sessions=["*"], allow=["publish", "manage"])
        events = [{"topic": "fire", "data": number} for number in range(PENDING_MESSAGES + 10)]
        for batch in (events, [{"topic": "news", "data": 1}]):
            await served.call("POST", "/v1/sessions/s/events", json={"events": batch}, headers=writer)
        async with asyncio.timeout(60):
            while not bob.received:
                await asyncio.sleep(0.02)
            while True:
                _, page = await served.call("GET", "/v1/notifications?channel=phones", headers=writer)
                pending = [one for one in page["notifications"] if one["state"] == "pending" and one["user"] == "ada"]
                if len(pending) <= MOST_FAILING and all(one["attempts"] for one in pending):
                    break
                await asyncio.sleep(0.02)
        dead = [one for one in page["notifications"] if one["state"] == "dead"]
        assert {one["attempts"][-1]["outcome"] for one in dead} == {REASON}
        sent = {shown["data"]["cursor"] for shown in ada.shown()}
        assert len(sent) == len(events), "each is sent once before it ends"
        served.http.headers.update(writer)
        async with asyncio.timeout(60):  # they are counted once they are stored
            while await served.metric("wakeline_notifications_total", outcome="dead") < len(dead):
                await asyncio.sleep(0.02)


async def test_others_are_notified_while_a_users_endpoint_never_answers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowding, "SLOW_SECONDS", 0.2)
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    rules = {"asked": Notify(topics=("asked",), by_publisher=True, grace=0)}
    async with push_service() as service:
        served = await serve(notify=rules, channels={"phones": channel()}, token_secret=SECRET)
        ada, bob = service.browser("ada"), service.browser("bob")
        for browser in (ada, bob):
            await browser.subscribe(served, headers=bearer(sub=browser.name, sessions=["*"], allow=["ack"]))
        service.answers["ada"] += [hang] * 1_000
        writer = bearer(sub="w", sessions=["*"], allow=["publish", "manage"])
        notices = [*[{"title": "x", "for": "ada", "critical": True}] * 600, {"title": "fire", "for": "bob"}]
        events = [{"topic": "asked", "data": number, "notify": one} for number, one in enumerate(notices)]
        code, answer = await served.call("POST", "/v1/sessions/s/events", json={"events": events}, headers=writer)
        assert code == 200, answer
        try:
            async with asyncio.timeout(60):
                while not bob.received:
                    await asyncio.sleep(0.02)
            _, page = await served.call("GET", "/v1/notifications?state=dead", headers=writer)
            assert {one["attempts"][-1]["outcome"] for one in page["notifications"]} == {REASON_WAITING}
        finally:
            release.set()
