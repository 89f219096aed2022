"""The guide's service worker in a real browser shows what the gateway has pushed; a repeated push replaces the first."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from playwright.async_api import Page

from tests.docs.markdown import blocks, text
from tests.pushes import channel, push_service
from tests.unit.conftest import Serve, kept_in, serve
from wakeline.gateway.rules import Notify

__all__ = ["kept_in", "serve"]

_SHOWN = """async () => {
  const { active } = await navigator.serviceWorker.ready
  const found = await (await navigator.serviceWorker.ready).getNotifications()
  return active && found.map(({ title, body, tag, data }) => ({ title, body, tag, data }))
}"""


async def site() -> tuple[web.AppRunner, str]:
    """A site with the guide's service worker."""
    worker = blocks(text("docs/how-to/web-push.md"), "js")[1]

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<title>app</title>", content_type="text/html")

    async def script(request: web.Request) -> web.Response:
        return web.Response(text=worker, content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/worker.js", script)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def pushed(serve: Serve) -> dict[str, Any]:
    """The message of a push that a gateway has sent."""
    async with push_service() as service:
        rules = {"alerts": Notify(topics=("alert",), users=("",), grace=0)}
        served = await serve(notify=rules, channels={"phones": channel()})
        browser = service.browser("phone")
        await browser.subscribe(served)
        await served.publish("order-1", {"topic": "alert", "data": "Fire!"})
        async with asyncio.timeout(60):
            while not browser.received:
                await asyncio.sleep(0.02)
        return browser.read(browser.received[0])


async def test_the_service_worker_shows_what_was_pushed(page: Page, serve: Serve) -> None:
    message = await pushed(serve)
    runner, origin = await site()
    try:
        await page.context.grant_permissions(["notifications"], origin=origin)
        developer = await page.context.new_cdp_session(page)
        registered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def updated(event: dict[str, Any]) -> None:
            for registration in event["registrations"]:
                if registration["scopeURL"] == f"{origin}/" and not registered.done():
                    registered.set_result(registration["registrationId"])

        developer.on("ServiceWorker.workerRegistrationUpdated", updated)
        await developer.send("ServiceWorker.enable")
        await page.goto(f"{origin}/")
        await page.evaluate("() => navigator.serviceWorker.register('/worker.js').then(() => null)")
        await page.evaluate("() => navigator.serviceWorker.ready.then(() => null)")
        name = await asyncio.wait_for(registered, 60)
        for _ in range(2):
            await developer.send(
                "ServiceWorker.deliverPushMessage",
                {"origin": origin, "registrationId": name, "data": json.dumps(message)},
            )
        async with asyncio.timeout(60):
            while not (shown := await page.evaluate(_SHOWN)):
                await asyncio.sleep(0.05)
    finally:
        await runner.cleanup()
    wanted = message["notification"]
    assert shown == [
        {
            "title": "order-1",
            "body": "Fire!",
            "tag": wanted["tag"],
            "data": {**wanted["data"], "navigate": "https://app.example.com/?session=order-1"},
        }
    ]
