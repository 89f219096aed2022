"""All views of the inspector: their figures, their `.json`, their width and their accessibility, and a token's end."""

from __future__ import annotations

import json
import time
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from tests.accessibility import violations
from tests.support import Served
from tests.tokens import token
from tests.web.inspector_page import Tab, order


async def test_the_gateway_shows_what_it_delivers(tab: Tab, served: Served) -> None:
    page = await tab.open("#/gateway")
    stream = await served.stream("order-8", "wait_for_start=true")
    live = page.locator(".figures div", has_text="live devices").locator("dd")
    await expect(live).not_to_have_text("0")
    await served.publish("order-8", {"topic": "n"})
    await stream.next()
    latency = page.get_by_role("region", name="From publish to device")
    await expect(latency.locator("strong").first).to_contain_text("s")
    assert await served.metric("wakeline_deliveries_total") >= 1
    stream.close()


@pytest.mark.parametrize(
    ("view", "requests"),
    [
        ("sessions?q=order-9&status=open", ["/v1/sessions?order=newest&contains=order-9&status=open"]),
        ("session/order-9", ["", "/events?before=now&limit=1000", "/devices", "/requests"]),
        ("session/order-9?e=0", ["", "/events?before=now&limit=1000", "/events/0", "/devices", "/requests"]),
        ("outbox?state=dead", ["/v1/notifications?state=dead"]),
        ("gateway", ["/readyz", "/metrics"]),
    ],
)
async def test_every_view_is_json_as_well(tab: Tab, served: Served, view: str, requests: list[str]) -> None:
    await served.publish("order-9", {"topic": "n"})
    page = await tab.open(f"#/{view}")
    await page.get_by_role("link", name=".json").click()
    whole = [path if "order-9" not in view.split("?")[0] else f"/v1/sessions/order-9{path}" for path in requests]
    await expect(page.locator("article h2 code")).to_have_text([f"GET {path}" for path in whole])
    await expect(page.locator("article pre")).to_have_count(len(requests))
    await expect(page.get_by_role("alert")).to_have_count(0)
    for path, shown in zip(whole, await page.locator("article pre").all_inner_texts(), strict=True):
        assert "# TYPE wakeline_" in shown if path == "/metrics" else isinstance(json.loads(shown), dict), path


async def test_the_json_of_a_gateway_that_is_not_ready_is_its_reason(tab: Tab) -> None:
    unready = {"status": "unready", "log": "failed: no space left", "temporal": "off", "erasure": "ok"}
    page = await tab.open("#/sessions")
    await page.route("**/readyz", lambda route: route.fulfill(status=503, json=unready))
    await page.evaluate("location.hash = '#/gateway.json'")
    answer = page.locator("article", has_text="GET /readyz")
    await expect(answer.locator("pre")).to_contain_text("no space left")
    await expect(answer.get_by_role("alert")).to_have_count(0)
    await page.unroute("**/readyz")


async def test_the_gateway_asks_for_another_token_and_continues(tab: Tab) -> None:
    page = await tab.open("#/gateway", claims={"exp": time.time() + 30})
    asked = page.get_by_role("heading", name="Sign in")
    await expect(page.locator(".figures")).to_be_visible()
    await expect(asked).to_be_visible(timeout=60_000)
    await expect(page.locator("main.gate")).to_contain_text("The token has expired.")
    await expect(page.locator(".figures")).to_have_count(1)
    await sign_in_again(page)
    async with page.expect_response(lambda answer: answer.url.endswith("/metrics") and answer.ok, timeout=60_000):
        await expect(asked).to_have_count(0)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_trace_asks_for_another_token_and_continues(tab: Tab, served: Served) -> None:
    await order(served, "order-10")
    stream = await served.stream("order-10", "device=phone")
    page = await tab.open("#/session/order-10?pane=devices", claims={"exp": time.time() + 30})
    await page.locator('[data-device="phone"]').get_by_role("button", name="Trace").click()
    trace = page.locator('[data-trace="phone"]')
    await expect(trace).to_contain_text("sse at 6")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=60_000)
    await sign_in_again(page)
    await served.publish("order-10", {"topic": "status"})
    await expect(trace).to_contain_text("sse at 7", timeout=60_000)
    stream.close()


async def test_an_outbox_that_the_token_may_not_read_shows_the_refusal_alone(tab: Tab) -> None:
    page = await tab.open("#/outbox", claims={"allow": ["read"]})
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_role("region", name="Notifications")).to_have_text("")


async def sign_in_again(page: Page) -> None:
    await page.get_by_label("Token").fill(token(exp=time.time() + 600))
    await page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize(
    ("scheme", "width", "views"),
    [
        ("light", 1280, "sessions session?e=1 session?pane=send session?pane=devices outbox gateway sessions.json"),
        ("dark", 1280, "sessions session?e=1 outbox gateway"),
        ("light", 375, "sessions session?e=1 session?pane=send session?pane=devices outbox gateway"),
    ],
)
async def test_every_view_can_be_used_by_everybody(
    tab: Tab, served: Served, scheme: Literal["light", "dark"], width: int, views: str
) -> None:
    """WCAG AA, as far as axe can tell; and nothing is wider than the window."""
    name = f"order-{scheme}-{width}"
    await order(served, name)
    body = {"id": "pay", "reason": "approval", "message": "Pay 12 EUR?"}
    await served.call("POST", f"/v1/sessions/{name}/requests", json=body)
    await served.publish(name, {"topic": "late"})
    await tab.page.set_viewport_size({"width": width, "height": 800})
    await tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page = await tab.open("#/sessions?q=order-")
    for view in views.split():
        shown = view.replace("session?", f"session/{name}?")
        await page.evaluate("hash => { location.hash = hash }", f"#/{shown}")
        await expect(page.locator("main :is(h1, h2)").first).to_be_visible()
        if "e=1" in view:
            await expect(page.get_by_role("complementary", name="Event")).to_be_visible()
        assert await violations(page) == [], view
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        scrolls = "[...document.querySelectorAll('nav, .wide')].filter((box) => box.scrollWidth > box.clientWidth)"
        assert await page.evaluate(f"{scrolls}.length") == 0, f"a part of {view} is out of sight"
    await tab.page.set_viewport_size({"width": 1280, "height": 800})
