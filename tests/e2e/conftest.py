"""Debian's Chromium, and the demo as a person starts it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# A busy machine takes long to draw a page; by default five seconds are waited.
expect.set_options(timeout=60_000)


# Not for the session: Chromium costs some CPU for as long as it runs.
@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("no chromium: scripts/need chromium installs it")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    opened = await context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    await context.close()


@asynccontextmanager
async def _running_demo(folder: Path) -> AsyncIterator[str]:
    """The demo, without a terminal; gives the page's URL. Ended as Ctrl-C ends it, it must leave nothing behind."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "demo", "--port", "0", "--no-open"),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, "expected a URL, the demo ended"
                if found := re.search(r"http://[0-9.]+:[0-9]+", line):
                    break
        yield found[0]
    finally:
        process.send_signal(2)
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert re.search(rb"sent [\d,]+ \xc2\xb7 missing 0 \xc2\xb7 duplicate 0", output), output
    assert list(folder.iterdir()) == [], "the demo removes what it has made"


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[str]:
    """A demo of the test's own, at its beginning; gives the page's URL."""
    async with _running_demo(tmp_path) as url:
        yield url


@pytest.fixture(scope="module")
async def old_demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A demo for tests to which it does not matter what others have done in it; gives the page's URL."""
    async with _running_demo(tmp_path_factory.mktemp("demo")) as url:
        yield url
