"""A page behind nginx: its EventSource outlives a token that expires, and the guide's loop outlives the gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page

from tests.docs.markdown import blocks, text
from tests.gateways import GatewayProcess
from tests.support import Served
from tests.tokens import SECRET, bearer, token
from wakeline.cli.processes import Process, free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

CONFIGURATION = """
daemon off; master_process off; pid {root}/pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off; default_type text/html;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root}/pages;
        location /v1/ {{
            proxy_pass {gateway}; proxy_http_version 1.1;
            proxy_set_header Host $http_host; proxy_set_header Connection "";
        }}
    }}
}}
"""
# Counts the streams that the browser has given up for good.
COUNTING = """() => {
    window.seen = []; window.dead = 0;
    window.EventSource = class extends EventSource {
        constructor(url) {
            super(url);
            this.addEventListener("error", () => { window.dead += this.readyState === 2; });
        }
    };
}"""
DOCUMENTS = ("README.md", "docs/how-to/watch-in-a-browser.md")
Behind = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def nginx(root: Path, upstream: str) -> AsyncIterator[str]:
    """nginx before a gateway, with an empty page beside it; gives its URL."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.fail("no nginx: scripts/need nginx installs it")
    port = free_port()
    (root / "pages").mkdir(parents=True)
    (root / "pages" / "index.html").write_text("<!doctype html><title>page</title>")
    (root / "nginx.conf").write_text(CONFIGURATION.format(root=root, port=port, gateway=upstream))
    process = Process([program, "-p", str(root), "-c", str(root / "nginx.conf"), "-e", "stderr"])
    await process.start()
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(60):
            while True:
                try:
                    async with http.get(f"http://127.0.0.1:{port}/"):
                        break
                except aiohttp.ClientError:
                    assert process.running, "nginx has ended"
                    await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        await process.stop()


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    async with AsyncExitStack() as stack:

        async def start(upstream: str) -> str:
            return await stack.enter_async_context(nginx(tmp_path / "nginx", upstream))

        yield start


async def test_the_loop_of_readme_and_guide_outlives_a_gateway_that_is_killed(
    page: Page, behind: Behind, tmp_path: Path
) -> None:
    loop, in_the_guide = (blocks(text(document), "js")[-1] for document in DOCUMENTS)
    assert loop == in_the_guide
    function = loop[: loop.index("\n}") + 2]
    running = GatewayProcess(tmp_path / "data")
    await running.start()
    try:
        proxied = await behind(running.url)
        async with Served(running.url) as served:
            await served.publish("s", {"topic": "t", "data": 0}, {"topic": "t", "data": 1})
        await page.goto(proxied)
        await page.evaluate(COUNTING)
        await page.add_script_tag(content=function)
        await page.evaluate("watch('/v1/sessions/s/events', (event) => { window.seen.push(event.data); })")
        await page.wait_for_function("window.seen.length === 2")
        await running.kill()
        await page.wait_for_function("window.dead > 0")  # nginx's own 502: the browser has given up for good
        await running.start()
        async with Served(running.url) as served:
            await served.publish("s", {"topic": "t", "data": 2})
            await page.wait_for_function("window.seen.length === 3")
            await served.publish("s", {"topic": "t", "data": 3})
        await page.wait_for_function("window.seen.length === 4")
        assert await page.evaluate("window.seen") == [0, 1, 2, 3]
    finally:
        await running.kill()


async def test_an_eventsource_outlives_a_token_that_has_expired(page: Page, behind: Behind, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"port": 0, "engine": "memory", "token_secret": SECRET}
    async with gateway(Settings(**settings)) as url, Served(url) as served:
        event = {"events": [{"topic": "t", "data": "there"}]}
        assert (await served.call("POST", "/v1/sessions/s/events", json=event, headers=bearer()))[0] == 200
        proxied = await behind(url)

        async def sign_in(expires: float) -> None:
            value = token(exp=time.time() + expires)
            await page.context.add_cookies([{"name": "wakeline_token", "value": value, "url": proxied}])

        await sign_in(-1)
        await page.goto(proxied)
        await page.evaluate(
            "window.seen = []; window.told = [];"
            "window.events = new EventSource('/v1/sessions/s/events');"
            "events.onmessage = (message) => seen.push(JSON.parse(message.data).data);"
            "events.addEventListener('error', (error) => error.data && told.push(JSON.parse(error.data).error.code));"
        )
        await page.wait_for_function("window.told.length > 0")
        await sign_in(600)
        await page.wait_for_function("window.seen.length === 1")
        assert await page.evaluate("[seen, [...new Set(told)], events.readyState]") == [["there"], ["token_expired"], 1]
