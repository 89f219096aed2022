"""Who may call, over HTTP: where tokens come from, what they reach, when they end, and that they are never told."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from structlog.testing import capture_logs
from yarl import URL

from tests.connecting import connecting
from tests.support import Served
from tests.tokens import SECRET, bearer, by_hand, claims, token
from tests.unit.conftest import Serve, on_disk
from wakeline.errors import ListenRefusedError, SettingsInvalidError

PAGE = "https://app.example"
EVENT = {"events": [{"topic": "status", "data": 1}]}


@pytest.fixture
async def asking(serve: Serve) -> Served:
    """A gateway that asks for tokens."""
    return await serve(token_secret=SECRET, cors_origins=(PAGE,), engine="memory")


async def told(served: Served, method: str, path: str, **how: Any) -> tuple[int, str]:
    status, body = await served.call(method, path, **how)
    return status, body["error"]["code"] if status >= 400 else ""


async def ticket(served: Served, **changed: Any) -> str:
    status, body = await served.call("POST", "/v1/tickets", headers=bearer(**changed))
    assert (status, body["expires_in"]) == (200, 30)
    text: str = body["ticket"]
    return text


async def test_every_route_asks_and_health_does_not(asking: Served) -> None:
    for method, path in (
        ("GET", "/v1/sessions"),
        ("GET", "/v1/sessions/s"),
        ("GET", "/v1/sessions/s/events"),
        ("POST", "/v1/sessions/s/events"),
        ("POST", "/v1/runs"),
        ("POST", "/v1/tickets"),
        ("GET", "/metrics"),
        ("GET", "/%76%31/sessions"),
    ):
        async with asking.http.request(method, URL(path, encoded=True)) as answer:
            assert answer.status == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert (await answer.json())["error"]["code"] == "token_missing"
    assert (await asking.call("GET", "/healthz"))[0] == 200
    assert (await asking.call("GET", "/readyz"))[0] == 200
    assert await told(asking, "GET", "/nowhere") == (404, "not_found")


async def test_metrics_are_for_who_may_manage_or_for_all_if_that_was_set(asking: Served, serve: Serve) -> None:
    for allow, status in ((["manage"], 200), (["read"], 403)):
        async with asking.http.get("/metrics", headers=bearer(allow=allow)) as answer:
            assert answer.status == status
    opened = await serve(token_secret=SECRET, open_metrics=True, engine="memory")
    async with opened.http.get("/metrics") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"no_auth": False}, ListenRefusedError),
        ({"no_auth": False, "host": "0.0.0.0"}, ListenRefusedError),
        ({"no_auth": True, "host": "0.0.0.0"}, ListenRefusedError),
        ({"no_auth": True, "token_secret": SECRET}, SettingsInvalidError),
        ({"token_secret": "short"}, SettingsInvalidError),
        ({"token_secret": SECRET, "trusted_proxies": ("nowhere",)}, SettingsInvalidError),
    ],
)
async def test_it_does_not_start_when_it_is_not_certain_who_may_call(
    serve: Serve, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await serve(**settings)


async def test_with_keys_it_listens_anywhere_and_answers_to_any_name(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, host="0.0.0.0", engine="memory")
    port = URL(served.url).port
    async with Served(f"http://127.0.0.1:{port}") as here:
        assert (await here.call("GET", "/v1/sessions", headers=bearer() | {"Host": "gateway.example"}))[0] == 200


async def test_a_token_comes_in_a_header_a_cookie_or_as_a_ticket(asking: Served) -> None:
    cookie = {"Cookie": f"other=1; wakeline_token={token()}; another=2", "Sec-Fetch-Site": "same-origin"}
    for headers in (bearer(), {"Authorization": f"bearer   {token()} "}, cookie):
        assert (await asking.call("GET", "/v1/sessions", headers=headers))[0] == 200
    assert (await asking.call("GET", f"/v1/sessions?ticket={await ticket(asking)}"))[0] == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic YTpi", "Token abc", "x", "Bearer a b", "Bearer " + "x" * 9000]
)
async def test_other_headers_are_refused(asking: Served, value: str) -> None:
    assert await told(asking, "GET", "/v1/sessions", headers={"Authorization": value}) == (401, "token_invalid")


async def test_a_token_in_the_url_is_refused_also_beside_a_good_one(asking: Served) -> None:
    for query in (f"token={token()}", f"access_token={token()}", "token="):
        for headers in ({}, bearer()):
            status, body = await asking.call("GET", f"/v1/sessions?{query}", headers=headers)
            assert (status, body["error"]["code"]) == (401, "token_invalid")
            assert "POST /v1/tickets" in body["error"]["hint"]


async def test_two_that_disagree_are_refused(asking: Served) -> None:
    mine, same = token(), {"Sec-Fetch-Site": "same-origin"}
    path, other = "/v1/sessions", token(sub="bob")
    both = {"Authorization": f"Bearer {mine}", "Cookie": f"wakeline_token={mine}"}
    assert (await asking.call("GET", path, headers=both))[0] == 200
    for headers in (
        {"Authorization": f"Bearer {mine}", "Cookie": f"wakeline_token={other}"} | same,
        {"Cookie": f"wakeline_token={mine}; wakeline_token={other}"} | same,
    ):
        assert await told(asking, "GET", path, headers=headers) == (401, "token_invalid")
    twice = [("Authorization", f"Bearer {mine}"), ("Authorization", f"Bearer {other}")]
    assert await told(asking, "GET", path, headers=twice) == (401, "token_invalid")
    exp = time.time() + 60
    for headers, status in ((bearer(sub="bob"), 401), (bearer(exp=exp), 200)):
        url = f"{path}?ticket={await ticket(asking, exp=exp)}"
        assert (await asking.call("GET", url, headers=headers))[0] == status
    url = f"{path}?ticket={await ticket(asking)}&ticket={await ticket(asking)}"
    assert await told(asking, "GET", url) == (401, "token_invalid")


async def test_a_ticket_is_good_once_and_for_no_other(asking: Served) -> None:
    one = await ticket(asking, sessions=["mine"], allow=["read"])
    assert await told(asking, "GET", f"/v1/sessions/other?ticket={one}") == (404, "session_not_found")
    assert await told(asking, "GET", f"/v1/sessions/mine?ticket={one}") == (401, "token_invalid")
    one = await ticket(asking, allow=["read"])
    assert await told(asking, "POST", f"/v1/sessions/s/events?ticket={one}", json=EVENT) == (403, "not_allowed")
    for text in ("", "x", "%C3%A9", "x" * 5000, token()):
        assert await told(asking, "GET", f"/v1/sessions?ticket={text}") == (401, "token_invalid")
    assert await told(asking, "GET", "/v1/sessions?ticket=%ED%A0%80") == (400, "request_invalid")
    assert await told(asking, "POST", f"/v1/tickets?ticket={await ticket(asking)}") == (401, "token_missing")


async def test_a_ticket_lives_no_longer_than_its_token(asking: Served) -> None:
    exp = time.time() + 8
    one = await ticket(asking, exp=exp)
    await asyncio.sleep(max(0, exp + 0.05 - time.time()))
    assert await told(asking, "GET", f"/v1/sessions?ticket={one}") == (401, "token_expired")


async def test_a_cookie_counts_only_from_a_page_that_may_call(asking: Served) -> None:
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    cookie = {"Cookie": f"wakeline_token={token()}"}
    sse = {"Accept": "text/event-stream"}
    foreign = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{PAGE}.evil.example"},
        {"Origin": asking.url.replace("http", "https")},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": ""},
        {"Referer": "https://evil.example/page"},
        {"Referer": f"{PAGE}.evil.example/"},
        {"Referer": "not a url"},
        {"Referer": "http://[::1"},
        {},
    ]
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"} | {
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="
    }
    for headers in foreign:
        for method, path, how in (
            ("GET", "/v1/sessions/s/events", sse),
            ("GET", "/v1/feed", upgrade),
            ("GET", "/v1/sessions", {}),
            ("POST", "/v1/sessions/s/events", {}),
            ("POST", "/v1/tickets", {}),
        ):
            got = await told(asking, method, path, json=EVENT, headers=cookie | headers | how)
            assert got == (403, "origin_refused"), (headers, path)
    for headers in (
        {"Origin": asking.url},
        {"Origin": PAGE},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Referer": f"{asking.url}/page?x=1"},
        {"Referer": f"{PAGE}/page"},
    ):
        assert (await asking.call("GET", "/v1/sessions/s", headers=cookie | headers))[0] == 200
        stream = await asking.stream("s", **cookie, **headers)
        assert (await stream.next())["data"] == 1
        stream.close()
        async with asking.http.ws_connect("/v1/feed", headers=cookie | headers) as feed:
            assert (await feed.receive_json(timeout=60))["type"] == "ready"
    # Who sends a header has made the request itself.
    assert (await asking.call("GET", "/v1/sessions/s", headers=bearer() | cookie))[0] == 401
    mine = token()
    both = {"Authorization": f"Bearer {mine}", "Cookie": f"wakeline_token={mine}"}
    assert (await asking.call("GET", "/v1/sessions/s", headers=both))[0] == 200


async def test_a_server_that_sends_the_cookie_is_told_to_send_the_header(asking: Served) -> None:
    with capture_logs() as logged:
        status, body = await asking.call("GET", "/v1/sessions", headers={"Cookie": f"wakeline_token={token()}"})
    assert (status, body["error"]["code"]) == (403, "origin_refused")
    assert body["error"]["message"].endswith("got none of them")
    assert "Authorization: Bearer" in body["error"]["hint"]
    assert "cors_origins" not in body["error"]["hint"]
    assert [line for line in logged if "cors_origins" in line["event"]] == []


async def test_a_page_elsewhere_is_told_what_it_may_send(asking: Served) -> None:
    async with asking.http.options("/v1/sessions/s/events", headers={"Origin": PAGE}) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    async with asking.http.get("/v1/sessions", headers={"Origin": PAGE}) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
        assert answer.headers["Server"] == "wakeline"
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


async def test_behind_a_trusted_proxy_its_scheme_counts(serve: Serve) -> None:
    own = {"Origin": "https://gateway.example", "Host": "gateway.example", "X-Forwarded-Proto": "https"}
    trusting = await serve(token_secret=SECRET, trusted_proxies=("127.0.0.1",), engine="memory")
    assert (await trusting.call("GET", "/v1/sessions", headers=bearer() | own))[0] == 200
    doubting = await serve(token_secret=SECRET, engine="memory")
    assert await told(doubting, "GET", "/v1/sessions", headers=bearer() | own) == (403, "origin_refused")


@pytest.mark.parametrize(
    ("passed_on", "seen"),
    [({}, "http://127.0.0.1"), ({"Host": "gateway.example"}, "http://gateway.example")],
    ids=["neither Host nor scheme", "no scheme"],
)
async def test_behind_a_proxy_that_hides_the_origin_the_refusal_names_what_to_set(
    asking: Served, passed_on: dict[str, str], seen: str
) -> None:
    """The page comes through the same proxy: only the gateway cannot know it."""
    headers = {"Origin": "https://gateway.example", **passed_on}
    by_cookie = {"Cookie": f"wakeline_token={token()}", "Referer": "https://gateway.example/page", **passed_on}
    for how in (headers, bearer() | headers, by_cookie):
        status, body = await asking.call("GET", "/v1/sessions", headers=how)
        assert (status, body["error"]["code"]) == (403, "origin_refused")
        assert f"the gateway's own origin is '{seen}" in body["error"]["message"]
        for remedy in ("cors_origins", "a proxy", "Host", "X-Forwarded-Proto", "trusted_proxies"):
            assert remedy in body["error"]["hint"]


@pytest.mark.parametrize(
    ("sessions", "reached", "not_reached"),
    [
        (["order-1"], ["order-1"], ["order-2", "order-11", "order-", "Order-1", "order-1 "]),
        (["order-*"], ["order-1", "order-", "order-*"], ["order", "Order-1", "xorder-1"]),
        (["*"], ["order-1", "anything/at all", "ä"], []),
        (["a", "b*"], ["a", "b", "bc"], ["aa", "c"]),
        ([], [], ["order-1"]),
    ],
)
async def test_a_token_reaches_the_sessions_it_names(
    asking: Served, sessions: list[str], reached: list[str], not_reached: list[str]
) -> None:
    for name in reached + not_reached:
        path = f"/v1/sessions/{URL.build(path=name, encoded=False).raw_path.replace('/', '%2F')}/events"
        got = await told(asking, "POST", path, json=EVENT, headers=bearer(sessions=sessions))
        assert got == ((200, "") if name in reached else (404, "session_not_found")), name
    status, body = await asking.call("GET", "/v1/sessions", headers=bearer(sessions=sessions))
    assert status == 200
    assert {row["session"] for row in body["sessions"]} == set(reached)


@pytest.mark.parametrize("allow", ["read", "ack", "publish", "input", "manage", "follow", "restore"])
async def test_a_token_may_do_what_it_allows_and_nothing_else(asking: Served, allow: str) -> None:
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    for action, method, path, body in (
        ("publish", "POST", "/v1/sessions/s/events", EVENT),
        ("read", "GET", "/v1/sessions/s/events", None),
        ("read", "GET", "/v1/sessions/s", None),
        ("read", "GET", "/v1/sessions", None),
        ("manage", "POST", "/v1/runs", {"workflow_id": "w"}),
    ):
        status, code = await told(asking, method, path, json=body, headers=bearer(allow=[allow]))
        assert (code == "not_allowed") == (action != allow), (action, status, code)
        assert (status == 403) == (action != allow)


async def test_topics_that_were_not_granted_are_neither_read_nor_written(asking: Served) -> None:
    both = {"events": [{"topic": "status", "data": 1}, {"topic": "secret", "data": 2}]}
    path = "/v1/sessions/s/events"
    limited = {"topics": ["status", "sta*"]}
    assert await told(asking, "POST", path, json=both, headers=bearer(**limited)) == (403, "not_allowed")
    assert await told(asking, "POST", path, json=EVENT, headers=bearer(**limited)) == (200, "")
    assert (await asking.call("POST", path, json=both, headers=bearer()))[0] == 200
    for query in ("", "?topics=secret", "?topics=*", "?topics=status,secret", "?topics=secret&from=beginning"):
        status, body = await asking.call("GET", path + query, headers=bearer(**limited))
        assert status == 200
        assert {event["topic"] for event in body["events"]} <= {"status"}
    stream = await asking.stream("s", "topics=*", **bearer(**limited))
    assert [event["topic"] for event in await stream.take(2)] == ["status", "status"]
    stream.close()


async def test_not_allowed_and_not_there_are_the_same_bytes(asking: Served) -> None:
    await asking.call("POST", "/v1/sessions/order-1/events", json=EVENT, headers=bearer())
    few = {"sessions": ["mine-*"]}

    async def answer(method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        async with asking.http.request(method, path, json=body, headers=headers) as got:
            kept = {name: value for name, value in got.headers.items() if name != "Date"}
            return got.status, await got.read(), kept

    for method, path, body in (
        ("GET", "/v1/sessions/{}", None),
        ("GET", "/v1/sessions/{}/events", None),
        ("POST", "/v1/sessions/{}/events", EVENT),
        ("POST", "/v1/runs", {"workflow_id": "{}"}),
    ):
        answers = []
        for name in ("order-1", "order-2"):  # one is there, one is not
            asked = json.loads(json.dumps(body).replace("{}", name))
            got = await answer(method, path.format(name), asked, bearer(**few))
            assert got[0] == 404
            answers.append((got[0], got[1].replace(name.encode(), b"?"), got[2]))
        assert answers[0] == answers[1], path
    # And who may see all is told the same of what is not there.
    nobody = await answer("GET", "/v1/sessions/none", None, bearer(**few))
    assert nobody == await answer("GET", "/v1/sessions/none", None, bearer())


async def test_a_replay_is_authorised_like_any_request(asking: Served) -> None:
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    exp = time.time() + 8
    stream = await asking.stream("s", **bearer(exp=exp))
    await stream.next()
    cursor = {"Last-Event-ID": stream.last_id}
    assert await stream.rest() == []
    sse = {"Accept": "text/event-stream"} | cursor
    path = "/v1/sessions/s/events"
    assert await told(asking, "GET", path, headers=bearer(exp=exp) | sse) == (401, "token_expired")
    assert await told(asking, "GET", path, headers=bearer(sessions=["t"]) | sse) == (404, "session_not_found")
    assert await told(asking, "GET", path, headers=bearer(allow=["publish"]) | sse) == (403, "not_allowed")
    assert await told(asking, "GET", path, headers=sse) == (401, "token_missing")


@pytest.mark.parametrize("event_loop_is_busy", [False, True])
async def test_a_stream_ends_with_its_token(asking: Served, event_loop_is_busy: bool) -> None:
    exp = time.time() + 8  # a busy machine takes a second or two to open all streams
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    streams = [await asking.stream("s", **bearer(exp=exp)) for _ in range(20)]
    assert [stream.answer.status for stream in streams] == [200] * 20
    await asyncio.sleep(max(0, exp - 1 - time.time()))
    if event_loop_is_busy:
        while time.time() < exp - 0.1:
            await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    await asyncio.gather(*(stream.rest() for stream in streams))
    assert exp - 0.05 <= time.time() <= exp + 10
    assert all(stream.answer.connection is None for stream in streams)


@pytest.mark.parametrize(
    "path", ["sessions/s/events", "feed?session=s", "stream/s?offset=-1&live=sse", "sessions/s/export"]
)
async def test_the_connection_of_a_stream_is_not_reused(asking: Served, path: str) -> None:
    """It may end with its token, and a client that sent its next request on it would have that cut."""
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    async with asking.http.get(f"/v1/{path}", headers={"Accept": "text/event-stream", **bearer()}) as answer:
        assert (answer.status, answer.headers.get("Connection")) == (200, "close"), await answer.text()
    async with asking.http.get("/v1/sessions/s", headers=bearer()) as answer:
        assert "Connection" not in answer.headers


@on_disk
async def test_a_stream_that_is_behind_ends_in_time_and_resumes_without_a_gap(asking: Served) -> None:
    large = {"events": [{"topic": "t", "data": "x" * 100_000} for _ in range(9)]}
    for _ in range(20):
        await asking.call("POST", "/v1/sessions/s/events", json=large, headers=bearer())
    exp = time.time() + 8
    async with connecting("127.0.0.1", asking.url.rsplit(":", 1)[1], limit=1 << 16) as (reader, writer):
        head = f"GET /v1/sessions/s/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(exp=exp)}\r\n"
        writer.write(f"{head}Accept: text/event-stream\r\n\r\n".encode())
        await asyncio.sleep(max(0, exp - time.time()) + 1)  # takes nothing; the connection is cut nevertheless
        content = b""
        try:
            while piece := await asyncio.wait_for(reader.read(1 << 20), 60):
                content += piece
        except ConnectionError:
            pass
    ids = [line for line in content.split(b"\n") if line.startswith(b"id: ")]
    offsets = [int(line.rsplit(b"-")[-1]) for line in ids]
    assert offsets == list(range(len(offsets)))  # no cursor that claims what was not written
    assert 1 < len(offsets) < 181


async def test_a_long_poll_ends_with_its_token(asking: Served) -> None:
    await asking.call("POST", "/v1/sessions/s/events", json=EVENT, headers=bearer())
    exp = time.time() + 8
    status, body = await asking.call("GET", "/v1/sessions/s/events?from=now&wait=60", headers=bearer(exp=exp))
    assert (status, body["events"]) == (200, [])
    assert time.time() < exp + 10


async def test_a_token_that_does_not_end_soon_is_no_obstacle(asking: Served) -> None:
    stream = await asking.stream("none", **bearer(exp=time.time() + 86400 * 365 * 100))
    assert stream.answer.status in (200, 404)
    stream.close()


async def test_a_token_is_never_told(
    serve: Serve, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(token_secret=SECRET, engine="memory", log_level="debug")
    payload = json.dumps(claims()).encode()
    good = token()
    texts = [
        good,
        token(exp=time.time() - 9),
        token("a stranger's secret, which is long enough"),
        by_hand({"alg": "none"}, payload),
        by_hand({"alg": "HS256", "kid": "k" * 30}, payload, b"x"),
        "not.a." + "token" * 9,
        "x" * 12_000,
        "y" * 64_000,
    ]
    answers = []
    for text in texts:
        for how in (
            {"headers": {"Authorization": f"Bearer {text}"}},
            {"headers": {"Authorization": text}},
            {"headers": {"Cookie": f"wakeline_token={text}"}},
            {"params": {"token": text[:1000]}},
            {"params": {"ticket": text[:1000]}},
        ):
            async with served.http.get("/v1/sessions/none", **how) as answer:  # type: ignore[arg-type]
                answers.append(await answer.text() + str(answer.headers))
                assert answer.status in (400, 401, 403, 404), how
    written = "".join(capfd.readouterr()) + caplog.text + "".join(answers)
    for text in [*texts, SECRET]:
        for part in text.split("."):
            assert len(part) < 20 or part[:40] not in written


async def test_without_keys_nobody_is_asked_and_tokens_are_passed_over(served: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer whatever"}, {"Cookie": "wakeline_token=x"}):
        assert (await served.call("GET", "/v1/sessions", headers=headers))[0] == 200
    status, body = await served.call("POST", "/v1/tickets")
    assert status == 200
    assert (await served.call("GET", f"/v1/sessions?ticket={body['ticket']}"))[0] == 200
    assert await told(served, "GET", "/v1/sessions", headers={"Host": "evil.example"}) == (403, "origin_refused")


async def test_a_session_out_of_reach_and_one_that_is_not_there_are_answered_alike(serve: Serve) -> None:
    served = await serve(token_secret=SECRET)
    everything = {"Authorization": f"Bearer {token(sessions=['*'], allow=['read', 'publish'])}"}
    path = "/v1/sessions/{}/events"
    body = {"events": [{"topic": "t"}]}
    assert (await served.call("POST", path.format("theirs"), json=body, headers=everything))[0] == 200
    mine = {"Authorization": f"Bearer {token(sessions=['mine'], allow=['read', 'publish'])}"}
    told = [(await served.call("GET", path.format(name), headers=mine))[1]["error"] for name in ("theirs", "none")]
    assert told[0]["message"].replace("theirs", "none") == told[1]["message"]
    assert told[0]["hint"] == told[1]["hint"]
    assert "runs without Temporal" in told[0]["hint"]
    assert "wakeline.sessions" in told[0]["hint"]
    # To publish needs no session: the token alone is why not.
    refused = [
        (await served.call("POST", path.format(name), json=body, headers=mine))[1]["error"]
        for name in ("theirs", "none")
    ]
    assert refused[0]["message"] == "the token does not reach session 'theirs'"
    assert refused[1]["message"] == "the token does not reach session 'none'"
    assert "wakeline.sessions" in refused[0]["hint"]
