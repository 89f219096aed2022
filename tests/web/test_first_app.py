"""The React page of the tutorial, built as an application is, against a real gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from playwright.async_api import Browser, expect

from tests.docs.markdown import blocks, text
from tests.support import Served
from tests.tokens import SECRET, token
from tests.tokens import bearer as worker
from tests.web.conftest import WEB, Npx
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

MAIN = """
import { createRoot } from "react-dom/client";
import { Tea } from "./Tea.jsx";
createRoot(document.getElementById("root")).render(<Tea session="orders/alice/1" />);
"""
CONFIGURATION = """
export default {
  oxc: { jsx: { runtime: "automatic" } },
  resolve: { conditions: ["@wakeline/source", "module", "browser", "production"] },
};
"""


def build(npx: Npx, folder: Path, url: str) -> None:
    (component,) = blocks(text("docs/how-to/first-app.md"), "jsx")
    (folder / "Tea.jsx").write_text(component.replace("http://localhost:7777", url))
    (folder / "main.jsx").write_text(MAIN)
    (folder / "vite.config.mjs").write_text(CONFIGURATION)
    (folder / "index.html").write_text(
        '<!doctype html><div id="root"></div><script type="module" src="/main.jsx"></script>'
    )
    (folder / "node_modules").symlink_to(WEB / "node_modules")
    npx("react", "vite", "build", str(folder), "--logLevel", "warn")


async def bearer(_: web.Request) -> web.Response:
    return web.json_response(token(exp=time.time() + 4, allow=["read"], sessions=["orders/alice/*"]))


@asynccontextmanager
async def site(dist: Path) -> AsyncIterator[str]:
    """The built page, and the route that the tutorial adds; gives its origin."""
    dist.mkdir()
    application = web.Application()
    application.router.add_post("/bearer", bearer)
    application.router.add_static("/", dist)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def publish(served: Served, words: str, attempt: int) -> None:
    headers = {"Wakeline-Publisher": "r:1", "Wakeline-Run": "r", "Wakeline-Activity": "1", "Wakeline-Sequence": "0"}
    event = {"topic": "letter", "data": words, "message": {"id": "letter", "op": "text"}}
    status, answer = await served.call(
        "POST",
        "/v1/sessions/orders%2Falice%2F1/events",
        json={"events": [event]},
        headers={**headers, "Wakeline-Attempt": str(attempt), **worker()},
    )
    assert status == 200, answer


async def test_the_react_page_shows_a_letter_through_a_retry_and_an_expired_token(
    browser: Browser, npx: Npx, tmp_path: Path
) -> None:
    async with (
        site(tmp_path / "dist") as origin,
        gateway(
            Settings(port=0, engine="memory", token_secret=SECRET, cors_origins=(origin,), open_metrics=True)
        ) as url,
        Served(url) as served,
    ):
        await publish(served, "Dear cust", 1)
        build(npx, tmp_path, url)
        page = await browser.new_page()
        await page.goto(f"{origin}/index.html")
        shown = page.locator("#letter")
        await expect(shown).to_have_text("Dear cust", timeout=60_000)
        expired = time.time() + 4
        while time.time() < expired:
            await asyncio.sleep(0.05)
        await publish(served, "Dear customer", 2)
        await expect(shown).to_have_text("Dear customer", timeout=60_000)
        await page.close()
