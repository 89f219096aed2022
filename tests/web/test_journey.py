"""A laptop and a phone follow a workflow through all that happens to devices, and show the same at its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, TimeoutError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.faces.chats import script
from tests.faces.workflows import Answer, model
from tests.tokens import token
from tests.web.conftest import Relay, Site, relay, site

LAPTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SECONDS = 8.0  # of a token; a busy machine takes seconds for a new connection

# Returns the text of the page, the states of its readings, and when its last requests began, how long each took, its status.
FOUND = """() => JSON.stringify({
  screen: document.querySelector("pre").textContent,
  states: [...window.states],
  view: window.view.state,
  readings: Object.values(window.reading).map(({ state }) => state),
  network: navigator.onLine,
  asked: window.asked,
  now: Math.round(performance.now()),
  requests: performance.getEntriesByType("resource").slice(-40).map((it) =>
    `${Math.round(it.startTime)} +${Math.round(it.duration)}: ${it.responseStatus} ${it.name}`),
}, null, 1)"""

pytestmark = pytest.mark.usefixtures("forks")


class Screen:
    """What one device shows of a session."""

    def __init__(self, page: Page, way: Relay, session: str, options: dict[str, Any]) -> None:
        self.page = page
        self._way = way
        self._session = session
        self._options = options

    async def _until(self, holds: str, arg: Any) -> None:
        """Wait until a function of the page returns true; else say what the page has done in place of that."""
        try:
            await self.page.wait_for_function(holds, arg=arg)
        except TimeoutError as error:
            raise AssertionError(f"expected {arg!r}, got {await self.page.evaluate(FOUND)}") from error

    async def shows(self, text: str) -> None:
        """Wait until the screen has this text, letter for letter."""
        await self._until("text => document.querySelector('pre').textContent === text", text)

    async def begin(self) -> None:
        """Follow the session from its beginning, with a client that knows nothing of it."""
        await self.page.evaluate("options => window.begin(options)", self._options)
        await self.page.evaluate(
            "name => { window.show(name); window.read(name, { until: 'settled' }); }", self._session
        )

    async def is_(self, status: str) -> None:
        """Wait until both readings of the page, its view and its events, have a status."""
        both = "([name, status]) => [window.view, window.reading[name]].every((it) => it.state.status === status)"
        await self._until(both, [self._session, status])

    async def has_network(self, has: bool) -> None:
        """Switch the network of the device on or off. Chromium's own switch leaves its WebSockets alive."""
        if has:
            self._way.unblock()
        else:
            self._way.block()
        await self.page.context.set_offline(not has)

    async def outlives_its_token(self) -> None:
        """Wait until the device has needed two more tokens."""
        asked = await self.page.evaluate("window.asked")
        await self._until("asked => window.asked >= asked + 2", asked)

    async def events(self) -> list[int]:
        offsets: list[int] = await self.page.evaluate("name => window.got[name]", self._session)
        return offsets


@asynccontextmanager
async def device(
    browser: Browser, shop: Site, session: str, how: dict[str, Any], transport: str
) -> AsyncIterator[Screen]:
    """A device with a way of its own to the gateway, which has opened the page and follows the session."""
    async with relay(shop.gateway.url) as (way, url):
        context = await browser.new_context(**how)
        page = await context.new_page()
        page.set_default_timeout(60_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        await page.goto(shop.url)
        screen = Screen(page, way, session, {"url": url, "transport": transport})
        await screen.begin()
        yield screen
        assert wrong == []
        await context.close()


@asynccontextmanager
async def answering(
    temporal: WorkflowEnvironment, built: Path, folder: Path, session: str
) -> AsyncIterator[tuple[Site, Any]]:
    """A site whose gateway follows a workflow that answers as the test's script says, and that workflow."""
    address = temporal.client.service_client.config.target_host
    queue = f"journey-{session}"
    async with (
        site(built, folder, WAKELINE_TEMPORAL=address) as shop,
        Worker(
            temporal.client,
            task_queue=queue,
            workflows=[Answer],
            activities=[model],
            max_heartbeat_throttle_interval=timedelta(seconds=5),  # else the SDK holds them back, almost too long
        ),
    ):
        shop.seconds = SECONDS
        where = {"url": shop.gateway.url, "token": token(sub="worker", exp=time.time() + 600)}
        message = {"turn": "letter", "options": {"where": where}}
        yield shop, await temporal.client.start_workflow("Answer", message, id=session, task_queue=queue)


@pytest.mark.parametrize("transport", ["auto", "sse", "long-poll"])
async def test_laptop_and_phone_show_the_same_at_the_end_of_a_journey(
    temporal: WorkflowEnvironment, browser: Browser, built: Path, tmp_path: Path, transport: str
) -> None:
    session = f"journey-{uuid.uuid4().hex[:8]}"
    async with (
        answering(temporal, built, tmp_path / "data", session) as (shop, workflow),
        device(browser, shop, session, LAPTOP, transport) as laptop,
    ):
        script(session, ("say", "Tomorrow it sno"))
        await laptop.shows("Tomorrow it sno\nrun: running")

        # The phone joins in the middle of the run; what the failed attempt has said disappears from both.
        async with device(browser, shop, session, PHONE, transport) as phone:
            both = (laptop, phone)
            await phone.shows("Tomorrow it sno\nrun: running")
            script(session, ("fail", "the model is away"), ("say", "Tomorrow it “rains”, "))
            said = "Tomorrow it “rains”, "
            for each in both:
                await each.shows(f"{said}\nrun: running")

            # The phone is offline while the model goes on.
            await phone.has_network(False)
            await phone.is_("offline")
            script(session, ("say", "and 🌧️ then"))
            await laptop.shows(f"{said}and 🌧️ then\nrun: running")
            await phone.shows(f"{said}\nrun: running")
            await phone.has_network(True)
            said += "and 🌧️ then"
            for each in both:
                await each.shows(f"{said}\nrun: running")

            # Tokens end; and the laptop is reloaded in the middle of the message.
            for each in both:
                await each.outlives_its_token()
            await laptop.page.reload()
            await laptop.begin()
            script(session, ("say", " – perhaps –\n\n"))
            said += " – perhaps –\n\n"
            for each in both:
                await each.shows(f"{said}\nrun: running")

            # The gateway is killed, and the model goes on.
            await shop.gateway.kill()
            for each in both:
                await each.is_("offline")
            script(session, ("say", "the sun: ☀️ "), ("publish", ("sky", "clear", "sky")))
            await shop.gateway.start()
            said += "the sun: ☀️ "
            for each in both:
                await each.shows(f"{said}\nsky: clear\nrun: running")

            # An operator terminates the run.
            await workflow.terminate("that is enough")
            for each in both:
                await each.is_("ended")
                await each.shows(f"{said}\nsky: clear\nrun: terminated")
                assert "refused" not in await each.page.evaluate("[...window.states]")
            assert await laptop.events() == await phone.events() == list(range(len(await phone.events())))
            assert await laptop.page.inner_text("body") == await phone.page.inner_text("body")
