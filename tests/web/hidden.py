"""A page of Chromium without Playwright, which keeps each of its own visible, so that none of them can be frozen."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, CDPSession


class HiddenPage:
    """A page that is driven by the DevTools protocol alone."""

    def __init__(self, devtools: CDPSession, session: str) -> None:
        self._devtools = devtools
        self._session = session
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        devtools.on("Target.receivedMessageFromTarget", self._take)

    async def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol on the page."""
        number = next(self._numbers)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        message = json.dumps({"id": number, "method": method, "params": parameters})
        await self._devtools.send("Target.sendMessageToTarget", {"sessionId": self._session, "message": message})
        answer = await asyncio.wait_for(answered, 60)
        assert "error" not in answer, answer
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, as JSON carries it."""
        answer = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(60):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.05)

    async def freeze(self) -> None:
        """Hide the page and freeze it: its tasks do not run."""
        await self.send("Page.setWebLifecycleState", state="frozen")

    async def resume(self) -> None:
        """Let the page's tasks run again."""
        await self.send("Page.setWebLifecycleState", state="active")

    def _take(self, received: dict[str, Any]) -> None:
        answer = json.loads(received["message"])
        if (waiting := self._answers.pop(answer.get("id", 0), None)) is not None:
            waiting.set_result(answer)


@asynccontextmanager
async def hidden_page(browser: Browser, url: str) -> AsyncIterator[HiddenPage]:
    """Open a page in a context that Playwright does not know."""
    devtools = await browser.new_browser_cdp_session()
    context = (await devtools.send("Target.createBrowserContext"))["browserContextId"]
    target = await devtools.send("Target.createTarget", {"url": url, "browserContextId": context})
    attached = await devtools.send("Target.attachToTarget", {"targetId": target["targetId"], "flatten": False})
    try:
        yield HiddenPage(devtools, attached["sessionId"])
    finally:
        await devtools.send("Target.disposeBrowserContext", {"browserContextId": context})
        await devtools.detach()
