"""The npm workspace `web/`, run with the Node of the test requirements, and its packages in Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests import nodejs
from tests.accepting import accepting
from tests.connecting import connecting
from tests.e2e.conftest import ARGUMENTS
from tests.gateways import GatewayProcess
from tests.support import Served
from tests.tokens import SECRET, token
from tests.web.inspector_page import Tab, inspected

WEB = Path(__file__).parents[2] / "web"
# Seconds that a program of the workspace may take.
SECONDS = float(os.environ.get("WAKELINE_WEB_TIMEOUT", "400"))
Npx = Callable[..., None]


@pytest.fixture(scope="session")
def npx() -> Npx:
    """Run a program of the workspace's packages; a failure fails the test with its output."""
    nodejs.install(WEB)

    def run(folder: str, *command: str) -> None:
        program = WEB / "node_modules" / ".bin" / command[0]
        # The output is a log: no colours, and no progress that overwrites itself.
        environment = nodejs.environment(WAKELINE_PYTHON=sys.executable, NO_COLOR="1", CI="true")
        done = subprocess.run(
            [str(nodejs.NODE), str(program.resolve()), *command[1:]],
            cwd=WEB / folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(command)} in web/{folder}:\n{done.stdout[-8000:]}"

    return run


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built client."""
    return nodejs.client(WEB)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, which keeps pages for the way back as people's browsers do."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("no chromium: scripts/need chromium installs it")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program, args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield launched
        await launched.close()


class Site:
    """A site with the built client, and the gateway that its pages call.

    Attributes:
        url: The site's URL.
        gateway: The gateway, which requires tokens.
        asked: How many tokens its pages have asked for.
        seconds: The life of a token.
    """

    def __init__(self, url: str, gateway: GatewayProcess) -> None:
        self.url = url
        self.gateway = gateway
        self.asked = 0
        self.seconds = 60.0

    async def open(self, context: BrowserContext, **options: Any) -> Page:
        """A tab with `window.client`."""
        page = await context.new_page()
        page.set_default_timeout(60_000)
        await page.goto(self.url)
        await page.evaluate("options => window.begin(options)", {"url": self.gateway.url, **options})
        return page


PAGE = """<!doctype html><title>page</title><link rel="icon" href="data:,"><script type="module">
import { connect } from "/client/index.js";
window.asked = 0;
const token = async () => {
  window.asked += 1;
  return (await fetch("/token")).text();
};
window.begin = (options) => { window.client = connect({ token, ...options }); };
window.got = {}; window.reading = {};
window.readBy = (options, names) => { window.begin(options); names.forEach((name) => window.read(name)); };
window.read = (name, options) => {
  const got = window.got[name] = [];
  const events = window.reading[name] = window.client.session(name).events(options);
  (async () => { for await (const { offset } of events) got.push(offset); })();
};
window.show = (name) => {
  const pre = document.body.appendChild(document.createElement("pre"));
  window.states = new Set();
  window.view = window.client.session(name).view((view) => {
    window.states.add(view.state.status);
    const keyed = view.keyed.map(({ topic, data }) => `${topic}: ${data}`);
    const runs = [...view.runs.values()].map(({ status }) => `run: ${status}`);
    pre.textContent = [...view.messages.map(({ value }) => value), ...keyed, ...runs].join("\\n");
  }, { until: "settled" });
};
window.shown = 0;
addEventListener("pageshow", (event) => { window.shown += event.persisted; });
</script>"""


@asynccontextmanager
async def site(built: Path, data: Path, **settings: str) -> AsyncIterator[Site]:
    """A site and its gateway with some more settings, on ports of their own."""
    application = web.Application()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def fresh(_: web.Request) -> web.Response:
        serving.asked += 1
        return web.Response(text=token(exp=time.time() + serving.seconds))

    application.router.add_get("/", page)
    application.router.add_get("/token", fresh)
    application.router.add_static("/client", built)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    environment = {"WAKELINE_TOKEN_SECRET": SECRET, "WAKELINE_CORS_ORIGINS": url}
    gateway = GatewayProcess(data, environment={**environment, "WAKELINE_DURABILITY": "process", **settings})
    serving = Site(url, gateway)
    try:
        await gateway.start()
        yield serving
    finally:
        await gateway.kill()
        await runner.cleanup()


class Relay:
    """A way to a gateway whose connections can go dead: nothing moves on them any more, and nothing is closed."""

    def __init__(self, target: str) -> None:
        self._host, self._port = target.removeprefix("http://").split(":")
        self._dead: list[asyncio.Event] = []
        self._open = asyncio.Event()
        self._open.set()

    def cut(self) -> None:
        """Let the connections of now go dead; later ones work."""
        for dead in self._dead:
            dead.set()
        self._dead.clear()

    def block(self) -> None:
        """Let the connections of now go dead; nothing moves on later ones until `unblock`."""
        self.cut()
        self._open.clear()

    def unblock(self) -> None:
        """Let later connections work again."""
        self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        await self._open.wait()
        dead = asyncio.Event()
        self._dead.append(dead)
        with suppress(OSError):  # the gateway was killed, or a connection
            async with connecting(self._host, self._port) as (there, back):
                await asyncio.gather(_pass_on(reader, back, dead), _pass_on(there, writer, dead))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dead: asyncio.Event) -> None:
    while piece := await reader.read(65_536):
        if not dead.is_set():
            writer.write(piece)
    if not dead.is_set():
        writer.close()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay before a gateway, and its URL."""
    made = Relay(target)
    async with accepting(made.serve) as port:
        yield made, f"http://127.0.0.1:{port}"


class FaultProxies:
    """Proxies before a gateway whose first connections fail, in one process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()

    @asynccontextmanager
    async def proxy(self, seed: int, faults: int) -> AsyncIterator[str]:
        """The URL of a proxy with so many faults, chosen by a seed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(b"%d %d\n" % (seed, faults))
            url = (await asyncio.wait_for(self._process.stdout.readline(), 60)).decode().strip()
        try:
            yield url
        finally:
            self._process.stdin.write(url.encode() + b"\n")


@asynccontextmanager
async def fault_proxies(gateway: str) -> AsyncIterator[FaultProxies]:
    """Fault proxies before a gateway."""
    process = await asyncio.create_subprocess_exec(
        *(str(nodejs.NODE), str(WEB / "testing" / "serve-faults.ts"), gateway),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield FaultProxies(process)
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    """The gateway whose inspector is opened."""
    async with inspected() as made:
        yield made


@pytest.fixture(scope="module")
async def opened(browser: Browser, served: Served) -> AsyncIterator[Page]:
    """One tab for all tests: a page takes a second of CPU."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = await context.new_page()
    page.set_default_timeout(60_000)
    yield page
    await context.close()


@pytest.fixture
async def tab(opened: Page, served: Served) -> AsyncIterator[Tab]:
    made = Tab(opened, served.url)
    yield made
    assert made.wrong == []
    assert await opened.evaluate("window.hacked") is None
