"""Take the pictures of the documents: the demo's page and the inspector, light and dark.

    python scripts/screenshots.py [FOLDER]

The scene is always the same: the gateway was killed once, the phone is offline and was notified of an order's question,
and an agent is in the middle of its answer. The inspector shows the order.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright, expect

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
WIDTH, HEIGHT = 1280, 790
PATIENCE = 60_000


@asynccontextmanager
async def demo() -> AsyncIterator[str]:
    """Run the demo; yield the page's URL."""
    command = (sys.executable, "-m", "wakeline", "demo", "--port", "0", "--no-open")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(rb"http://[0-9.]+:[0-9]+", await process.stdout.readline())):
                pass
        yield found[0].decode()
    finally:
        process.send_signal(2)
        await process.communicate()


async def play(page: Page) -> None:
    """Bring the scene about."""
    laptop, phone = (page.locator(f'[data-device="{name}"]') for name in ("laptop", "phone"))
    await page.keyboard.press("k")
    await expect(page.locator("[data-gateway]")).to_contain_text("1 restart", timeout=PATIENCE)
    await page.wait_for_function("window.wakeline.events('phone', 'agent-1').length > 450", timeout=PATIENCE)
    await page.click('[data-toggle="phone"]')
    # The payment of the first order is rejected, so that the second one asks while the phone is offline.
    await laptop.locator('[data-choice="reject"]').click(timeout=PATIENCE)
    await expect(phone.locator('[data-notified="order-2"]')).to_be_visible(timeout=PATIENCE)
    await page.wait_for_function("window.wakeline.events('laptop', 'agent-1').length > 750", timeout=PATIENCE)


async def inspect(demo: Page, folder: Path) -> None:
    """Take the pictures of the inspector: a session, with an event chosen."""
    url = await demo.get_by_role("link", name="Inspect the gateway").get_attribute("href")
    page = await demo.context.new_page()
    await page.goto(f"{url}#/session/agent-1?e=300")
    await expect(page.locator('[data-detail="300"]')).to_contain_text("Sequence", timeout=PATIENCE)
    await expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=PATIENCE)
    await both(page, folder, "inspector")


async def both(page: Page, folder: Path, name: str) -> None:
    """Take a picture in light and one in dark."""
    await page.emulate_media(color_scheme="light")
    await page.screenshot(path=folder / f"{name}-light.png")
    await page.emulate_media(color_scheme="dark")
    await page.wait_for_timeout(1000)  # a canvas is drawn again after that
    await page.screenshot(path=folder / f"{name}-dark.png")


async def main(folder: Path) -> None:
    """Take every picture."""
    async with demo() as url, async_playwright() as playwright:
        program = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page = await context.new_page()
        await page.goto(url)
        await play(page)
        await both(page, folder, "demo")
        await inspect(page, folder)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
