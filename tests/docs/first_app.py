"""What a person does with the app of `docs/how-to/first-app.md`, in a real browser."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable

from playwright.async_api import Browser, Error, Page, async_playwright, expect

APP = "http://localhost:8000"
LETTER = "Dear customer, your tea is packed with care. It leaves our house tomorrow morning."
MILLISECONDS = 60_000

_WATCH = """
    const letter = document.getElementById("letter");
    let length = letter.textContent.length;
    new MutationObserver(() => {
      window.shrunk ||= letter.textContent.length < length;
      length = letter.textContent.length;
    }).observe(letter, { childList: true });
"""


async def opened(browser: Browser, url: str) -> Page:
    """A window of somebody who has visited nothing before."""
    page = await (await browser.new_context()).new_page()
    async with asyncio.timeout(60):
        while True:
            try:
                await page.goto(url)
                return page
            except Error:  # the service is only starting
                await asyncio.sleep(0.1)


async def orders_tea(restart: Callable[[str], Awaitable[None]]) -> None:
    """Order tea, reload, open a second window, kill the worker: both windows end with the one letter."""
    expect.set_options(timeout=MILLISECONDS)
    async with async_playwright() as playwright:
        program = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            laptop = await opened(browser, APP)
            await laptop.click("#order")
            await expect(laptop.locator("#letter")).to_contain_text("Dear customer,")
            await laptop.reload()
            phone = await opened(browser, laptop.url)
            for window in (laptop, phone):
                await expect(window.locator("#status")).to_have_text("received")
                await expect(window.locator("#letter")).to_contain_text("Dear customer, your")
                await window.evaluate(_WATCH)
            await restart("python worker.py")
            for window in (laptop, phone):
                await window.wait_for_function("window.shrunk", timeout=MILLISECONDS)  # the first attempt is gone
                await expect(window.locator("#status")).to_have_text("completed")
                await expect(window.locator("#letter")).to_have_text(LETTER)
        finally:
            await browser.close()
