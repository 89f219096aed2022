"""A push says what a push service and a browser expect, and the service's answer decides what follows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.pushes import PUBLIC_KEY, Browser, PushService, channel, push_service
from tests.receivers import Answer, endless, garbage, hang, status
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.notifications.channels.channel import Notification, Outcome, Subscription
from wakeline.gateway.notifications.channels.encryption import MOST_BYTES
from wakeline.gateway.notifications.channels.guard import AddressGuard
from wakeline.gateway.notifications.channels.outgoing import Outgoing
from wakeline.gateway.notifications.channels.web_push import WebPush

NOTIFICATION = Notification(
    "msg_1", "ada", "order 1/2", b"{}", title="order 1/2", text="The run has failed", digest="failures", cursor="k-1"
)


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with push_service() as found:
        yield found


def made(outgoing: Outgoing, **changed: Any) -> WebPush:
    table = channel(**changed)
    del table["type"]
    return WebPush.create("phones", table, outgoing)


def to(browser: Browser, **changed: Any) -> Notification:
    keys = browser.subscription()["keys"]
    subscription = Subscription(browser.name, browser.endpoint, keys["p256dh"], keys["auth"], 0.0)
    fields = {name: getattr(NOTIFICATION, name) for name in NOTIFICATION.__struct_fields__}
    return Notification(**{**fields, "subscription": subscription, **changed})


async def send(
    browser: Browser, options: dict[str, Any] | None = None, *, timeout: float = 60.0, **changed: Any
) -> Outcome:
    outgoing = Outgoing(AddressGuard(), timeout=timeout)
    push = made(outgoing, **(options or {}))
    async with outgoing:
        return await push.send(to(browser, **changed))


async def test_the_browser_reads_a_declarative_message(service: PushService) -> None:
    browser = service.browser("phone")
    assert await send(browser) == Outcome("delivered", "201")
    assert browser.shown() == [
        {
            "title": "order 1/2",
            "body": "The run has failed",
            "navigate": "https://app.example.com/?session=order%201%2F2",
            "tag": "msg_1",
            "data": {"id": "msg_1", "session": "order 1/2", "cursor": "k-1", "count": 1},
        }
    ]


async def test_another_library_verifies_who_sends(service: PushService) -> None:
    browser = service.browser("phone")
    await send(browser)
    claims = browser.received[0].claims()
    assert claims["sub"] == "mailto:ops@example.com"
    assert claims["aud"] == service.url
    assert 3600 < claims["exp"] - time.time() <= 86_400, "push services refuse tokens of more than a day"


async def test_the_headers_say_how_long_how_soon_and_what_it_replaces(service: PushService) -> None:
    browser = service.browser("phone")
    await send(browser)
    await send(browser, {"ttl": 60}, critical=True)
    await send(browser, digest="other")
    first, second, third = (push.headers for push in browser.received)
    assert (first["ttl"], first["urgency"], first["content-encoding"]) == ("86400", "normal", "aes128gcm")
    assert (second["ttl"], second["urgency"]) == ("60", "high")
    assert first["topic"] == second["topic"] != third["topic"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}", first["topic"])


@pytest.mark.parametrize("text", ["x" * 10_000, "ä" * 10_000, '"' * 10_000, "🙂" * 4_000])
async def test_a_long_text_is_cut_to_what_push_services_accept(service: PushService, text: str) -> None:
    browser = service.browser("phone")
    assert (await send(browser, title=text, text=text)).verdict == "delivered"
    (push,), (shown,) = browser.received, browser.shown()
    assert len(push.body) <= MOST_BYTES
    assert len(shown["body"]) > 50
    assert shown["title"].endswith("…")
    assert shown["body"].endswith("…")


async def test_the_longest_session_s_name_leaves_room_for_a_title(service: PushService) -> None:
    browser = service.browser("phone")
    session = '"' * 512
    options = {"navigate": "https://app.example.com/?session={session}&" + "x" * 960}
    assert (await send(browser, options, session=session, title=session, text="text")).verdict == "delivered"
    (push,), (shown,) = browser.received, browser.shown()
    assert len(push.body) <= MOST_BYTES
    assert shown["title"]
    assert shown["data"]["session"] == session


async def test_the_notification_s_own_address_is_opened(service: PushService) -> None:
    browser = service.browser("phone")
    await send(browser, url="https://other.example.com/approve")
    assert browser.shown()[0]["navigate"] == "https://other.example.com/approve"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(201), Outcome("delivered", "201")),
        (status(202), Outcome("delivered", "202")),
        (status(302, Location="http://127.0.0.1:1/"), Outcome("failed", "302")),
        (status(400), Outcome("failed", "400")),
        (status(401), Outcome("failed", "401")),
        (status(403), Outcome("failed", "403")),
        (status(404), Outcome("gone", "404")),
        (status(410), Outcome("gone", "410")),
        (status(413), Outcome("refused", "413")),
        (status(429, Retry_After="120"), Outcome("failed", "429", 120.0)),
        (status(500), Outcome("failed", "500")),
        (status(503, webhook_delivery="abort-message"), Outcome("failed", "503")),
        (endless, Outcome("delivered", "200")),
    ],
)
async def test_an_answer_decides_what_follows(service: PushService, answer: Answer, expected: Outcome) -> None:
    browser = service.browser("phone")
    service.answers["phone"].append(answer)
    assert await send(browser) == expected
    assert len(browser.received) == 1


async def test_an_answer_that_does_not_come_in_time_is_a_failure(service: PushService) -> None:
    browser = service.browser("phone")
    service.answers["phone"].append(hang)
    assert await send(browser, timeout=1.0) == Outcome("failed", "no answer in 1 s")
    assert len(browser.received) == 1


async def test_garbage_is_a_failure_that_does_not_name_the_endpoint(service: PushService) -> None:
    browser = service.browser("phone")
    service.answers["phone"].append(garbage)
    outcome = await send(browser)
    assert outcome.verdict == "failed"
    assert "push/phone" not in outcome.reason


async def test_a_private_address_is_refused_unless_the_channel_allows_it(service: PushService) -> None:
    browser = service.browser("phone")
    outcome = await send(browser, {"networks": []})
    assert outcome.verdict == "failed"
    assert "private address" in outcome.reason
    assert browser.received == []


async def test_tokens_are_signed_once_for_each_push_service(service: PushService) -> None:
    outgoing = Outgoing(AddressGuard(), timeout=60.0)
    push = made(outgoing)
    browser = service.browser("phone")
    async with outgoing:
        await asyncio.gather(*(push.send(to(browser)) for _ in range(3)))
    assert len({received.headers["authorization"] for received in browser.received}) == 1


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("https://push.example.com/a", None),
        ("https://push.example.com:8443/a?b", None),
        ("http://127.0.0.1:80/a", None),
        ("https://127.0.0.1:80/a", None),
        ("https://8.8.8.8/a", None),
        ("http://push.example.com/a", "https"),
        ("http://8.8.8.8/a", "https"),
        ("https://10.0.0.7/a", "public"),
        ("https://169.254.169.254/latest", "public"),
        ("https://[::1]/a", "public"),
        ("https://[::ffff:10.0.0.7]/a", "public"),
        ("http://10.0.0.7/a", "https"),
        ("https://ada:secret@push.example.com/a", "user"),
        ("https://push.example.com/a#b", "fragment"),
        ("https://push.example.com/ä", "ASCII"),
        ("https://push.example.com/a b", "ASCII"),
        ("https://push.example.com/" + "a" * 2048, "2048"),
        ("https://push.example.com:99999/a", "URL"),
        ("https://[::1/a", "URL"),
        ("https:///a", "host"),
        ("ftp://push.example.com/a", "https"),
        ("", "host"),
    ],
)
def test_an_endpoint_is_checked(endpoint: str, fault: str | None) -> None:
    found = made(Outgoing(AddressGuard())).fault(endpoint)
    assert found is None if fault is None else fault in (found or "")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"private_key": "short"}, "32 bytes"),
        ({"private_key": "not base64!"}, "base64url"),
        ({"private_key": "A" * 43}, "P-256"),
        ({"private_key": 7}, "str"),
        ({"subject": "ops@example.com"}, "mailto:"),
        ({"subject": "mailto:ops"}, "mailto:"),
        ({"subject": "mailto:@example.com"}, "mailto:"),
        ({"subject": "mailto:ops@localhost"}, "mailto:"),
        ({"subject": "http://example.com"}, "mailto:"),
        ({"subject": "https://localhost/"}, "mailto:"),
        ({"navigate": "/relative"}, "navigate"),
        ({"navigate": "https://app.example.com/" + "x" * 3000}, "navigate"),
        ({"navigate": "https://app.example.com/{session}/{session}"}, "navigate"),
        ({"ttl": -1}, "ttl"),
        ({"networks": ["localhost"]}, "networks"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_settings_are_refused_without_showing_the_key(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsInvalidError) as refused:
        made(Outgoing(AddressGuard()), **changed)
    assert said in refused.value.message
    assert channel()["private_key"] not in str(refused.value)


@pytest.mark.parametrize("subject", ["mailto:ops@example.com", "https://example.com", "https://example.com/contact"])
def test_a_subject_is_an_address_or_a_page(subject: str) -> None:
    assert made(Outgoing(AddressGuard()), subject=subject).public_key == PUBLIC_KEY
