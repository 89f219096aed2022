"""The pages of the examples in a browser: laptop and phone show the same, through a reload and a taken-back attempt."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from examples.chat_ai_sdk.play import served
from playwright.async_api import Browser, BrowserContext, Page, expect
from temporalio.client import Client

from tests.e2e.conftest import browser
from tests.nodejs import NODE, environment, install
from wakeline.cli.processes import free_port

__all__ = ["browser"]

EXAMPLES = Path(__file__).parents[2] / "examples"


@asynccontextmanager
async def site(folder: Path, gateway: str) -> AsyncIterator[str]:
    """The page in a folder, served by Vite as its example does."""
    install(folder)
    port = free_port()
    vite = await asyncio.create_subprocess_exec(
        *(str(NODE), "node_modules/vite/bin/vite.js", "--port", str(port), "--strictPort", "--host", "127.0.0.1"),
        cwd=folder,
        env=environment(WAKELINE=gateway, NO_COLOR="1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert vite.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"ready in" not in (line := await vite.stdout.readline()):
                assert line, "expected Vite to start"
        yield f"http://127.0.0.1:{port}"
    finally:
        vite.kill()
        await vite.communicate()


async def opened(context: BrowserContext, url: str) -> Page:
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await page.goto(url)
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_placeholder("weather").fill(text)
    await page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("name", ["chat_ai_sdk", "chat_ag_ui"])
async def test_laptop_and_phone_show_the_same(client: Client, browser: Browser, name: str) -> None:
    expect.set_options(timeout=60_000)
    async with served(client, f"page-{name}") as gateway, site(EXAMPLES / name / "page", gateway) as url:
        laptop = await opened(await browser.new_context(), url)
        await say(laptop, "How is the weather?")
        await expect(laptop.get_by_text("It is snow")).to_be_visible()
        await laptop.reload()
        phone = await opened(await browser.new_context(), laptop.url)
        for page in (laptop, phone):
            await expect(page.get_by_text("It is sunny in Oslo.")).to_be_visible()
            await expect(page.get_by_text("snow")).to_have_count(0)
        await say(phone, "Please pay the bill.")
        await phone.get_by_role("button", name="Approve").click()
        await expect(phone.get_by_text("The bill is paid.")).to_be_visible()
        await laptop.reload()
        await expect(laptop.get_by_text("The bill is paid.")).to_be_visible()
        await say(laptop, "Please count.")
        await expect(laptop.get_by_text("1 2 3 4")).to_be_visible()
        await laptop.get_by_role("button", name="Stop").click()
        await expect(laptop.get_by_role("button", name="Stop")).to_have_count(0)
        await expect(laptop.get_by_text(" 299")).to_have_count(0)
        await expect(laptop.get_by_text("How is the weather?")).to_have_count(1)
        for page in (laptop, phone):
            await expect(page.get_by_text(re.compile("^Payment: .*"))).to_have_count(1)
            await page.context.close()
        await client.get_workflow_handle(laptop.url.partition("#")[2]).terminate()
