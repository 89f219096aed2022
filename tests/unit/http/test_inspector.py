from __future__ import annotations

import html
import json
import re
from urllib.parse import quote

from msgspec import structs

from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.gateway.log import NewSession
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Run, Runs

CODEC = "http://codec.example:8081/v1/codec"


async def test_the_page_may_run_its_own_script_alone(served: Served) -> None:
    async with served.http.get("/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        page, headers = await answer.text(), answer.headers
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["trusted-types"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules["script-src"])
    assert headers["Referrer-Policy"] == "no-referrer"
    assert page.count("<script") == 1
    assert not re.search(r"""<[^>]+\s(on\w+|style|src|href)=(?!["']?data:)""", page.partition("<script")[0])


async def test_a_browser_that_has_the_page_receives_it_no_second_time(served: Served) -> None:
    async with served.http.get("/") as answer:
        tag = answer.headers["ETag"]
    async with served.http.get("/", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_the_page_needs_no_token_and_has_the_settings(serve: Serve) -> None:
    served = await serve(token_secret="x" * 32, codec_server=CODEC, temporal_ui="https://cloud.temporal.io")
    async with served.http.get("/") as answer:
        page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
    (found,) = re.findall(r'<meta name="wakeline-settings" content="([^"]*)">', page)
    assert json.loads(html.unescape(found)) == {"temporal_ui": "https://cloud.temporal.io", "codec_server": CODEC}
    assert "connect-src 'self' http://codec.example:8081;" in policy


async def test_the_page_can_be_turned_off(serve: Serve) -> None:
    served = await serve(inspector=False)
    status, answer = await served.call("GET", "/")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "turned off (inspector)" in answer["error"]["hint"]


async def test_the_newest_sessions_come_first_in_pages(served: Served) -> None:
    for number in range(5):
        await served.publish(f"order-{number}", {"topic": "n"})
        await served.publish(f"chat-{number}", {"topic": "n"})
    found: list[str] = []
    after = ""
    while True:
        status, page = await served.call(
            "GET", f"/v1/sessions?order=newest&limit=2&contains=er-&after={after.replace(' ', '%20')}"
        )
        assert status == 200, page
        found += [session["session"] for session in page["sessions"]]
        if page["after"] is None:
            break
        after = page["after"]
    assert sorted(found) == [f"order-{number}" for number in range(5)]
    assert found[0] == "order-4"
    for query in ("order=newest&after=order-1", "contains=x", "order=oldest"):
        status, answer = await served.call("GET", f"/v1/sessions?{query}")
        assert (status, answer["error"]["code"]) == (400, "request_invalid"), query


async def test_sessions_are_found_by_their_status_in_pages_that_may_be_empty(serve: Serve) -> None:
    engine = MemoryEngine()
    served = await serve(log=engine)
    runs = Runs(engine)
    for number in range(1200):
        state, _ = await engine.create_session(NewSession(f"s-{number:04}"))
        if number in (3, 700, 701):
            ended = Run("w", "ended", "ended", "ended", "W", state.created, status="failed")
            await runs.put(state.session, ended)
            await runs.put(
                state.session, structs.replace(ended, run="next", status="running" if number == 3 else "failed")
            )
    await served.call("POST", "/v1/sessions/s-0009/close")

    async def found(query: str) -> list[list[str]]:
        pages, after = list[list[str]](), ""
        while True:
            status, page = await served.call("GET", f"/v1/sessions?{query}&after={quote(after)}")
            assert status == 200, page
            pages.append([session["session"] for session in page["sessions"]])
            if (after := page["after"]) is None:
                return pages

    assert await found("status=failed") == [["s-0700", "s-0701"], []]
    assert await found("status=failed&order=newest&limit=1") == [["s-0701"], ["s-0700"], []]
    assert await found("status=running") == [["s-0003"], []]
    assert await found("status=closed&order=newest&contains=09") == [["s-0009"]]
    assert sum(map(len, await found("status=open&limit=1000"))) == 1196
    status, answer = await served.call("GET", "/v1/sessions?status=settled")
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
