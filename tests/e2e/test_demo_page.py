"""The demo's page in a real browser, against the real gateway, Temporal and workflows."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from playwright.async_api import Page, expect

from tests.pushes import push_service

DEVICES = ("laptop", "phone")


async def events(page: Page, device: str, session: str) -> list[str]:
    raw: list[str] = await page.evaluate("([d, s]) => window.wakeline.events(d, s)", [device, session])
    return raw


async def has_at_least(page: Page, device: str, session: str, count: int) -> None:
    await page.wait_for_function(
        "([d, s, n]) => window.wakeline.events(d, s).length >= n", arg=[device, session, count], timeout=30_000
    )


async def to_the_end(page: Page, session: str) -> tuple[list[str], str]:
    """Both devices' events of an ended session, which must be the same bytes; and how it ended."""
    for device in DEVICES:
        await page.wait_for_function(
            "([d, s]) => window.wakeline.events(d, s).some((e) => JSON.parse(e).topic === '$session.settled')",
            arg=[device, session],
            timeout=60_000,
        )
    laptop, phone = [await events(page, device, session) for device in DEVICES]
    assert laptop == phone
    parsed: list[dict[str, Any]] = [json.loads(e) for e in laptop]
    assert [e["offset"] for e in parsed] == list(range(len(parsed)))
    return laptop, next(e["data"]["status"] for e in parsed if e["topic"] == "$run.closed")


async def test_two_devices_through_an_absence_a_reload_and_a_killed_gateway(page: Page, demo: str) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(demo)
    for device in DEVICES:
        await has_at_least(page, device, "agent-1", 10)

    # The phone goes offline and comes back: it saw nothing meanwhile, and has everything afterwards.
    await page.click('[data-toggle="phone"]')
    gone = len(await events(page, "phone", "agent-1"))
    await has_at_least(page, "laptop", "agent-1", gone + 40)
    assert len(await events(page, "phone", "agent-1")) <= gone + 3
    await page.click('[data-toggle="phone"]')
    await has_at_least(page, "phone", "agent-1", gone + 40)

    # The gateway is killed; both devices go on where they were.
    before = len(await events(page, "laptop", "agent-1"))
    await page.click('[data-action="kill"]')
    for device in DEVICES:
        await has_at_least(page, device, "agent-1", before + 40)

    # A reload begins from nothing and has it all.
    seen = await events(page, "laptop", "agent-1")
    await page.reload()
    for device in DEVICES:
        await has_at_least(page, device, "agent-1", len(seen))
    assert (await events(page, "laptop", "agent-1"))[: len(seen)] == seen

    # An operator terminates the workflows that have run longest; both devices are told so.
    for session in ("order-1", "agent-1"):
        await page.click('[data-action="terminate"]')
        log, status = await to_the_end(page, session)
        assert status in ("terminated", "completed")
    assert log[: len(seen)] == seen, "what was watched before the end is in it, byte for byte"
    assert len(seen) >= before + 40

    await expect(page.locator("[data-counter]")).to_have_text(re.compile(r"^sent [\d,]+ · missing 0 · duplicate 0$"))
    assert complaints == []


async def test_an_eventsource_needs_no_client_code(page: Page, demo: str) -> None:
    """What README promises: a plain EventSource is a complete client, from the first event to the end."""
    await page.goto(demo)
    gateway = await page.evaluate(
        """() => new Promise((resolve) => {
            const state = new EventSource('/demo/state');
            state.onmessage = (e) => { state.close(); resolve(JSON.parse(e.data).gateway.url); };
        })"""
    )
    result = await page.evaluate(
        """(url) => new Promise((resolve) => {
            const offsets = [];
            setTimeout(() => fetch('/demo/actions/terminate', {method: 'POST'}), 2000);
            const source = new EventSource(`${url}/v1/sessions/order-1/events?until=settled`);
            source.onmessage = (e) => offsets.push(JSON.parse(e.data).offset);
            source.onerror = () => source.readyState === EventSource.CLOSED && resolve(offsets);
        })""",
        gateway,
    )
    assert result == list(range(len(result)))
    assert len(result) > 3


async def test_the_page_fits_a_phone_and_the_dark(page: Page, demo: str) -> None:
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": 360, "height": 780})
    await page.goto(demo)
    await has_at_least(page, "phone", "agent-1", 5)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing sticks out at the side"
    luminance = await page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    )
    assert luminance < 200, "dark when the system is"


async def test_a_sleeping_phone_is_notified_of_a_question_wakes_and_answers_it(page: Page, demo: str) -> None:
    await page.goto(demo)
    laptop, phone = [page.locator(f'[data-device="{device}"]') for device in DEVICES]
    order = '[data-slot="order"] [data-session="{}"]'.format
    await page.click('[data-toggle="phone"]')

    # The first order's payment is rejected on the laptop, so the next order asks while the phone is asleep for certain.
    await laptop.locator(f'{order("order-1")} [data-choice="reject"]').click()
    asks = laptop.locator(order("order-2"))
    await expect(asks).to_have_attribute("data-status", "waiting", timeout=30_000)
    notice = phone.locator('[data-notified="order-2"]')
    await expect(notice).to_contain_text("Pay 12 EUR to ACME?", timeout=30_000)
    await expect(asks.locator("footer")).to_contain_text("waits for an answer")

    # By keyboard: a press on the notification wakes the phone, which then has the question.
    await notice.press("Enter")
    await expect(notice).to_have_count(0)
    answered = phone.locator(order("order-2"))
    await answered.get_by_role("group", name="Pay 12 EUR to ACME?").get_by_role("button", name="Approve").press("Enter")
    for card in (asks, answered):
        await expect(card.locator("footer")).to_contain_text("“approve” from the phone")
        await expect(card.get_by_role("button")).to_have_count(0)
        await expect(card.locator(".steps")).to_contain_text("paid")
    await expect(page.locator("[data-counter]")).to_have_text(re.compile(r"missing 0 · duplicate 0$"))


async def test_a_browser_with_a_push_service_is_notified_too(page: Page, demo: str) -> None:
    await page.context.grant_permissions(["notifications"], origin=demo)
    await page.goto(demo)
    notify = page.locator(".notify")
    await expect(notify).to_have_text("Notify this browser, too")
    async with push_service() as service:
        browser = service.browser("browser")
        # Debian's Chromium has no push service; this one gives it the test's.
        await page.evaluate(
            """(subscription) => { PushManager.prototype.subscribe = async () => ({ toJSON: () => subscription }) }""",
            browser.subscription(),
        )
        await notify.press("Enter")
        await expect(notify).to_have_text("This browser is notified, too")
        await page.click('[data-toggle="phone"]')
        await page.click(
            '[data-device="laptop"] [data-choice="reject"]'
        )  # the next order asks while the phone is asleep
        await expect(page.locator('[data-notified="order-2"]')).to_have_count(1, timeout=30_000)
        async with asyncio.timeout(30):
            while "order-2" not in [shown["title"] for shown in browser.shown()]:
                await asyncio.sleep(0.05)
