"""WCAG AA of a page in a browser, as far as axe can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests import nodejs

_WEB = Path(__file__).parents[1] / "web"


async def violations(page: Page) -> list[Any]:
    """The rules that the page breaks, each with the elements that do; a page's Content-Security-Policy does not matter."""
    if not await page.evaluate("'axe' in window"):
        nodejs.install(_WEB)
        await page.evaluate((_WEB / "node_modules/axe-core/axe.min.js").read_text())
    found: list[Any] = await page.evaluate(
        "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })"
        ".then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"
    )
    return found
