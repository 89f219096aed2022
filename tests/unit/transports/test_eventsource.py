"""A browser's `EventSource` gives up for good on any status but 200: an error that will pass is told as a stream."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer, by_hand, token
from tests.unit.conftest import Serve
from wakeline.cli.processes import free_port

PLAIN = {"Accept": "text/event-stream"}
EVENT_SOURCE = {**PLAIN, "Cache-Control": "no-cache"}
PATHS = ["/v1/sessions/s/events", "/v1/feed?session=s", "/v1/stream/s?live=sse&offset=-1"]
EACH = pytest.mark.parametrize("path", PATHS)


async def told(served: Served, path: str, **headers: str) -> tuple[int, str, int]:
    """The status and error that an EventSource is told, and its `retry`; that of a plain client must be the error's own."""
    status, body = await served.call("GET", path, headers={**PLAIN, **headers})
    assert (
        status
        == {"token_expired": 401, "token_missing": 401, "limit_reached": 429, "unavailable": 503}[body["error"]["code"]]
    )
    async with served.http.get(path, headers={**EVENT_SOURCE, **headers}) as answer:
        if answer.status != 200:
            return answer.status, (await answer.json())["error"]["code"], 0
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        retry, event, data = (await answer.text()).strip().split("\n")
    assert event == "event: error"
    error: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert error == body
    return 200, error["error"]["code"], int(retry.removeprefix("retry: "))


@EACH
async def test_a_token_that_has_expired_may_be_renewed(serve: Serve, path: str) -> None:
    served = await serve(token_secret=SECRET, engine="memory")
    status, code, retry = await told(
        served, path, Cookie=f"wakeline_token={token(exp=time.time() - 1)}", Referer=served.url
    )
    assert (status, code) == (200, "token_expired")
    assert 3000 <= retry <= 4500


@EACH
async def test_a_reader_with_a_cursor_may_renew_a_cookie_that_the_browser_dropped(serve: Serve, path: str) -> None:
    served = await serve(token_secret=SECRET, engine="memory")
    assert await told(served, path) == (401, "token_missing", 0)
    status, code, _ = await told(served, path, **{"Last-Event-ID": "k3v7x2abqm-18"})
    assert (status, code) == (200, "token_missing")


@EACH
async def test_keys_that_cannot_be_fetched_yet_are_a_temporary_error(serve: Serve, path: str) -> None:
    served = await serve(token_jwks=f"http://127.0.0.1:{free_port()}/keys", engine="memory")
    authorization = {"Authorization": f"Bearer {by_hand({'alg': 'RS256', 'kid': 'k'}, b'{}')}"}
    status, code, retry = await told(served, path, **authorization)
    assert (status, code) == (200, "unavailable")
    assert 2000 <= retry <= 3000


async def test_a_limit_is_reached_until_others_leave(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, user_connections=1, engine="memory")
    await served.call("POST", "/v1/sessions/s/events", json={"events": [{"topic": "t"}]}, headers=bearer())
    stream = await served.stream("s", **bearer())
    await stream.next()
    for path in PATHS[:2]:
        status, code, retry = await told(served, path, **bearer())
        assert (status, code, retry >= 1000) == (200, "limit_reached", True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/sessions/s/events?from=nowhere", 400),
        ("/v1/sessions/none/events", 404),
        ("/v1/sessions/s/events?from=aaaaaaaaaa-0", 410),
        ("/nowhere", 404),
    ],
)
async def test_an_error_that_will_not_pass_ends_it(served: Served, path: str, status: int) -> None:
    await served.publish("s", {"topic": "t"})
    assert (await served.call("GET", path, headers=EVENT_SOURCE))[0] == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sessions/s/events"),
        ("PUT", "/v1/sessions/s/devices/d"),
        ("DELETE", "/v1/sessions/s"),
        ("POST", "/v1/tickets"),
        ("POST", "/v1/stream/s"),
        ("GET", "/v1/sessions"),
        ("GET", "/metrics"),
    ],
)
async def test_a_request_for_no_stream_is_answered_with_its_status(serve: Serve, method: str, path: str) -> None:
    served = await serve(token_secret=SECRET, engine="memory")
    for token_headers in (bearer(exp=time.time() - 1), {"Last-Event-ID": "k3v7x2abqm-18"}):
        status, body = await served.call(method, path, headers={**EVENT_SOURCE, **token_headers})
        assert (status, body["error"]["code"]) in ((401, "token_expired"), (401, "token_missing"))
