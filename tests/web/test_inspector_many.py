"""The inspector's list with a hundred thousand sessions, on the store that is the default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, expect

from tests.support import Served, batch
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Append
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.settings import Settings

COUNT = 100_000
PAGE = 100  # sessions in one answer
MOST_ROWS = 40  # in the page, at 800 px
CLOSED = (3, 50_000)
SCROLL = """async (count) => {
  const box = document.querySelector("[aria-label='Sessions, the newest first']").parentElement;
  const foot = document.querySelector(".foot");
  let most = 0;
  while (!foot.textContent.startsWith(`${count.toLocaleString("en")} sessions read`)) {
    box.scrollTo(0, box.scrollHeight);
    await new Promise(requestAnimationFrame);
    most = Math.max(most, box.querySelectorAll("[data-session]").length);
  }
  return most;
}"""


class Requests:
    """The requests for the list that a page makes."""

    def __init__(self, page: Page) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.most = 0
        self._under_way: set[Any] = set()
        page.on("request", self._begin)
        page.on("requestfinished", self._end)
        page.on("requestfailed", self._end)

    def __call__(self, **query: str) -> set[str]:
        """After which sessions the page has asked for more of those with this query."""
        asked = [one for one in self.asked if all(one.get(name) == [value] for name, value in query.items())]
        return {"".join(one.get("after", [])) for one in asked}

    def _begin(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.path == "/v1/sessions":
            self.asked.append(parse_qs(address.query))
            self._under_way.add(request)
            self.most = max(self.most, len(self._under_way))

    def _end(self, request: Request) -> None:
        with suppress(KeyError):
            self._under_way.remove(request)


@pytest.fixture(scope="module")
async def crowded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A gateway with a hundred thousand sessions, of which two are closed."""
    folder = tmp_path_factory.mktemp("many")
    engine = SqliteEngine(folder, durability="process")
    await engine.open()
    for first in range(0, COUNT, 10_000):
        outcomes = await engine.append_each([batch(f"many-{n:05}", n) for n in range(first, first + 10_000)])
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for number in CLOSED:
        await engine.append(Append(f"many-{number:05}", (), close=True))
    await engine.close()
    async with gateway(Settings(port=0, data=str(folder), no_auth=True)) as url, Served(url) as served:
        yield served


async def test_a_hundred_thousand_sessions_are_scrolled_and_searched(crowded: Served, browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(120_000)
    requests = Requests(page)
    await page.goto(crowded.url)
    rows = page.locator("[data-session]")
    await expect(rows.first).to_have_attribute("data-session", f"many-{COUNT - 1:05}")
    assert requests() == {""}, "the list begins with one page"

    # The reader scrolls through some of them: only the rows in the window are in the page.
    assert await page.evaluate(SCROLL, 3_000) <= MOST_ROWS
    assert len(requests()) <= 3_000 // PAGE + 1, "those that were read, and the next ones"

    # A page of sessions is read once, and again only while it is in the window.
    assert await page.evaluate(SCROLL, 8_000) <= MOST_ROWS
    assert len(requests()) <= 8_000 // PAGE + 1
    assert requests.most <= 4, "one that reads on and one that refreshes, and those that have just ended"
    box = page.locator(".rows").last
    await box.evaluate("box => box.scrollTo(0, 46 * 5_000)")
    await expect(page.get_by_role("link", name=f"many-{COUNT - 1 - 5_000:05}")).to_be_visible()
    assert await rows.count() <= MOST_ROWS

    # What is new comes to the top, also in a long list.
    await crowded.publish("newest", {"topic": "n"})
    await box.evaluate("box => box.scrollTo(0, 0)")
    await expect(rows.first).to_have_attribute("data-session", "newest")

    # The gateway searches: the page asks for the matches alone.
    await page.keyboard.press("/")
    await page.keyboard.type("many-0001")
    await expect(page.locator(".foot")).to_contain_text("10 sessions read.")
    assert requests(contains="many-0001") == {""}
    await page.keyboard.press("Escape")
    await page.evaluate("location.hash = '#/sessions?status=closed'")
    await expect(page.locator(".foot")).to_contain_text("1 session read, there are more.", timeout=60_000)
    assert len(requests(status="closed")) <= 20, "the page asks its reader before it reads more"
    await page.get_by_role("button", name="Read on").click()
    await expect(page.locator(".foot")).to_contain_text("2 sessions read.")
    await expect(rows).to_have_count(2)
    await context.close()
