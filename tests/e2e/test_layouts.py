"""The page about domains, cookies and tickets: each of its layouts, through a token that ends, in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import Page

from tests.docs.markdown import blocks, text
from tests.support import Served
from tests.tokens import SECRET, bearer
from wakeline.cli.processes import Process, free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

PAGE = text("docs/operate/layouts.md")
ONE_DOMAIN, SUBDOMAIN = blocks(PAGE, "python")
WATCH_ONE_DOMAIN, WATCH_SUBDOMAIN, WATCH_ANOTHER_SITE = blocks(PAGE, "js")
TOKEN_SECONDS = 8
NGINX = """
daemon off; master_process off; pid {root}/pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
    {server}
}}
"""


def token_for(user: str) -> str:
    scope = {"sessions": ["orders/*"], "allow": ["read"]}
    return jwt.encode({"sub": user, "exp": time.time() + TOKEN_SECONDS, "wakeline": scope}, SECRET, "HS256")


@asynccontextmanager
async def service(code: str, *, domain: str = "example.com") -> AsyncIterator[int]:
    """The page's service, which sets the cookie, with an empty page beside it; gives its port."""
    names: dict[str, Any] = {"token_for": token_for}
    exec(compile(code.replace("example.com", domain), "layouts.md", "exec"), names)
    app: FastAPI = names["app"]
    app.get("/", response_class=HTMLResponse)(lambda: "<!doctype html><title>page</title>")
    app.get("/plain")(lambda: token_for("alice"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def proxy(name: str, root: Path, app: int, gateway: str) -> AsyncIterator[str]:
    """nginx or Caddy with the page's configuration, and other ports; gives the URL of the app."""
    port = free_port()
    (found,) = blocks(PAGE, name)
    for old, new in (("8080", str(port)), ("127.0.0.1:8000", f"127.0.0.1:{app}"), ("http://127.0.0.1:7777", gateway)):
        found = found.replace(old, new)
    configured = root / name
    if name == "nginx":
        configured.write_text(NGINX.format(root=root, server=found))
        command = ["nginx", "-p", str(root), "-c", str(configured), "-e", "stderr"]
    else:
        found = found.replace("127.0.0.1:7777", gateway.removeprefix("http://"))
        configured.write_text(f"{{\n    admin off\n}}\n{found}")
        command = ["caddy", "run", "--config", str(configured), "--adapter", "caddyfile"]
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program is not None, f"no {name}: scripts/need {name} installs it"
    process = Process([program, *command[1:]], environment={**os.environ, "HOME": str(root)})
    await process.start()
    try:
        yield await answering(f"http://localhost:{port}", process)
    finally:
        await process.stop()


async def answering(url: str, process: Process) -> str:
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        while True:
            try:
                async with http.get(url) as answer:
                    assert answer.status == 200
                    return url
            except aiohttp.ClientError:
                assert process.running, "the proxy has ended"
                await asyncio.sleep(0.02)


@asynccontextmanager
async def gateway_for(**settings: Any) -> AsyncIterator[Served]:
    async with (
        gateway(Settings(port=0, engine="memory", token_secret=SECRET, **settings)) as url,
        Served(url) as served,
    ):
        yield served


async def publish(served: Served, data: int) -> None:
    body = {"events": [{"topic": "t", "data": data}]}
    status, answer = await served.call("POST", "/v1/sessions/orders%2F1/events", json=body, headers=bearer())
    assert status == 200, answer


async def watched(page: Page, served: Served, code: str, call: str) -> None:
    """The page's function shows every event once, also those that come when its token has ended."""
    await publish(served, 0)
    await page.evaluate("window.seen = []; window.show = (event) => seen.push(event.data); null")
    await page.add_script_tag(content=code)
    await page.evaluate(f"void {call}")
    await page.wait_for_function("seen.length === 1")
    for live in (1, 0):  # 0 when the token ends
        async with asyncio.timeout(60):
            while await served.metric("wakeline_devices_live") != live:
                await asyncio.sleep(0.02)
    await publish(served, 1)
    await page.wait_for_function("seen.length === 2")
    await publish(served, 2)
    await page.wait_for_function("seen.length === 3")
    assert await page.evaluate("seen") == [0, 1, 2]


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_one_domain_needs_no_address_and_no_credentials(page: Page, tmp_path: Path, name: str) -> None:
    async with (
        gateway_for(trusted_proxies=("127.0.0.1",), open_metrics=True) as served,
        service(ONE_DOMAIN) as app,
        proxy(name, tmp_path, app, served.url) as url,
    ):
        await page.goto(url)
        await page.evaluate("fetch('/token', { method: 'POST' })")
        assert await page.evaluate("document.cookie") == "", "no script of the page reads the token"
        socket = f"new WebSocket('{url.replace('http', 'ws')}/v1/feed')"
        ready = await page.evaluate(
            f"new Promise((done) => {{ {socket}.onmessage = (message) => done(JSON.parse(message.data).type); }})"
        )
        assert ready == "ready", "a WebSocket goes through the proxy, too"
        await watched(page, served, WATCH_ONE_DOMAIN, "watch('orders/1', show)")


async def test_a_subdomain_gets_the_cookie_of_the_whole_domain(page: Page) -> None:
    async with service(SUBDOMAIN, domain="example.localhost") as app:
        origin = f"http://app.example.localhost:{app}"
        async with gateway_for(cors_origins=(origin,), open_metrics=True) as served:
            await page.goto(origin)
            await page.evaluate("fetch('/token', { method: 'POST' })")
            port = served.url.rpartition(":")[2]
            code = WATCH_SUBDOMAIN.replace("https://events.example.com", f"http://events.example.localhost:{port}")
            await watched(page, served, code, "watch('orders/1', show)")


async def test_another_site_gets_a_ticket_for_each_connection(page: Page) -> None:
    async with service(ONE_DOMAIN) as app:
        origin = f"http://localhost:{app}"
        async with gateway_for(cors_origins=(origin,), open_metrics=True) as served:
            await page.goto(origin)
            fetch_token = "async () => (await fetch('/plain')).json()"
            code = WATCH_ANOTHER_SITE
            await watched(page, served, code, f"watch('{served.url}', 'orders/1', {fetch_token}, show)")


def test_every_layout_of_the_table_has_a_section() -> None:
    assert set(re.findall(r"\]\(#([a-z-]+)\)", PAGE)) == {"one-domain", "a-subdomain", "another-site"}
