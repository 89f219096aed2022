"""A publisher asks to notify users, in its own words, where the settings have a rule for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.pushes import channel, push_service
from tests.receivers import Receiver
from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.gateway.rules import Notify
from wakeline.publisher import SessionPublisher, SyncSessionPublisher

TWO_GATEWAYS = True
WORDS = {"title": "Refund 40 EUR?", "body": "Order 7", "url": "https://app.example.com/approve/7"}
NDJSON = {"Content-Type": "application/x-ndjson"}


async def start(serve: Serve, hook: Receiver, **changed: Any) -> Served:
    rule = {"topics": ("*",), "grace": 0.05, "by_publisher": True, **changed}
    return await serve(
        notify={"asked": Notify(**rule)}, channels={"ops": hook.channel()}, outgoing_networks=("127.0.0.1",)
    )


def asking(number: int = 0, users: Any = "ada", **more: Any) -> dict[str, Any]:
    return {"topic": "question", "data": number, "notify": {**WORDS, "for": users, **more}}


async def test_the_users_that_are_named_get_the_words(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await served.publish("s", {"topic": "question", "data": 0}, asking(1, ["ada", "bob"]))
    requests = await hook.until(2)
    assert {request.data["user"] for request in requests} == {"ada", "bob"}
    for request in requests:
        assert request.offsets == [1], "the other event asked for nothing"
        assert {name: request.data[name] for name in WORDS} == WORDS


async def test_without_such_a_rule_a_publisher_notifies_nobody(serve: Serve, hook: Receiver) -> None:
    served = await serve(
        notify={"alerts": Notify(topics=("alert",), users=("ops",), grace=0)},
        channels={"ops": hook.channel()},
        outgoing_networks=("127.0.0.1",),
    )
    await served.publish("s", asking(), {"topic": "alert", "data": 1, "notify": {**WORDS, "for": "eve"}})
    (request,) = await hook.until(1)
    assert (request.data["user"], request.offsets) == ("ops", [1]), "the settings say who is notified"
    assert request.data["title"] == WORDS["title"], "but the words are those of the publisher"


async def test_a_publisher_names_the_digest_and_what_is_critical(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, grace=3)
    events = [asking(0, digest="a"), asking(1, digest="b"), asking(2, digest="a"), asking(3, critical=True)]
    await served.publish("s", *events)
    requests = await hook.until(3)
    assert requests[0].offsets == [3], "it did not wait for its grace time"
    assert sorted(request.offsets for request in requests[1:]) == [[0, 2], [1]]


async def test_without_names_the_users_are_those_of_the_rule(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, users=("on-call",))
    await served.publish("s", asking(users=[]))
    assert (await hook.until(1))[0].data["user"] == "on-call"


async def test_a_user_who_has_seen_it_is_not_notified(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, grace=4, users=("",))
    first = await served.publish("s", asking(users=[]))
    body = {"seen": f"{first['epoch']}-1"}
    assert (await served.call("PUT", "/v1/sessions/s/devices/phone", json=body))[0] == 200
    await served.publish("t", asking(users=[]))
    assert [request.data["session"] for request in await hook.until(1)] == ["t"]


async def test_a_phone_shows_the_words_and_a_tap_opens_the_address(serve: Serve) -> None:
    async with push_service() as service:
        rules = {"asked": Notify(topics=("*",), users=("",), grace=0, by_publisher=True)}
        served = await serve(notify=rules, channels={"phones": channel()})
        phone = service.browser("phone")
        await phone.subscribe(served)
        await served.publish("s", asking(users=[], critical=True))
        async with asyncio.timeout(60):
            while not phone.received:
                await asyncio.sleep(0.02)
        (shown,) = phone.shown()
        assert (shown["title"], shown["body"], shown["navigate"]) == tuple(WORDS.values())
        assert phone.received[0].headers["urgency"] == "high"


async def test_readers_and_exports_have_the_notice(served: Served) -> None:
    sent = {**asking(), "key": "k"}
    await served.publish("s", sent)
    _, page = await served.call("GET", "/v1/sessions/s/events")
    assert page["events"][0]["notify"] == sent["notify"]
    async with served.http.get("/v1/sessions/s/export") as answer:
        file = await answer.read()
    status, _ = await served.call("POST", "/v1/sessions/t/import", data=file, headers=NDJSON)
    assert status == 201
    async with served.http.get("/v1/sessions/t/export") as answer:
        assert (await answer.read()).split(b"\n")[1] == file.split(b"\n")[1]
    wrong = file.replace(b'"title":"Refund 40 EUR?"', b'"title":""')
    status, refused = await served.call("POST", "/v1/sessions/u/import", data=wrong, headers=NDJSON)
    assert (status, refused["error"]["code"]) == (400, "import_invalid")
    assert "notify.title" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("notify", "code"),
    [
        ({"title": ""}, "request_invalid"),
        ({"title": "t", "url": "javascript:alert(1)"}, "request_invalid"),
        ({"body": "no title"}, "body_invalid"),
        ("ada", "body_invalid"),
        ({"title": "t", "to": "ada"}, "body_invalid"),
    ],
)
async def test_a_bad_notice_is_refused_and_nothing_is_appended(served: Served, notify: Any, code: str) -> None:
    events = {"events": [{"topic": "t", "data": 1}, {"topic": "t", "data": 2, "notify": notify}]}
    status, answer = await served.call("POST", "/v1/sessions/s/events", json=events)
    assert (status, answer["error"]["code"]) == (400, code)
    assert (await served.call("GET", "/v1/sessions/s"))[0] == 404


async def test_publishers_in_python_ask_too(served: Served) -> None:
    async with SessionPublisher(served.url, session="s") as session:
        await session.topic("question").publish(1, notify={**WORDS, "for": "ada"})
        await session.topic("cell", keyed=True).publish(2, key="k", notify={"title": "t"})

    def work() -> None:
        with SyncSessionPublisher(served.url, session="s") as session:
            session.topic("question").publish(3, notify={"title": "u"})

    await asyncio.wait_for(asyncio.to_thread(work), 60)
    _, page = await served.call("GET", "/v1/sessions/s/events")
    assert [(event["data"], event.get("key"), event["notify"]) for event in page["events"]] == [
        (1, None, {**WORDS, "for": "ada"}),
        (2, "k", {"title": "t"}),
        (3, None, {"title": "u"}),
    ]


async def test_data_that_looks_like_a_notice_is_none(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await served.publish("s", {"topic": "t", "data": {"x": 1, "notify": {"title": "no", "for": "eve"}}}, asking(1))
    (request,) = await hook.until(1)
    assert (request.data["user"], request.offsets) == ("ada", [1])
    assert json.loads(request.body)["data"]["count"] == 1
