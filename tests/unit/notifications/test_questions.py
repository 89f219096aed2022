"""Those who may answer a request for input are notified of it, until it is closed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from tests.receivers import Receiver, status
from tests.support import Served
from tests.unit.conftest import Serve
from tests.unit.notifications.test_routes import listed, until
from wakeline.gateway.notifications.questions import asked
from wakeline.gateway.rules import Notify

TWO_GATEWAYS = True
PATH = "/v1/sessions/order-1/requests"


async def start(serve: Serve, hook: Receiver, **changed: Any) -> Served:
    rule = {"topics": ("$input.requested", "alert"), "grace": 0.05, **changed}
    return await serve(
        notify={"asks": Notify(**rule)}, channels={"ops": hook.channel()}, outgoing_networks=("127.0.0.1",)
    )


async def ask(served: Served, id: str, *audience: str) -> None:
    body = {"id": id, "reason": "approval", "message": "Pay?", "choices": ["yes", "no"]}
    code, answer = await served.call("POST", PATH, json=body | ({"audience": list(audience)} if audience else {}))
    assert code == 200, answer


async def answer(served: Served, id: str) -> None:
    code, said = await served.call("POST", f"{PATH}/{id}", json={"payload": "yes"})
    assert code == 200, said


async def test_the_users_of_the_audience_are_notified(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await ask(served, "q1", "ada", "role:boss", "bob")
    requests = await hook.until(2)
    assert sorted(request.data["user"] for request in requests) == ["ada", "bob"]
    assert requests[0].data["events"][0]["data"]["message"] == "Pay?"


async def test_the_users_of_a_rule_take_precedence(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, users=("on-call",))
    await ask(served, "q1", "ada")
    assert [request.data["user"] for request in await hook.until(1)] == ["on-call"]


async def test_a_request_that_was_answered_in_time_notifies_nobody(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, grace=4, users=("ada",))
    await ask(served, "q1")
    await answer(served, "q1")
    await ask(served, "q2")
    (request,) = await hook.until(1)
    assert [event["data"]["id"] for event in request.data["events"]] == ["q2"]


async def test_requests_that_were_answered_in_time_notify_nobody_however_many_there_are(
    serve: Serve, hook: Receiver
) -> None:
    """The session's record has no room for all of them at a time."""
    served = await start(serve, hook, grace=10)
    many = [f"user-{number:02d}-{'x' * 60}" for number in range(100)]
    for number in range(12):
        await ask(served, f"q{number}", *many)
    for number in range(12):
        await answer(served, f"q{number}")
    await ask(served, "last", "ada")
    requests = await hook.until(1)
    assert [(request.data["user"], request.data["count"]) for request in requests] == [("ada", 1)]


async def test_an_answer_cancels_the_next_attempt(serve: Serve, hook: Receiver) -> None:
    hook.always = status(500)
    served = await start(serve, hook, users=("ada",))
    await ask(served, "q1")
    await hook.until(1)
    await answer(served, "q1")
    (found,) = await until(served, "state=cancelled")
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["500"]
    assert len(hook.received) == 1


async def test_an_answer_during_an_attempt_prevents_the_next_one(serve: Serve, hook: Receiver) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=500)

    hook.answers.append(slow)
    served = await start(serve, hook, users=("ada",))
    await ask(served, "q1")
    await hook.until(1)
    await answer(served, "q1")
    await until(served, "state=cancelled")
    release.set()
    async with asyncio.timeout(60):
        while not (await listed(served))[0]["attempts"]:
            await asyncio.sleep(0.02)
    assert [found["state"] for found in await listed(served)] == ["cancelled"]


async def test_of_several_requests_in_one_notification_all_must_be_closed(serve: Serve, hook: Receiver) -> None:
    hook.always = status(500)
    served = await start(serve, hook, users=("ada",), grace=2)
    await ask(served, "q1")
    await ask(served, "q2")
    (first, *_) = await hook.until(1)
    assert first.data["count"] == 2
    await answer(served, "q1")
    await served.publish("order-1", {"topic": "alert", "data": 1})
    await hook.until(2)
    assert sorted(found["state"] for found in await listed(served)) == ["pending", "pending"]
    await answer(served, "q2")
    await until(served, "state=cancelled")
    assert sorted(found["state"] for found in await listed(served)) == ["cancelled", "pending"]


async def test_a_cancelled_request_is_closed_too(serve: Serve, hook: Receiver) -> None:
    hook.always = status(500)
    served = await start(serve, hook, users=("ada",))
    await ask(served, "q1")
    await hook.until(1)
    assert (await served.call("DELETE", f"{PATH}/q1"))[0] == 200
    await until(served, "state=cancelled")


async def test_a_burst_of_requests_notifies_each_user_and_leaves_room_for_what_follows(
    serve: Serve, hook: Receiver
) -> None:
    users = tuple(f"user{number}" for number in range(20))
    served = await start(serve, hook, users=users, grace=1.5)
    await asyncio.gather(*(ask(served, f"{number:0128d}") for number in range(200)))
    await served.publish("order-1", {"topic": "alert", "data": 1})
    told: Counter[str] = Counter()
    async with asyncio.timeout(60):
        while set(told.values()) != {201} or len(told) < len(users):
            await asyncio.sleep(0.05)
            told = Counter()
            for request in hook.received:
                told[request.data["user"]] += request.data["count"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"data":{"id":"q","audience":["ada","role:x"]}}', ("q", ("ada",), False)),
        (b'{"data":{"id":"q","choices":["yes"]}}', ("q", (), True)),
        (b'{"data":{"id":"q","choices":["yes"],"digest":"d"}}', ("q", (), False)),
        (b'{"data":{"id":"q"}}', ("q", (), False)),
        (b'{"data":7}', ("", (), False)),
        (b'{"data":{"id":"q","audience":["' + b"a" * 9000 + b'","bob"]}}', ("q", (), False)),
    ],
)
def test_an_audience_is_read(body: bytes, expected: tuple[str, tuple[str, ...], bool]) -> None:
    assert asked(body) == expected
