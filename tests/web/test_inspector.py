"""The inspector in Chromium, on one gateway that asks for tokens."""

from __future__ import annotations

import base64
import time
from urllib.parse import quote

from playwright.async_api import expect

from tests.accessibility import violations
from tests.support import Served
from tests.tokens import token
from tests.web.conftest import Npx
from tests.web.inspector_page import Tab, order

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


async def test_the_parts_of_the_page_work(npx: Npx) -> None:
    npx("inspector", "vitest", "run")


async def test_a_link_survives_the_sign_in_and_the_token_stays_in_memory(tab: Tab, served: Served) -> None:
    for name in ("order-1", "chat-1", HOSTILE):
        await served.publish(name, {"topic": "n"})
    page = await tab.open("#/sessions?q=order", sign_in=False)
    field = page.get_by_label("Token")
    await expect(field).to_be_focused()
    await field.fill("not.a.token")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await expect(page.locator("[data-session]")).to_have_count(0)
    given = token(exp=time.time() + 600)
    await field.fill(given)
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-session]")).to_have_count(1)
    await expect(page.get_by_role("link", name="order-1")).to_be_visible()
    kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert given not in kept
    assert "#/sessions?q=order" in kept
    await page.reload()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_the_list_is_searched_paged_and_walked_by_keys(tab: Tab, served: Served) -> None:
    for number in range(130):
        await served.publish(f"many-{number:03}", {"topic": "n"})
    page = await tab.open()
    rows = page.locator("[data-session]")
    await expect(rows.first).to_have_attribute("data-session", "many-129")
    assert await rows.count() < 40, "the rows that the window shows, and no others"
    await page.keyboard.press("/")
    await page.keyboard.type("many")
    await page.wait_for_url("**/#/sessions?q=many")
    await expect(page.locator(".foot")).to_contain_text("100 sessions read, there are more")
    await page.keyboard.press("Escape")
    for key in "jjk":
        await page.keyboard.press(key)
    await expect(page.locator(".row.chosen")).to_have_attribute("data-session", "many-129")
    await served.publish("many-130", {"topic": "n"})
    await expect(rows.first).to_have_attribute("data-session", "many-130")
    box = page.locator(".rows").last
    await box.evaluate("box => box.scrollTo(0, 1e6)")
    await expect(page.locator(".foot")).to_contain_text("131 sessions read.")
    await box.evaluate("box => box.scrollTo(0, 1e6)")
    await expect(page.get_by_role("link", name="many-000")).to_be_visible()
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/#/session/{quote('many-129')}")

    await served.call("POST", "/v1/sessions/many-005/close")
    await page.evaluate("location.hash = '#/sessions?q=many'")
    await page.get_by_label("Only sessions with this status").select_option("closed")
    await expect(page.locator(".foot")).to_contain_text("1 session read.")
    await expect(rows).to_have_attribute("data-session", "many-005")


async def test_what_strangers_write_is_shown_as_text(tab: Tab, served: Served) -> None:
    message = {"topic": HOSTILE, "data": HOSTILE, "message": {"id": HOSTILE, "op": "text"}}
    name = f"{HOSTILE} 2"
    await served.publish(name, {"topic": HOSTILE, "data": {HOSTILE: HOSTILE}, "key": HOSTILE, "run": HOSTILE}, message)
    await served.publish(name, {"topic": "url", "data": "javascript:window.hacked=1", "activity": HOSTILE})
    path = f"/v1/sessions/{quote(name, safe='')}"
    body = {"id": "q", "reason": "r", "message": HOSTILE, "choices": [HOSTILE]}
    assert (await served.call("POST", f"{path}/requests", json=body))[0] == 200
    page = await tab.open("#/sessions?q=hacked")
    await page.get_by_role("link", name=name).click()
    await expect(page.get_by_role("button", name=HOSTILE)).not_to_have_count(0)
    await page.locator('[data-offset="0"] button').click()
    detail = page.get_by_role("complementary", name="Event")
    await expect(detail.locator("pre")).to_contain_text(HOSTILE.replace('"', '\\"'))
    await expect(page.get_by_role("region", name="Conversation")).to_contain_text(HOSTILE)
    assert await page.locator("img").count() == 0


async def test_a_session_is_a_tape_of_events_and_a_conversation(tab: Tab, served: Served) -> None:
    await order(served, "order-2")
    page = await tab.open("#/session/order-2")
    lines, chat = page.locator("[data-offset]"), page.get_by_role("region", name="Conversation")
    await expect(lines).to_have_count(6)
    await expect(page.get_by_label("Lanes").get_by_role("listitem")).to_have_count(2)
    await expect(chat).to_contain_text("Dear customer")
    await expect(chat).to_contain_text("packed")
    await expect(page.locator(".event.gone")).to_have_count(2)

    # A canvas has no style of its own: the tape is drawn again when the reader turns to the dark.
    tape_in = page.locator("canvas")
    await expect(tape_in).to_have_attribute("data-scheme", "light")
    light = await tape_in.evaluate("canvas => canvas.toDataURL()")
    await page.emulate_media(color_scheme="dark")
    await expect(tape_in).to_have_attribute("data-scheme", "dark")
    await page.wait_for_function("light => document.querySelector('canvas').toDataURL() !== light", arg=light)
    await page.emulate_media(color_scheme="light")

    # Back to the first attempt, by the keyboard; then on to the end.
    tape = page.get_by_role("slider", name="Place in the log")
    await tape.focus()
    for _ in range(4):
        await page.keyboard.press("ArrowLeft")
    await expect(tape).to_have_attribute("aria-valuenow", "1")
    await expect(lines).to_have_count(2)
    await expect(chat).to_contain_text("Dear custo")
    await page.keyboard.press("Home")
    await expect(lines).to_have_count(1)
    await page.get_by_role("button", name="Replay").click()
    await expect(lines).to_have_count(6)
    await served.publish("order-2", {"topic": "status", "data": {"state": "shipped"}})
    await expect(lines).to_have_count(7)

    # By the mouse: the tape's left end is the first event.
    box = await tape.bounding_box()
    assert box is not None
    await page.mouse.click(box["x"] + 3, box["y"] + 40)
    await expect(lines).to_have_count(1)
    await page.get_by_role("button", name="Live").click()
    await expect(lines).to_have_count(7)
    await page.get_by_label("Go to an offset or a time").fill("3")
    await page.keyboard.press("Enter")
    await expect(lines).to_have_count(4)
    await page.get_by_role("button", name="Live").click()

    await page.keyboard.press("/")
    await page.keyboard.type("topic:status data.state~SHIP")
    await expect(lines).to_have_count(1)
    assert "filter=topic" in page.url


async def test_an_event_shows_what_superseded_it_and_how_to_read_it(tab: Tab, served: Served) -> None:
    await order(served, "order-3")
    page = await tab.open("#/session/order-3?e=1")
    detail = page.get_by_role("complementary", name="Event")
    await expect(detail).to_contain_text("by attempt 2, event 2")
    await expect(detail).to_contain_text("Publishernot kept")
    await page.locator('[data-offset="4"] button').click()
    await expect(detail).to_contain_text("Publisherr:write" + "Publisher's attempt2" + "Sequence1")
    await page.locator('[data-offset="1"] button').click()
    await detail.get_by_role("button", name="Raw").click()
    await expect(detail.locator("pre")).to_contain_text('"offset":1')
    await detail.get_by_role("button", name="curl").click()
    await expect(detail).to_contain_text("Copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl -N '{served.url}/v1/sessions/order-3/events?from=")
    await page.locator('[data-offset="0"] button').focus()
    await page.keyboard.press("j")
    await expect(page.locator('[data-detail="2"]')).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(detail).to_have_count(0)


async def test_a_codec_server_decodes_payloads_in_the_browser(tab: Tab, served: Served) -> None:
    hidden = base64.b64encode(b'{"secret": "tea"}'[::-1]).decode()
    metadata = {"encoding": base64.b64encode(b"binary/encrypted").decode()}
    await served.publish("order-4", {"topic": "sealed", "payload": {"metadata": metadata, "data": hidden}})
    page = await tab.open("#/session/order-4?e=0")
    detail = page.get_by_role("complementary", name="Event")
    await expect(detail.locator("pre")).to_contain_text('"secret": "tea"')
    await expect(detail).to_contain_text("binary/encrypted")


async def test_a_request_is_answered_and_events_are_sent(tab: Tab, served: Served) -> None:
    path = "/v1/sessions/order-5/requests"
    body = {"id": "pay", "reason": "approval", "message": "Pay 12 EUR?", "choices": ["Approve", "Reject"]}
    assert (await served.call("POST", path, json=body))[0] == 200
    inputs = {"inputs": ["*", "$answer.*", "$terminate"]}
    page = await tab.open("#/session/order-5?pane=send", claims=inputs)
    await page.get_by_role("button", name="Approve").click()
    await expect(page.locator("[data-request]")).to_have_count(0)
    _, answered = await served.call("GET", f"{path}/pay")
    assert (answered["status"], answered["outcome"]["payload"]) == ("resolved", "Approve")

    form = page.locator("form", has_text="Test event")
    await form.get_by_label("Data").fill("{")
    await form.get_by_role("button", name="Publish").click()
    await expect(form.get_by_role("alert")).to_contain_text("expected JSON")
    await form.get_by_label("Data").fill('{"tea": 1}')
    await form.get_by_role("button", name="Publish").click()
    await expect(form.locator("pre")).to_contain_text('"first_offset": 2')
    form = page.locator("form", has_text="Input to the run")
    await form.get_by_label("Name").fill("approve")
    await form.get_by_role("button", name="Send").click()
    await expect(form.get_by_role("alert")).to_contain_text("Temporal")


async def test_devices_are_moved_and_forgotten(tab: Tab, served: Served) -> None:
    await order(served, "order-6")
    stream = await served.stream("order-6", "device=phone")
    await stream.next()
    page = await tab.open("#/session/order-6?pane=devices")
    row = page.locator('[data-device="phone"]')
    await expect(row).to_contain_text("sse")
    await row.get_by_role("spinbutton").fill("4")
    await row.get_by_role("button", name="Set").click()
    await expect(row.locator("td").nth(3)).to_have_text("4")
    await row.get_by_role("button", name="Trace").click()
    trace = page.locator('[data-trace="phone"]')
    await expect(trace).to_contain_text("sse at 6")
    await served.publish("order-6", {"topic": "status"})
    await expect(trace).to_contain_text("sse at 7")
    assert await violations(page) == []
    stream.close()
    await expect(trace.get_by_role("status")).to_have_text("It has no connection to this gateway.")
    await expect(row).to_contain_text("left")
    await row.get_by_role("button", name="Forget").click()
    await expect(row).to_have_count(0)


async def test_the_outbox_is_shown_and_sent_again(tab: Tab, served: Served) -> None:
    await served.publish("order-7", {"topic": "late"})
    page = await tab.open("#/outbox?state=pending")
    row = page.locator("[data-notification]")
    await expect(row).to_contain_text("order-7")
    await expect(row).to_contain_text("500")
    await row.get_by_role("button", name="Send again").click()
    await expect(row).to_contain_text("pending")
