"""@wakeline/client in Chromium: many tabs on one connection, pages that are put away, faulty networks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.soak import SEED
from tests.tokens import bearer, token
from tests.web.conftest import FaultProxies, Site, fault_proxies, relay, site
from tests.web.hidden import hidden_page

# More than a browser's connections to one host, which streams would fill; and several, where nothing fills up.
MANY, SEVERAL = 8, 3
TRANSPORTS = ("auto", "websocket", "sse", "long-poll")
# Schedules of faults; `make faults` tries many more.
SCHEDULES = int(os.environ.get("WAKELINE_SCHEDULES", "12"))
AT_ONCE = 4 if SCHEDULES < 100 else 12
pytestmark = pytest.mark.usefixtures("forks")
NO_WORKER = "delete window.SharedWorker"
NO_LOCKS = "delete window.SharedWorker; Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    made = await browser.new_context()
    yield made
    await made.close()


@pytest.fixture
async def shop(built: Path, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(built, tmp_path / "data") as serving:
        yield serving


async def call(shop: Site, method: str, path: str, body: Any = None) -> Any:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"{shop.gateway.url}/v1/sessions/{path}", json=body, headers=bearer()) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def publish(shop: Site, session: str, count: int) -> None:
    await call(shop, "POST", f"{session}/events", {"events": [{"topic": "n", "data": "x" * 50}] * count})


async def has(page: Page, session: str, count: int) -> None:
    """The page has exactly the session's first events, in order."""
    await page.wait_for_function("([s, n]) => window.got[s].length >= n", arg=[session, count])
    assert await page.evaluate("s => window.got[s]", session) == list(range(count))


async def is_live(page: Page, session: str) -> None:
    await page.wait_for_function("s => window.reading[s].state.status === 'live'", arg=session)


async def has_devices(shop: Site, session: str, count: int) -> None:
    async with asyncio.timeout(60):
        while (await call(shop, "GET", session))["devices"] != count:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("without", "options", "count", "connections"),
    [
        pytest.param("", {}, SEVERAL, 1, id="by a worker"),
        pytest.param(NO_WORKER, {}, SEVERAL, 1, id="by a lock"),
        pytest.param(NO_WORKER, {"transport": "sse"}, MANY, 1, id="by a lock, streams"),
        pytest.param(NO_LOCKS, {}, SEVERAL, SEVERAL, id="each by itself"),
    ],
)
async def test_many_tabs_follow_a_session(
    shop: Site, context: BrowserContext, without: str, options: dict[str, Any], count: int, connections: int
) -> None:
    await context.add_init_script(without)
    await publish(shop, "s", 10)
    tabs = [await shop.open(context, **options) for _ in range(count)]
    for tab in tabs:
        await tab.evaluate("window.read('s')")
    for tab in tabs:
        await is_live(tab, "s")
    assert (await call(shop, "GET", "s"))["devices"] == connections
    await publish(shop, "s", 10)
    for tab in tabs:
        await has(tab, "s", 20)

    # The first tab had the connection, if there is no worker for it.
    await tabs.pop(0).close()
    await publish(shop, "s", 10)
    for tab in tabs:
        await has(tab, "s", 30)
    await call(shop, "POST", "s/close")
    for tab in tabs:
        await tab.wait_for_function("window.reading.s.state.status === 'ended'")
        assert await tab.evaluate("window.got.s") == list(range(31))


async def test_tabs_share_a_token_that_is_given_as_text(shop: Site, context: BrowserContext) -> None:
    await publish(shop, "s", 3)
    given = token(exp=time.time() + 60)
    tabs = [await shop.open(context, token=given) for _ in range(2)]
    for tab in tabs:
        await tab.evaluate("window.read('s')")
        await has(tab, "s", 3)
        await is_live(tab, "s")
    assert (await call(shop, "GET", "s"))["devices"] == 1


async def test_tabs_of_two_people_share_nothing(shop: Site, context: BrowserContext) -> None:
    await publish(shop, "s", 1)
    one, other = await shop.open(context, share="one"), await shop.open(context, share="other")
    for tab in (one, other):
        await tab.evaluate("window.read('s')")
        await is_live(tab, "s")
    assert (await call(shop, "GET", "s"))["devices"] == 2


@pytest.mark.parametrize("without", ["", NO_WORKER], ids=["by a worker", "by a lock"])
async def test_tabs_through_tokens_that_end_and_a_killed_gateway(
    shop: Site, context: BrowserContext, without: str
) -> None:
    await context.add_init_script(without)
    shop.seconds = 1.5
    await publish(shop, "s", 5)
    tabs = [await shop.open(context) for _ in range(2)]
    for tab in tabs:
        await tab.evaluate(
            "window.states = []; window.client.session('s')"
            ".onState(({ status, retry }) => window.states.push(retry === false ? 'over' : status))"
        )
        await tab.evaluate("window.read('s')")
        await has(tab, "s", 5)
    asked, count = shop.asked, 5
    async with asyncio.timeout(60):
        while shop.asked < asked + 3:
            await publish(shop, "s", 1)
            count += 1
            await asyncio.sleep(0.2)
    for tab in tabs:
        await has(tab, "s", count)
        assert not {"ended", "over"} & set(await tab.evaluate("window.states"))
    await shop.gateway.kill()
    await shop.gateway.start()
    await publish(shop, "s", 5)
    for tab in tabs:
        await has(tab, "s", count + 5)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "alone"])
async def test_a_page_that_was_put_away_goes_on_where_it_was(shop: Site, context: BrowserContext, share: bool) -> None:
    await publish(shop, "s", 5)
    page = await shop.open(context, share=share)
    await page.evaluate("window.read('s')")
    await has(page, "s", 5)
    await is_live(page, "s")
    await page.goto("about:blank")
    await publish(shop, "s", 5)
    # A kept page does not load again, which `go_back` would wait for.
    await page.evaluate("void setTimeout(() => history.back(), 100)")  # once this call has its answer
    await page.wait_for_url(shop.url + "/", wait_until="commit")
    # The browser has kept the page, which learns of it a moment after the URL is back.
    await page.wait_for_function("window.shown > 0")
    assert await page.evaluate("window.shown") == 1
    await publish(shop, "s", 5)
    await has(page, "s", 15)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "alone"])
async def test_a_page_that_was_frozen_goes_on_where_it_was(shop: Site, browser: Browser, share: bool) -> None:
    await publish(shop, "s", 5)
    async with hidden_page(browser, shop.url) as page:
        options = {"url": shop.gateway.url, "share": share}
        await page.wait_for("'begin' in window")
        await page.evaluate(f"window.begin({json.dumps(options)}); window.read('s')")
        await page.wait_for("window.reading.s.state.status === 'live'")
        await page.evaluate("document.addEventListener('freeze', () => window.froze = true)")
        await page.freeze()
        # A frozen page could not keep its connection alive.
        await has_devices(shop, "s", 0)
        await publish(shop, "s", 5)
        await page.resume()
        await page.wait_for("window.got.s.length >= 10 && window.reading.s.state.status === 'live'")
        await publish(shop, "s", 5)
        await page.wait_for("window.got.s.length >= 15")
        assert await page.evaluate("[window.froze, window.got.s]") == [True, list(range(15))]


async def test_a_page_that_was_offline_goes_on_where_it_was(shop: Site, context: BrowserContext) -> None:
    await publish(shop, "s", 5)
    page = await shop.open(context, share=False, transport="sse")
    await page.evaluate("window.read('s')")
    await has(page, "s", 5)
    await context.set_offline(True)
    await page.wait_for_function("window.reading.s.state.status === 'offline'")
    await publish(shop, "s", 5)
    await context.set_offline(False)
    await has(page, "s", 10)
    await is_live(page, "s")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_change_of_the_network_finds_a_dead_connection(
    shop: Site, context: BrowserContext, transport: str
) -> None:
    """The device was never offline, and no time-out of the client ends the wait."""
    await publish(shop, "s", 5)
    async with relay(shop.gateway.url) as (way, url):
        waits = {"silence": 600_000, "quiet": 600_000}
        page = await shop.open(context, url=url, share=False, transport=transport, timing=waits)
        await page.evaluate("window.read('s')")
        await has(page, "s", 5)
        await is_live(page, "s")
        way.cut()
        await publish(shop, "s", 5)
        await asyncio.sleep(1)
        assert len(await page.evaluate("window.got.s")) == 5
        network = {"offline": False, "latency": 300, "downloadThroughput": -1, "uploadThroughput": -1}
        devtools = await context.new_cdp_session(page)
        await devtools.send("Network.emulateNetworkConditions", {**network, "connectionType": "cellular3g"})
        await has(page, "s", 10)
        await is_live(page, "s")
        await page.close()


async def test_a_page_whose_connections_have_all_died_reaches_the_gateway(shop: Site, context: BrowserContext) -> None:
    """The browser has as many connections as it may have, and opens another one when it gives up one of them."""
    await publish(shop, "s", 5)
    async with relay(shop.gateway.url) as (way, url):
        page = await shop.open(context, url=url, share=False, transport="sse", timing={"connect": 3_000})
        hold = "(_, n) => window.client.call('GET', '/v1/sessions/s/events', { query: { from: 'now', wait: 2, limit: n + 1 } })"
        await page.evaluate(f"Promise.all(Array.from({{ length: 6 }}, {hold}))")
        way.cut()
        await page.evaluate("window.read('s')")
        await has(page, "s", 5)
        await is_live(page, "s")
        await page.close()


async def follow_through_faults(shop: Site, page: Page, proxies: FaultProxies, seed: int) -> None:
    """Follow some sessions by a client whose connections fail."""
    chance = random.Random(seed)
    timing = {"connect": 600, "silence": 800, "quiet": 300, "pong": 500, "poll": 300, "pause": [5, 100], "avoid": 300}
    names = [f"s{seed}-{n}" for n in range(chance.randint(1, 3))]
    for name in names:
        await publish(shop, name, 20)
    async with proxies.proxy(seed, chance.randint(1, 8)) as url:
        options = {"url": url, "share": False, "transport": chance.choice(TRANSPORTS), "timing": timing}
        await page.evaluate("([options, names]) => window.readBy(options, names)", [options, names])
        for _ in range(3):
            for name in names:
                await publish(shop, name, 10)
            await asyncio.sleep(chance.uniform(0, 0.3))
        for name in names:
            await call(shop, "POST", f"{name}/close")
        for name in names:
            await page.wait_for_function("s => window.reading[s].state.status === 'ended'", arg=name)
            state = json.dumps(await page.evaluate("s => window.reading[s].state", name))
            assert await page.evaluate("s => window.got[s]", name) == list(range(51)), f"seed {seed} {options}: {state}"


@pytest.mark.timeout(3_600)
async def test_every_event_once_through_a_faulty_network(shop: Site, context: BrowserContext) -> None:
    """The form of `web/client/tests/faults.test.ts` in a browser, with its own WebSockets and streams."""
    first = SCHEDULES * SEED
    seeds = iter(range(first, first + SCHEDULES))

    async def some(proxies: FaultProxies) -> None:
        page = await shop.open(context)
        for number, seed in enumerate(seeds):
            await follow_through_faults(shop, page, proxies, seed)
            if number % 100 == 99:
                await page.close()  # it holds what its clients have read
                page = await shop.open(context)

    async with fault_proxies(shop.gateway.url) as proxies, asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, SCHEDULES)):
            group.create_task(some(proxies))
