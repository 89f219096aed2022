"""The page of an answer link in a real browser: at phone width, by touch and by keyboard, in light and dark."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page

from tests.accessibility import violations
from tests.receivers import receiver
from tests.unit.conftest import Serve, kept_in, serve
from wakeline.gateway.rules import Notify

__all__ = ["kept_in", "serve"]

MESSAGE = "Pay 12,400.00 EUR to ACME Industrial Supplies GmbH?\nInvoice 2026-1129, due today."
REQUESTS = "/v1/sessions/order-1/requests"


@pytest.fixture
async def phone(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    opened = await context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    await context.close()


async def picture(page: Page, name: str) -> None:
    """Keep a picture for people to look at, if they want some."""
    if folder := os.environ.get("WAKELINE_TEST_PICTURES"):
        await page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_tap_answers(serve: Serve, phone: Page, scheme: Literal["light", "dark"]) -> None:
    async with receiver() as hook:
        served = await serve(
            notify={"asks": Notify(topics=("$input.requested",), grace=0, links=True)},
            channels={"ops": hook.channel()},
            outgoing_networks=("127.0.0.1",),
            public_url="https://wakeline.example.com",
        )
        body = {"id": "q1", "reason": "approval", "message": MESSAGE, "choices": ["Approve", "Reject"]}
        code, said = await served.call("POST", REQUESTS, json={**body, "audience": ["ada"], "expires_in": 3600})
        assert code == 200, said
        (notified,) = await hook.until(1)
    loaded: list[str] = []
    errors: list[str] = []
    phone.on("request", lambda request: loaded.append(request.url))
    phone.on("console", lambda message: errors.append(message.text))
    await phone.emulate_media(color_scheme=scheme)
    url = served.url + urlsplit(notified.data["answers"][0]["url"]).path
    for _ in range(2):
        await phone.goto(url)
    assert await phone.locator("h1").inner_text() == MESSAGE
    assert await phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off"
    assert await phone.evaluate("getComputedStyle(document.querySelector('button')).minHeight") == "48px", (
        "it is styled"
    )
    assert (await served.call("GET", f"{REQUESTS}/q1"))[1]["status"] == "open"
    await picture(phone, f"open-{scheme}")
    assert await violations(phone) == []
    if scheme == "light":
        await phone.get_by_role("button", name="Approve").tap()
    else:
        await phone.keyboard.press("Tab")
        await picture(phone, "focus-dark")
        await phone.keyboard.press("Enter")
    await phone.get_by_role("status").wait_for()
    assert await phone.get_by_role("status").inner_text() == "Answered: Approve, by ada"
    await picture(phone, f"answered-{scheme}")
    assert await violations(phone) == []
    assert (await served.call("GET", f"{REQUESTS}/q1"))[1]["outcome"]["device"] == "link"
    assert await phone.get_by_role("button").count() == 0
    assert set(loaded) == {url}, "the page is all that is loaded"
    assert errors == []
    await phone.goto(served.url + "/v1/answers/unknown")
    await picture(phone, f"unknown-{scheme}")
    assert await violations(phone) == []
    assert await phone.locator("h1").inner_text() == "This link is not valid"
