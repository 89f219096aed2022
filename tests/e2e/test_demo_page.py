"""The demo's page in a real browser, against the real gateway, Temporal and workflows."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from playwright.async_api import Page, expect

from tests.accessibility import violations
from tests.pushes import push_service

DEVICES = ("laptop", "phone")
# Events that an agent writes in a second or so.
MORE = 15


async def events(page: Page, device: str, session: str) -> list[str]:
    raw: list[str] = await page.evaluate("([d, s]) => window.wakeline.events(d, s)", [device, session])
    return raw


async def has_at_least(page: Page, device: str, session: str, count: int) -> None:
    await page.wait_for_function(
        "([d, s, n]) => window.wakeline.events(d, s).length >= n", arg=[device, session, count], timeout=90_000
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


async def all_steps_have_one_row(page: Page) -> None:
    """An order that was approved has all its steps, at 1280 px side by side and in full."""
    steps = page.locator('[data-device="laptop"] [data-slot="order"] .step')
    await expect(steps).to_have_count(7, timeout=60_000)
    boxes = [await step.bounding_box() for step in await steps.all()]
    assert len({box["y"] for box in boxes if box is not None}) == 1, "at 1280 px all steps are in one row"
    cut = "(all) => all.filter((label) => label.scrollWidth > label.clientWidth).length"
    assert await page.locator('[data-device="laptop"] .step .label').evaluate_all(cut) == 0


async def counters_agree(page: Page) -> None:
    """What a device has received, as its cards say, and what it is behind is what was sent."""
    await page.click('[data-toggle="phone"]')
    await page.wait_for_function(
        """() => /[1-9]/.test(document.querySelector('[data-device="phone"] [data-totals] > span:last-child').textContent)"""
    )
    # In one moment: sent, by device the received and the behind, and the sum of its cards.
    sent, *devices = await page.evaluate(
        """() => {
            const count = (text) => Number(text.replaceAll(/[^0-9]/g, ''));
            const devices = ['laptop', 'phone'].map((name) => {
                const device = document.querySelector(`[data-device="${name}"]`);
                const totals = [...device.querySelectorAll('[data-totals] > span')].map((it) => count(it.textContent));
                const cards = [...device.querySelectorAll('[data-count]')].map((it) => Number(it.dataset.count));
                return [totals[0], totals.at(-1), cards.reduce((sum, it) => sum + it, 0)];
            });
            return [count(document.querySelector('[data-counter] > span').textContent), ...devices];
        }"""
    )
    for received, behind, cards in devices:
        assert (received + behind, cards) == (sent, received)


async def test_two_devices_through_an_absence_a_reload_and_a_killed_gateway(demo: str, page: Page) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(demo)
    for device in DEVICES:
        await has_at_least(page, device, "agent-1", 10)

    # The inspector shows the same gateway.
    url = await page.get_by_role("link", name="Inspect the gateway").get_attribute("href")
    assert url is not None
    inspector = await page.context.new_page()
    await inspector.goto(url)
    await expect(inspector.locator('[data-session="agent-1"]')).to_be_visible()
    await inspector.close()

    # The phone goes offline and comes back: it saw nothing meanwhile, and has everything afterwards.
    await page.click('[data-toggle="phone"]')
    gone = len(await events(page, "phone", "agent-1"))
    await has_at_least(page, "laptop", "agent-1", gone + MORE)
    assert len(await events(page, "phone", "agent-1")) <= gone + 3
    await page.click('[data-toggle="phone"]')
    await has_at_least(page, "phone", "agent-1", gone + MORE)

    # The gateway is killed; both devices go on where they were.
    before = len(await events(page, "laptop", "agent-1"))
    await page.click('[data-action="kill"]')
    for device in DEVICES:
        await has_at_least(page, device, "agent-1", before + MORE)

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
    assert len(seen) >= before + MORE

    await expect(page.locator("[data-counter]")).to_have_text(re.compile(r"^sent [\d,]+ · missing 0 · duplicate 0$"))
    assert complaints == []


async def test_the_keys_work_in_the_page_and_an_end_stays_visible(demo: str, page: Page) -> None:
    await page.goto(demo)
    laptop = page.locator('[data-device="laptop"]')
    await has_at_least(page, "laptop", "order-1", 2)
    await page.evaluate(
        """() => {
            const slot = document.querySelector('[data-device="laptop"] [data-slot="order"]');
            const note = () => {
                const card = slot.querySelector("[data-session]");
                if (!card) return;
                const said = [card.dataset.session, card.dataset.status, card.querySelector("footer")?.textContent ?? ""];
                window.noted.push([performance.now(), ...said]);
            };
            window.noted = [];
            new MutationObserver(note).observe(slot, { attributes: true, childList: true, subtree: true });
        }"""
    )
    await page.keyboard.press("t")
    following = laptop.locator('[data-slot="order"] [data-session="order-2"]')
    await expect(following).to_have_attribute("data-status", "waiting", timeout=60_000)
    noted = await page.evaluate("window.noted")
    ended = next(at for at, *said in noted if said[:2] == ["order-1", "terminated"] and "in the demo" in said[2])
    came = next(at for at, name, *_ in noted if name == "order-2")
    assert came - ended > 1000, "the end could be read before the next order came"
    await page.keyboard.press("a")
    await expect(following.locator("footer")).to_contain_text("“approve” from the laptop")

    await page.keyboard.press("o")
    phone = page.locator('[data-device="phone"]')
    await expect(phone).to_have_attribute("data-presence", "offline")
    await page.keyboard.press("Control+k")  # the browser's own
    await expect(page.locator("[data-gateway]")).to_contain_text("0 restarts")
    await page.keyboard.press("K")
    await expect(page.locator("[data-gateway]")).to_contain_text("1 restart", timeout=60_000)


async def test_an_eventsource_needs_no_client_code(old_demo: str, page: Page) -> None:
    """What README promises: a plain EventSource is a complete client, from the first event to the end."""
    await page.goto(old_demo)
    gateway = await page.evaluate(
        """() => new Promise((resolve) => {
            const state = new EventSource('/demo/state');
            state.onmessage = (e) => { state.close(); resolve(JSON.parse(e.data).gateway.url); };
        })"""
    )
    result = await page.evaluate(
        """(url) => new Promise((resolve) => {
            const offsets = [];
            const source = new EventSource(`${url}/v1/sessions/order-1/events?until=settled`);
            source.onmessage = (e) => {
                offsets.push(JSON.parse(e.data).offset);
                if (offsets.length === 2) fetch('/demo/actions/terminate', {method: 'POST'});
            };
            source.onerror = () => source.readyState === EventSource.CLOSED && resolve(offsets);
        })""",
        gateway,
    )
    assert result == list(range(len(result)))
    assert len(result) > 3


async def test_the_page_fits_a_phone_and_the_dark(old_demo: str, page: Page) -> None:
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": 360, "height": 780})
    await page.goto(old_demo)
    await has_at_least(page, "phone", "agent-1", 5)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing sticks out at the side"
    luminance = await page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    )
    assert luminance < 200, "dark when the system is"
    assert await violations(page) == []
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="light")
    assert await violations(page) == []


async def test_a_sleeping_phone_is_notified_of_a_question_wakes_and_answers_it(old_demo: str, page: Page) -> None:
    await page.context.grant_permissions(["notifications"], origin=old_demo)
    await page.goto(old_demo)
    laptop, phone = [page.locator(f'[data-device="{device}"]') for device in DEVICES]
    order = '[data-slot="order"] [data-session="{}"]'.format
    notify = page.locator(".notify")
    # It has its text from the start, and takes keys once the page has the demo's state.
    await expect(notify).to_be_visible()
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

        # An order's payment is rejected on the laptop, so the next order asks while the phone is asleep for certain.
        waiting = laptop.locator('[data-slot="order"] [data-session][data-status="waiting"]')
        rejected = await waiting.get_attribute("data-session")
        assert rejected is not None
        following = f"order-{int(rejected.removeprefix('order-')) + 1}"
        await laptop.locator(f'{order(rejected)} [data-choice="reject"]').click()
        asks = laptop.locator(order(following))
        await expect(asks).to_have_attribute("data-status", "waiting", timeout=60_000)
        notice = phone.locator(f'[data-notified="{following}"]')
        await expect(notice).to_contain_text("Pay 12 EUR to ACME?", timeout=60_000)
        await expect(notice).to_have_count(1)
        await expect(asks.locator("footer")).to_contain_text("waits for an answer")
        async with asyncio.timeout(60):
            while following not in [shown["title"] for shown in browser.shown()]:
                await asyncio.sleep(0.05)

    # By keyboard: a press on the notification wakes the phone, which then has the question.
    await notice.press("Enter")
    await expect(notice).to_have_count(0)
    answered = phone.locator(order(following))
    await answered.get_by_role("group", name="Pay 12 EUR to ACME?").get_by_role("button", name="Approve").press("Enter")
    for card in (asks, answered):
        await expect(card.locator("footer")).to_contain_text("“approve” from the phone")
        await expect(card.get_by_role("button")).to_have_count(0)
        await expect(card.locator(".steps")).to_contain_text("paid")
    await expect(page.locator("[data-counter]")).to_have_text(re.compile(r"missing 0 · duplicate 0$"))
    await all_steps_have_one_row(page)
    await counters_agree(page)
