"""The chat of the guide for frontends: its program, settings and component as they are printed, in a browser."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from tests.docs.markdown import blocks, text
from tests.e2e.conftest import browser
from tests.faces.pages import FOLDER
from tests.faces.test_examples_in_browser import EXAMPLES, opened, vite
from tests.nodejs import NODE, environment, install
from wakeline.cli.processes import free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import load

__all__ = ["browser"]

GUIDE = text("docs/how-to/chat-frontends.md")
CHAT = "chat-42"
LONG = "Tell me " + "a long story " * 700
# As Vite's template has them.
MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import App from "./App.jsx";
createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
"""
INDEX = '<!doctype html><div id="root"></div><script type="module" src="/src/main.jsx"></script>'
CONFIGURATION = """
export default { esbuild: { jsx: "automatic" }, cacheDir: "./cache", server: { fs: { strict: false } } };
"""


def printed(file: str) -> str:
    """The code of a file of the guide."""
    (code,) = (
        code
        for kind in ("python", "jsx", "js")
        for code in blocks(GUIDE, kind)
        if re.match(rf"(?:#|//) {re.escape(file)}\n", code)
    )
    return code


class Guide:
    """The guide's worker and gateway.

    Attributes:
        url: The gateway.
        page: The address of the page.
    """

    def __init__(self, url: str, page: str) -> None:
        self.url = url
        self.page = page


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a program of the guide."""

    def module(name: str) -> Any:
        (tmp_path / f"guide_{name}.py").write_text(printed(f"{name}.py"))
        return importlib.import_module(f"guide_{name}")

    monkeypatch.syspath_prepend(tmp_path)
    return module


@pytest.fixture
async def served(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guide]:
    """The guide's gateway, with its settings."""
    (toml,) = (code for code in blocks(GUIDE, "toml") if "[faces.chat]" in code)
    page = f"http://127.0.0.1:{free_port()}"
    toml = toml.replace("localhost:7233", client.service_client.config.target_host)
    toml = toml.replace("http://localhost:5173", page)
    (tmp_path / "wakeline.toml").write_text(f'port = 0\nno_auth = true\ndata = "{tmp_path}/data"\n{toml}')
    async with gateway(load(file=tmp_path / "wakeline.toml", environment={})) as url:
        monkeypatch.setenv("WAKELINE_URL", url)
        yield Guide(url, page)
        handle: Any = client.get_workflow_handle(CHAT)
        with suppress(RPCError):
            await handle.terminate()


@pytest.fixture
async def pages(served: Guide, browser: Browser, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Page]]]:
    """Opens the guide's component in the template of Vite, on another device each time."""
    folder = tmp_path / "page"
    (folder / "src").mkdir(parents=True)
    files = {"index.html": INDEX, "vite.config.mjs": CONFIGURATION, "src/main.jsx": MAIN}
    component = printed("src/App.jsx").replace("http://127.0.0.1:7777", served.url)
    for name, code in {**files, "src/App.jsx": component}.items():
        (folder / name).write_text(code)
    install(EXAMPLES / "chat_ai_sdk/page")
    (folder / "node_modules").symlink_to(EXAMPLES / "chat_ai_sdk/page/node_modules")
    expect.set_options(timeout=60_000)
    async with AsyncExitStack() as stack, vite(folder, int(served.page.rpartition(":")[2])) as url:

        async def page() -> Page:
            context = await browser.new_context()
            stack.push_async_callback(context.close)
            return await opened(context, url)

        yield page


async def say(page: Page, words: str) -> None:
    await page.locator("input").fill(words)
    await page.get_by_role("button", name="Send").click()


async def test_devices_see_each_other_s_messages_and_a_stop_reaches_the_model(
    client: Client,
    modules: Callable[[str], Any],
    served: Guide,
    pages: Callable[[], Awaitable[Page]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat = modules("chat")
    ended = asyncio.Event()
    how: dict[str, Any] = {"max_heartbeat_throttle_interval": timedelta(seconds=1)}

    @activity.defn(name="answer")
    async def answer(message: dict[str, Any]) -> str:
        try:
            said: str = await chat.answer(message)
        finally:
            ended.set()
        return said

    async with Worker(client, task_queue="chats", workflows=[chat.Chat], activities=[answer], **how):
        laptop, phone = await pages(), await pages()
        await say(laptop, "hello")
        for page in (laptop, phone):  # the phone was open before the first message, and nobody touches it
            await expect(page.locator(".user")).to_have_text("hello")
            await expect(page.locator(".assistant")).to_have_text("You said: hello ")
        ended.clear()
        await say(phone, LONG)
        for page in (laptop, phone):
            await expect(page.locator(".assistant").nth(1)).to_contain_text("a long story")
        await laptop.get_by_role("button", name="Stop").click()
        await asyncio.wait_for(ended.wait(), 60)
        for page in (laptop, phone):
            await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        await say(laptop, "and now?")
        for page in (laptop, phone):
            await expect(page.locator(".assistant").nth(2)).to_have_text("You said: and now? ")


async def test_approvals_are_answered_on_the_page_and_nothing_else_is_accepted(
    client: Client, modules: Callable[[str], Any], served: Guide, pages: Callable[[], Awaitable[Page]]
) -> None:
    chat, pay = modules("chat"), modules("pay")
    outcomes = list[str]()

    @activity.defn(name="answer")
    async def answer(message: dict[str, Any]) -> str:
        outcomes.append(await pay.pay(message))
        return outcomes[-1]

    async with (
        Worker(client, task_queue="chats", workflows=[chat.Chat], activities=[answer]),
        aiohttp.ClientSession(served.url) as http,
    ):
        laptop, phone = await pages(), await pages()
        for button in ("Approve", "Deny"):
            await say(laptop, "pay the bill")
            for page in (laptop, phone):
                await expect(page.get_by_text("Pay 12 EUR?")).to_be_visible()
            async with http.get(f"/v1/sessions/{CHAT}/requests") as answered:
                (request,) = (await answered.json())["requests"]
            path = f"/v1/sessions/{CHAT}/requests/{request['id']}"
            for wrong in ("yes", {"approved": True}, None):
                async with http.post(path, json={"payload": wrong}) as answered:
                    assert answered.status == 400, await answered.text()
            await phone.get_by_role("button", name=button).click()
            for page in (laptop, phone):
                await expect(page.get_by_text("Pay 12 EUR?")).to_have_count(0)
                await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert outcomes == ["paid", "not paid"]


async def test_the_agent_of_ag_ui_has_the_answer(
    client: Client, modules: Callable[[str], Any], served: Guide, tmp_path: Path
) -> None:
    chat = modules("chat")
    install(FOLDER)
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    (tmp_path / "agent.mjs").write_text(printed("agent.js").replace("http://127.0.0.1:7777", served.url))
    (tmp_path / "run.mjs").write_text(
        """
import { agent } from "./agent.mjs";
agent.addMessage({ id: "u1", role: "user", content: "hello" });
await agent.runAgent();
console.log(JSON.stringify(agent.messages.map((message) => message.content)));
"""
    )
    async with Worker(client, task_queue="chats", workflows=[chat.Chat], activities=[chat.answer]):
        node = await asyncio.create_subprocess_exec(
            *(str(NODE), "run.mjs"), cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE
        )
        shown, _ = await asyncio.wait_for(node.communicate(), 60)
    assert json.loads(shown) == ["hello", "You said: hello "]
