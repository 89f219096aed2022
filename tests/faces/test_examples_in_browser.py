"""The pages of the examples in a browser: laptop and phone show the same, letter for letter, through all faults."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from examples.chat_ai_sdk import workflows
from examples.chat_ai_sdk.play import served
from playwright.async_api import Browser, BrowserContext, Page, expect
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.e2e.conftest import browser
from tests.faces.chats import END, STOPPED, gateway, script
from tests.faces.test_ag_ui import WORDS
from tests.nodejs import NODE, environment, install
from wakeline.cli.processes import free_port

__all__ = ["browser"]

EXAMPLES = Path(__file__).parents[2] / "examples"


@asynccontextmanager
async def site(folder: Path, gateway: str) -> AsyncIterator[str]:
    """The page in a folder, served by Vite as its example does."""
    install(folder)
    async with vite(folder, free_port(), WAKELINE=gateway) as url:
        yield url


@asynccontextmanager
async def vite(folder: Path, port: int, **variables: str) -> AsyncIterator[str]:
    """A page whose packages are installed, served by Vite."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), "node_modules/vite/bin/vite.js", "--port", str(port), "--strictPort", "--host", "127.0.0.1"),
        cwd=folder,
        env=environment(**variables, NO_COLOR="1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"ready in" not in (line := await process.stdout.readline()):
                assert line, "expected Vite to start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.communicate()


async def opened(context: BrowserContext, url: str) -> Page:
    page = await context.new_page()
    page.set_default_timeout(60_000)
    await page.goto(url)
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_placeholder("weather").fill(text)
    await page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("name", ["chat_ai_sdk", "chat_ag_ui"])
async def test_laptop_and_phone_show_the_same(
    client: Client, browser: Browser, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect.set_options(timeout=60_000)
    model, seen = workflows.model, asyncio.Event()

    async def hanging_up_late(text: str, attempt: int) -> AsyncIterator[str]:
        """Answer as the example's model does, and break off once the page has shown what was said."""
        try:
            async for word in model(text, attempt):
                yield word
        except ConnectionError:
            await seen.wait()
            raise

    monkeypatch.setattr(workflows, "model", hanging_up_late)
    async with served(client, f"page-{name}") as gateway, site(EXAMPLES / name / "page", gateway) as url:
        laptop = await opened(await browser.new_context(), url)
        await say(laptop, "How is the weather?")
        await expect(laptop.get_by_text("It is snow")).to_be_visible()
        seen.set()
        await laptop.reload()
        phone = await opened(await browser.new_context(), laptop.url)
        for page in (laptop, phone):
            await expect(page.get_by_text("It is sunny in Oslo.")).to_be_visible()
            await expect(page.get_by_text("snow")).to_have_count(0)
        await say(phone, "Please pay the bill.")
        await expect(phone.get_by_role("button", name="Approve")).to_be_visible()
        await refused(gateway, laptop.url.partition("#")[2], "yes", {"approved": True}, None)
        await phone.get_by_role("button", name="Approve").click()
        await expect(phone.get_by_text("The bill is paid.")).to_be_visible()
        if name == "chat_ag_ui":  # the other page sees by itself what a device has sent
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


async def refused(gateway: str, chat: str, *payloads: Any) -> None:
    """Answer the chat's only request in ways that its activity does not know."""
    async with aiohttp.ClientSession(gateway) as http:
        async with http.get(f"/v1/sessions/{chat}/requests") as answer:
            (request,) = (await answer.json())["requests"]
        for payload in payloads:
            async with http.post(f"/v1/sessions/{chat}/requests/{request['id']}", json={"payload": payload}) as answer:
                assert answer.status == 400, await answer.text()


async def says(page: Page, *answers: str) -> None:
    """Wait until these are the answers on the screen, letter for letter."""
    shown = list[str]()
    try:
        async with asyncio.timeout(60):
            while shown != list(answers):
                shown = [text for text in await page.locator(".assistant").all_text_contents() if text]
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert shown == list(answers), await page.locator("body").inner_text()


@pytest.mark.parametrize("name", ["chat_ai_sdk", "chat_ag_ui"])
async def test_a_stop_and_a_killed_gateway_lose_no_letter(
    temporal: WorkflowEnvironment, browser: Browser, tmp_path: Path, chat: str, forks: None, name: str
) -> None:
    expect.set_options(timeout=60_000)
    async with (
        gateway(temporal, tmp_path, WAKELINE_FACES=STOPPED) as running,
        site(EXAMPLES / name / "page", running.url) as url,
    ):
        laptop = await opened(await browser.new_context(), f"{url}/#{chat}")
        await say(laptop, "How is the weather?")
        for count in range(1, len(WORDS) - 2):
            script(chat, ("say", WORDS[count - 1]))
            await says(laptop, "".join(WORDS[:count]))
        phone = await opened(await browser.new_context(), laptop.url)
        pages, said = (laptop, phone), "".join(WORDS[: len(WORDS) - 3])
        await says(phone, said)

        # The gateway is killed in the middle of the answer: what was said stays, and the answer goes on where it was.
        await running.kill()
        script(chat, *(("say", words) for words in WORDS[-3:]))
        for page in pages:
            await expect(page.get_by_role("button", name="The connection was cut.")).to_be_visible()
            await says(page, said)
        await running.start()
        for page in pages:
            if name == "chat_ag_ui":  # the other page connects by itself
                await page.get_by_role("button", name="The connection was cut.").click()
            await says(page, "".join(WORDS))

        # One device stops it: both show what was said until then, and the chat goes on.
        await phone.get_by_role("button", name="Stop").click()
        for page in pages:
            await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
            await says(page, "".join(WORDS))
        script(chat, ("say", "Sunny."), END)
        await say(laptop, "And tomorrow?")
        await says(laptop, "".join(WORDS), "Sunny.")
        if name == "chat_ag_ui":
            await phone.reload()
        await says(phone, "".join(WORDS), "Sunny.")
        for page in pages:
            await page.context.close()
