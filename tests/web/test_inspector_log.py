"""A log that is longer than the part of it that the inspector holds: it is sought, dragged, and replayed in the whole."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.support import Served
from tests.web.inspector_page import Tab

COUNT = 12_000
# The inspector reads so many events at first, and so many more at a time.
AT_FIRST, MORE = 5_000, 1_000


@pytest.fixture(scope="module")
async def long(served: Served) -> str:
    """A session whose log is longer than what the inspector reads at first."""
    for first in range(0, COUNT, 4_000):
        await served.publish("long", *({"topic": "n", "data": offset} for offset in range(first, first + 4_000)))
    return "long"


def whole(page: Page) -> Locator:
    return page.get_by_role("slider", name="Place in the whole log")


async def holds(page: Page, first: int, last: int | None = None) -> int:
    """The tape has exactly these events; without a last one, as many as one answer has. Return the offset of the last."""
    tape = page.get_by_role("slider", name="Place in the log")
    await expect(tape).to_have_attribute("aria-valuemin", str(first))
    if last is not None:
        await expect(tape).to_have_attribute("aria-valuemax", str(last))
    return int(await tape.get_attribute("aria-valuemax") or "0")


async def shows(page: Page, last: int) -> None:
    """The last event in the list is this one, with its data."""
    row = page.locator("[data-offset]").last
    await expect(row).to_have_attribute("data-offset", str(last))
    await expect(row.locator("code")).to_have_text(str(last))


async def go_to(page: Page, place: str) -> None:
    await page.get_by_label("Go to an offset or a time").fill(place)
    await page.keyboard.press("Enter")


async def test_a_place_beyond_the_part_that_is_loaded_is_found(tab: Tab, long: str) -> None:
    page = await tab.open(f"#/session/{long}")
    await holds(page, COUNT - AT_FIRST, COUNT - 1)
    await go_to(page, "1500")
    await holds(page, 500)
    await shows(page, 1500)
    await expect(page.locator(".bar .badge").last).to_have_text("a part of the log")

    # Beyond both ends of the log there is nothing: the place is at its end.
    await go_to(page, "999999")
    await shows(page, COUNT - 1)
    await holds(page, COUNT - MORE, COUNT - 1)
    await go_to(page, "1999-01-01T00:00:00Z")
    await shows(page, 0)
    await go_to(page, "2101-01-01T00:00:00Z")
    await shows(page, COUNT - 1)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_the_whole_log_is_dragged_to_a_place(tab: Tab, long: str) -> None:
    page = await tab.open(f"#/session/{long}")
    await expect(page.locator(".whole")).to_contain_text("Offsets 7,000 to 11,999 of 11,999")
    box = await whole(page).bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] - 10, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    await page.mouse.up()
    row = page.locator("[data-offset]").last
    await expect(row).to_have_attribute("data-offset", re.compile("^(59|60)..$"))
    await expect(page.locator(".whole")).to_contain_text(re.compile("Offsets (4,9|5,0).. to 1.,... of 11,999"))
    await whole(page).press("Home")
    await shows(page, 0)
    assert await holds(page, 0) < COUNT - 1


async def test_a_drag_over_the_edge_of_the_tape_reads_on(tab: Tab, long: str) -> None:
    page = await tab.open(f"#/session/{long}?axis=offset")
    await go_to(page, "2500")
    last = await holds(page, 1500)
    tape = await page.get_by_role("slider", name="Place in the log").bounding_box()
    assert tape is not None
    middle = tape["y"] + 60
    await page.mouse.move(tape["x"] + 100, middle)
    await page.mouse.down()
    await page.mouse.move(tape["x"] - 20, middle)
    await holds(page, 500, last)
    await page.mouse.move(tape["x"] - 21, middle)
    await holds(page, 0, last)
    await page.mouse.move(tape["x"] + tape["width"] + 20, middle)
    await holds(page, 0, last + MORE)
    await page.mouse.up()
    await shows(page, last)


async def test_the_end_of_the_log_is_on_the_screen_of_a_phone(tab: Tab, served: Served, long: str) -> None:
    stream = await served.stream(long, "from=now&device=tablet")
    await tab.page.set_viewport_size({"width": 375, "height": 812})
    page = await tab.open(f"#/session/{long}")
    await holds(page, COUNT - AT_FIRST, COUNT - 1)
    await shows(page, COUNT - 1)
    assert await page.locator("[data-offset]").count() < 60, "the rows that the list shows, and no others"
    await page.get_by_role("tab", name="Devices").click()
    row = page.locator('[data-device="tablet"]')
    await expect(row.get_by_role("button", name="Set")).to_be_attached()
    assert await row.evaluate("row => row.offsetHeight") < 60, "what can be done with a device is in one line"
    await page.set_viewport_size({"width": 1280, "height": 800})
    stream.close()


async def test_a_replay_goes_on_beyond_the_part_that_is_loaded(tab: Tab, served: Served, long: str) -> None:
    page = await tab.open(f"#/session/{long}")
    await go_to(page, "0")
    await holds(page, 0)
    # A part that ends not far before the end of the log: to draw each event takes a while.
    await go_to(page, str(COUNT - AT_FIRST - MORE))
    first = COUNT - AT_FIRST - 2 * MORE
    last = await holds(page, first)
    assert last < COUNT - 1
    await go_to(page, str(last - 100))
    await page.get_by_label("Speed of the replay").select_option("16")
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true", timeout=60_000)
    await shows(page, COUNT - 1)
    await holds(page, first, COUNT - 1)
    await served.publish(long, {"topic": "n", "data": COUNT})
    await shows(page, COUNT)
