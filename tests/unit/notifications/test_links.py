"""Answer links: a notified user answers a request for input by a page, once, without a token."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.pushes import channel, push_service
from tests.receivers import Receiver
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.notifications import Linked, Links, Message, retried
from wakeline.gateway.notifications.sending import notification_of
from wakeline.gateway.rules import Notify
from wakeline.gateway.sessions import Remembered
from wakeline.gateway.settings import Settings

TWO_GATEWAYS = True
PATH = "/v1/sessions/order-1/requests"
PUBLIC = "https://wakeline.example.com/gateway"
TOKEN = bearer(sub="worker", exp=4_000_000_000)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Page(NamedTuple):
    status: int
    text: str
    headers: Any


async def start(serve: Serve, hook: Receiver, **changed: Any) -> Served:
    rule = Notify(**{"topics": ("$input.requested",), "grace": 0.05, "links": True, **changed.pop("rule", {})})
    how = {"token_secret": SECRET, "public_url": PUBLIC, "outgoing_networks": ("127.0.0.1",), **changed}
    return await serve(notify={"asks": rule}, channels={"ops": hook.channel()}, **how)


async def ask(served: Served, id: str = "q1", **changed: Any) -> None:
    body = {"id": id, "reason": "approval", "message": "Pay 12 EUR?", "choices": ["yes", "no"], "audience": ["ada"]}
    code, said = await served.call("POST", PATH, json={**body, **changed}, headers=TOKEN)
    assert code == 200, said


async def linked(served: Served, hook: Receiver, **changed: Any) -> str:
    """The path of the link in the notification of one request."""
    await ask(served, **changed)
    (request, *_) = await hook.until(1)
    (answer,) = request.data["answers"]
    assert answer["request"] == "q1"
    assert answer["url"].startswith(f"{PUBLIC}/v1/answers/")
    return str(urlsplit(answer["url"]).path.removeprefix("/gateway"))


async def opened(served: Served, path: str, **headers: str) -> Page:
    async with served.http.get(path, headers=headers) as answer:
        return Page(answer.status, await answer.text(), answer.headers)


async def post(served: Served, path: str, choice: str | int, **headers: str) -> Page:
    async with served.http.post(path, data=f"choice={choice}", headers={**FORM, **headers}) as answer:
        return Page(answer.status, await answer.text(), answer.headers)


async def outcome(served: Served) -> Any:
    _, found = await served.call("GET", f"{PATH}/q1", headers=TOKEN)
    return found.get("outcome")


async def test_reading_a_link_changes_nothing_and_posting_its_choice_answers_once(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    for _ in range(20):
        shown = await opened(served, path)
        assert shown.status == 200
        assert "Pay 12 EUR?" in shown.text
        assert "For ada" in shown.text
    assert await outcome(served) is None
    assert re.findall(r'value="(\d+)"[^>]*>(\w+)<', shown.text) == [("0", "yes"), ("1", "no")]
    done = await post(served, path, 1)
    assert done.status == 200
    assert "Answered: no, by ada" in done.text
    assert "<form" not in done.text
    won = {"request": "q1", "status": "resolved", "payload": "no", "by": "ada", "device": "link"}
    assert await outcome(served) == won
    assert (await post(served, path, 1)).status == 200, "the same answer again is that answer"
    other = await post(served, path, 0)
    assert other.status == 409
    assert "Answered: no, by ada" in other.text
    again = await opened(served, path)
    assert again.status == 410
    assert "Answered: no, by ada" in again.text
    assert "<form" not in again.text
    assert await outcome(served) == won


async def test_a_link_answers_no_later_request_of_the_same_id(hook: Receiver) -> None:
    store, day = MemoryEngine(), 86_400
    settings = Settings(
        port=0,
        token_secret=SECRET,
        public_url=PUBLIC,
        outgoing_networks=("127.0.0.1",),
        notify={"asks": Notify(topics=("$input.requested",), grace=0.05, links=True)},
        channels={"ops": hook.channel()},
    )
    async with gateway(settings, engine=store) as url, Served(url) as served:
        old = await linked(served, hook)
        assert (await served.call("DELETE", f"{PATH}/q1", headers=TOKEN))[0] == 200
        await Remembered(store, day, lambda _: True, lambda: time.time() + 3 * day).sweep()
        await ask(served, message="Pay 1,000,000 EUR?")
        for shown in (await opened(served, old), await post(served, old, 0)):
            assert shown.status == 404
            assert "Pay" not in shown.text
        assert await outcome(served) is None
        (_, request) = await hook.until(2)
        new = urlsplit(request.data["answers"][0]["url"]).path.removeprefix("/gateway")
        assert (await post(served, new, 0)).status == 200


async def test_an_answer_from_elsewhere_ends_the_link(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    person = bearer(sub="ada", inputs=["$answer.*"])
    assert (await served.call("POST", f"{PATH}/q1", json={"payload": "yes"}, headers=person))[0] == 200
    assert (await post(served, path, 1)).status == 409
    assert (await outcome(served))["payload"] == "yes"


async def test_no_link_answers_after_the_expiry_of_its_request(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook, expires_in=3)
    async with asyncio.timeout(60):
        while (await opened(served, path)).status == 200:
            await asyncio.sleep(0.05)
    shown = await post(served, path, 0)
    assert shown.status == 410
    assert "The time to answer is over" in shown.text
    assert (await outcome(served))["status"] == "expired"


async def test_a_cancelled_request_is_shown_as_such(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    assert (await served.call("DELETE", f"{PATH}/q1", headers=TOKEN))[0] == 200
    shown = await post(served, path, 0)
    assert shown.status == 410
    assert "cancelled" in shown.text


async def test_a_link_expires_by_itself(serve: Serve, hook: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.gateway.notifications.sending.LINK_SECONDS", -1)
    served = await start(serve, hook)
    path = await linked(served, hook)
    for shown in (await opened(served, path), await post(served, path, 0)):
        assert shown.status == 410
        assert "This link has expired" in shown.text
        assert "Pay 12" not in shown.text
    assert await outcome(served) is None


async def test_a_link_ends_with_the_life_of_its_session(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    assert (await served.call("DELETE", "/v1/sessions/order-1", headers=TOKEN))[0] == 204
    assert (await opened(served, path)).status == 404
    await ask(served)
    assert (await post(served, path, 0)).status == 404
    assert await outcome(served) is None


async def test_nothing_but_the_whole_link_is_accepted(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    for wrong in (
        path[:-2],
        path + "A",
        path[:-1] + ("A" if path[-1] != "A" else "B"),
        "/v1/answers/x",
        "/v1/answers/%00",
    ):
        shown = await post(served, wrong, 0)
        assert (shown.status, "This link is not valid" in shown.text) == (404, True), wrong
        assert (await opened(served, wrong)).status == 404
    assert await outcome(served) is None


async def test_what_was_asked_is_shown_as_text(serve: Serve, hook: Receiver) -> None:
    evil = "<script>alert(1)</script>\"'&\x00"
    served = await start(serve, hook)
    path = await linked(served, hook, message=evil, choices=[evil, "a\nb"])
    shown = await opened(served, path)
    assert "<script" not in shown.text
    assert shown.text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 2
    done = await post(served, path, 1)
    assert done.status == 200
    assert (await outcome(served))["payload"] == "a\nb", "line ends are those of the choice"


async def test_the_page_loads_nothing_and_is_kept_nowhere(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    for shown in (await opened(served, await linked(served, hook)), await opened(served, "/v1/answers/x")):
        headers = shown.headers
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Robots-Tag"] == "noindex, nofollow"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert not re.search(r"(src|href|action)=", shown.text)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://wakeline.example.com", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 200),
    ],
)
async def test_only_the_page_itself_answers(serve: Serve, hook: Receiver, headers: dict[str, str], status: int) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    assert (await opened(served, path, **{"Sec-Fetch-Site": "cross-site"})).status == 200, "a link in an e-mail"
    assert (await post(served, path, 0, **headers)).status == status
    assert (await outcome(served) is None) == (status != 200)


async def test_the_public_origin_may_do_nothing_else(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    said = await served.call("GET", "/v1/sessions", headers={**TOKEN, "Origin": "https://wakeline.example.com"})
    assert said[0] == 403


@pytest.mark.parametrize("body", ["", "choice=", "choice=-1", "choice=2", "choice=yes", "choice=0&choice=1", "x=0"])
async def test_a_form_that_names_no_choice_answers_nothing(serve: Serve, hook: Receiver, body: str) -> None:
    served = await start(serve, hook)
    path = await linked(served, hook)
    async with served.http.post(path, data=body, headers=FORM) as answer:
        assert answer.status == 400
    async with served.http.post(path, json={"choice": 0}) as answer:
        assert answer.status == 400
    assert await outcome(served) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"audience": None, "users": ("ada",)},
        {"audience": ["role:boss"], "users": ("ada",)},
        {"audience": ["bob"], "users": ("ada",)},
        {"choices": None},
        {"choices": None, "response_schema": {"type": "string"}},
        {"digest": "sha256:1"},
        {"kind": "tool"},
        {"links": False},
    ],
)
async def test_there_is_no_link_unless_it_can_answer(serve: Serve, hook: Receiver, asked: dict[str, Any]) -> None:
    rule = {name: asked.pop(name) for name in ("users", "links") if name in asked}
    served = await start(serve, hook, rule=rule)
    await ask(served, **asked)
    (request,) = await hook.until(1)
    assert "answers" not in request.data
    assert "/v1/answers/" not in request.body.decode()


async def test_each_user_answers_as_that_user(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await ask(served, audience=["ada", "bob"], needs=2)
    paths = {
        one.data["user"]: urlsplit(one.data["answers"][0]["url"]).path.removeprefix("/gateway")
        for one in await hook.until(2)
    }
    first = await post(served, paths["ada"], 0)
    assert first.status == 200
    assert "You have answered: yes" in first.text
    assert (await opened(served, paths["ada"])).status == 410
    assert (await post(served, paths["ada"], 1)).status == 409
    assert "1 answered so far" in (await opened(served, paths["bob"])).text
    assert (await post(served, paths["bob"], 0)).status == 200
    assert (await outcome(served))["answers"] == [{"by": "ada", "device": "link"}, {"by": "bob", "device": "link"}]


async def test_a_retry_sends_the_same_link(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook)
    await ask(served)
    await hook.until(1)
    async with asyncio.timeout(60):
        while (await served.call("POST", "/v1/notifications/retry?state=delivered", headers=TOKEN))[1]["retried"] == 0:
            await asyncio.sleep(0.05)
    first, second, *_ = await hook.until(2)
    assert (first.id, first.body) == (second.id, second.body)


def test_a_retry_by_hand_after_the_links_have_expired_makes_new_ones() -> None:
    links, day = Links(bytes(64), PUBLIC), 86_400.0
    first = Message(
        *("m", "ada", "ops", ("asks",), "d", 0.0, 3, 3, 1, (msgspec.Raw(b"{}"),), "seen"),
        state="dead",
        linked=("q1",),
        asked_at=("2026-01-01T00:00:00.000Z",),
    )
    early = retried(first, 6 * day)
    late = retried(early, 9 * day)
    later = retried(late, 10 * day)

    def sent(message: Message) -> tuple[bytes, float]:
        body = notification_of("s", "e", message, links).body
        (answer,) = msgspec.json.decode(body)["data"]["answers"]
        link = links.read(answer["url"].rpartition("/")[2])
        assert link is not None
        return body, link.expires / day

    assert sent(early) == sent(first)
    assert [sent(message)[1] for message in (first, early, late, later)] == [7, 7, 16, 16]


async def test_answers_count_as_events_of_their_user(serve: Serve, hook: Receiver) -> None:
    served = await start(serve, hook, publish_rate=0.1)
    path = await linked(served, hook)
    assert (await post(served, path, 9)).status == 400
    busy = await post(served, path, 0)
    assert busy.status == 429
    assert int(busy.headers["Retry-After"]) > 0


async def test_a_tap_on_a_push_opens_the_link(serve: Serve) -> None:
    async with push_service() as service:
        rule = Notify(topics=("$input.requested",), grace=0.05, links=True)
        channels = {"phones": channel()}
        served = await serve(notify={"asks": rule}, channels=channels, public_url=PUBLIC, token_secret=SECRET)
        browser = service.browser("phone")
        await browser.subscribe(served, headers=bearer(sub="ada"))
        await ask(served)
        async with asyncio.timeout(60):
            while not browser.received:
                await asyncio.sleep(0.02)
        (shown,) = browser.shown()
        assert shown["body"] == "Pay 12 EUR?"
        assert shown["navigate"].startswith(f"{PUBLIC}/v1/answers/")
        assert (await post(served, urlsplit(shown["navigate"]).path.removeprefix("/gateway"), 0)).status == 200
        assert (await outcome(served))["by"] == "ada"


@pytest.mark.parametrize(
    "url", ["wakeline.example.com", "ftp://x", "https://", "https://x/?q", "https://u@x", "https://x:y"]
)
async def test_a_public_url_that_links_cannot_begin_with_is_refused(serve: Serve, url: str) -> None:
    with pytest.raises(SettingsInvalidError, match="public_url"):
        await serve(public_url=url)


async def test_a_rule_with_links_needs_the_public_url(serve: Serve, hook: Receiver) -> None:
    with pytest.raises(SettingsInvalidError, match=r"public_url for the links of notify\.asks"):
        await start(serve, hook, public_url=None)


async def test_links_stay_valid_when_their_gateway_is_replaced(hook: Receiver, tmp_path: Path) -> None:
    rule = Notify(topics=("$input.requested",), grace=0.05, links=True)
    settings = Settings(
        port=0,
        data=str(tmp_path),
        durability="process",
        token_secret=SECRET,
        public_url=PUBLIC,
        notify={"asks": rule},
        channels={"ops": hook.channel()},
        outgoing_networks=("127.0.0.1",),
    )
    async with gateway(settings) as url, Served(url) as served:
        path = await linked(served, hook)
    async with gateway(settings) as url, Served(url) as served:
        assert (await post(served, path, 0)).status == 200
        assert (await outcome(served))["by"] == "ada"


def test_a_link_tells_nothing_of_what_it_is_for() -> None:
    made = Links(bytes(64), PUBLIC)
    url = made.url(what := Linked("order-1", "e", "q1", "ada", 5, "2026-01-01T00:00:00.000Z"))
    assert made.read(url.rsplit("/", 1)[1]) == what
    assert made.url(what) == url
    assert not re.search("order-1|ada|q1", url.removeprefix(PUBLIC))
    assert Links(bytes(63) + b"x", PUBLIC).read(url.rsplit("/", 1)[1]) is None
    longest = made.url(Linked("s" * 512, "e" * 16, "q" * 128, "u" * 256, 1 << 40, "2026-01-01T00:00:00.000Z"))
    assert len(longest) < 1_500
