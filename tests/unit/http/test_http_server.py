from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import Served
from tests.unit.conftest import Serve, on_disk
from wakeline.errors import DataInUseError, ListenRefusedError


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/sessions/a/b/events", 404, "not_found"),
        ("DELETE", "/v1/sessions/s/events", 405, "method_not_allowed"),
        ("GET", "/v1/sessions/s", 404, "session_not_found"),
        ("POST", "/v1/runs", 400, "body_invalid"),
    ],
)
async def test_every_error_has_one_shape(served: Served, method: str, path: str, status: int, code: str) -> None:
    got, body = await served.call(method, path)
    assert (got, body["error"]["code"]) == (status, code)
    assert set(body) == {"error"}
    assert {"code", "message", "hint"} <= set(body["error"])


async def test_health_and_metrics(served: Served) -> None:
    assert await served.call("GET", "/healthz") == (200, {"status": "ok"})
    assert await served.call("GET", "/readyz") == (
        200,
        {"status": "ready", "log": "ok", "temporal": "off", "erasure": "ok"},
    )
    await served.publish("s", {"topic": "t"}, {"topic": "t"})
    await served.call("GET", "/nowhere")
    async with served.http.get("/metrics") as answer:
        text = await answer.text()
    assert "wakeline_events_total 2.0" in text
    assert 'wakeline_errors_total{code="not_found"} 1.0' in text


async def test_a_page_from_elsewhere_cannot_call(serve: Serve) -> None:
    served = await serve(cors_origins=("http://app.example",))
    event = {"events": [{"topic": "t"}]}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        status, body = await served.call("POST", "/v1/sessions/s/events", json=event, headers=headers)
        assert (status, body["error"]["code"]) == (403, "origin_refused")
    status, _ = await served.call("GET", "/v1/sessions/s")
    assert status == 404


async def test_a_named_page_may_call_and_read_streams(serve: Serve) -> None:
    served = await serve(cors_origins=("http://app.example",))
    await served.publish("s", {"topic": "t"})
    origin = {"Origin": "http://app.example"}
    async with served.http.options("/v1/sessions/s/events", headers=origin) as answer:
        assert answer.status == 204
        assert "Wakeline-Sequence" in answer.headers["Access-Control-Allow-Headers"]
    stream = await served.stream("s", **origin)
    assert stream.answer.headers["Access-Control-Allow-Origin"] == "http://app.example"
    assert stream.answer.headers["Vary"] == "Origin"
    stream.close()
    async with served.http.get("/v1/sessions/none", headers=origin) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.example"


async def test_a_header_that_a_page_may_not_send_is_logged_once(serve: Serve) -> None:
    served = await serve(cors_origins=("http://app.example",), cors_headers=("X-Trace",))
    asked = {"Origin": "http://app.example", "Access-Control-Request-Headers": "authorization,x-request-id, x-trace"}
    with capture_logs() as logged:
        for _ in range(2):
            async with served.http.options("/v1/sessions/s/events", headers=asked) as answer:
                assert answer.status == 204
    (line,) = [line for line in logged if "cors_headers" in line["event"]]
    assert (line["log_level"], line["header"], line["origin"]) == ("warning", "x-request-id", "http://app.example")


async def test_the_same_origin_may_call(served: Served) -> None:
    status, _ = await served.call("GET", "/healthz", headers={"Origin": served.url})
    assert status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.com"])
async def test_it_listens_on_loopback_only(serve: Serve, host: str) -> None:
    with pytest.raises(ListenRefusedError):
        await serve(host=host, no_auth=True)


@on_disk
async def test_a_data_directory_has_one_gateway(serve: Serve) -> None:
    await serve()
    with pytest.raises(DataInUseError):
        await serve()


async def test_stopping_ends_streams_and_a_device_resumes_with_the_next_gateway(serve: Serve, tmp_path: object) -> None:
    from wakeline.gateway.app import gateway
    from wakeline.gateway.settings import Settings

    settings = Settings(data=f"{tmp_path}/own", port=0, no_auth=True)
    async with gateway(settings) as url, Served(url) as served:
        await served.publish("s", {"topic": "t", "data": 0}, {"topic": "t", "data": 1})
        stream = await served.stream("s")
        await stream.next()
        cursor = stream.last_id
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 30
    async with gateway(settings) as url, Served(url) as served:
        stream = await served.stream("s", **{"Last-Event-ID": cursor})
        assert (await stream.next())["data"] == 1
        stream.close()


@pytest.mark.parametrize(
    ("path", "hint", "other"),
    [
        ("/v1/sessions/a/b/c", "a / in a session's name is written %2F", "/healthz"),
        ("/v2", "routes begin with /v1/", "%2F"),
    ],
)
async def test_the_hint_of_a_route_that_is_not_there_fits_the_path(
    served: Served, path: str, hint: str, other: str
) -> None:
    status, answer = await served.call("GET", path)
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert hint in answer["error"]["hint"]
    assert other not in answer["error"]["hint"]


async def test_an_empty_body_is_called_empty(served: Served) -> None:
    how: dict[str, Any] = {"data": b"", "headers": {"Content-Type": "application/json"}}
    for method, path in (
        ("POST", "/v1/sessions/s/events"),
        ("POST", "/v1/runs"),
        ("PUT", "/v1/sessions/s/publishers/p"),
        ("POST", "/v1/nudge"),
    ):
        status, answer = await served.call(method, path, **how)
        assert status == 400, path
        assert answer["error"]["message"].endswith("got: nothing, it is empty"), path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions?after=a%00b",
        "/v1/sessions?after=%1F",
        "/v1/notifications?after=a%00b",
        "/v1/notifications?channel=%E2%80%A8",
        "/v1/sessions/s/devices?user=%0Aada",
        "/v1/sessions/s/events?topics=%00",
        "/v1/feed?session=s&topics=%7F",
    ],
)
async def test_a_parameter_with_a_control_character_is_refused_by_its_name(served: Served, path: str) -> None:
    await served.publish("s", {"topic": "t"})
    status, body = await served.call("GET", path)
    name = path.rpartition("&")[2].rpartition("?")[2].partition("=")[0]
    assert (status, body["error"]["code"]) == (400, "request_invalid")
    assert body["error"]["message"].startswith(f"expected {name} without control characters, got '")


async def test_nobody_learns_from_readyz_where_temporal_is(serve: Serve) -> None:
    served = await serve(temporal="127.0.0.1:1")
    async with asyncio.timeout(60):
        while not (answer := (await served.call("GET", "/readyz"))[1])["temporal"].startswith("unreachable: "):
            await asyncio.sleep(0.02)
    assert (answer["status"], answer["log"]) == ("degraded", "ok")
    assert "127.0.0.1" not in str(answer)


async def test_nobody_learns_from_a_read_where_temporal_is(serve: Serve) -> None:
    served = await serve(temporal="127.0.0.1:1")
    status, body = await served.call("GET", "/v1/sessions/order-1/events")
    assert (status, body["error"]["code"]) == (503, "temporal_unavailable")
    assert body["error"]["message"] == "Temporal cannot be reached now"


async def test_a_websocket_through_a_proxy_that_drops_its_headers_is_refused_with_what_to_pass_on(
    served: Served,
) -> None:
    status, answer = await served.call("GET", "/v1/publish")
    assert (status, answer["error"]["code"]) == (400, "request_invalid")
    assert "have each proxy in between pass on Upgrade and Connection" in answer["error"]["hint"]


async def test_a_path_with_the_version_twice_is_refused_with_the_url_s_correction(served: Served) -> None:
    status, answer = await served.call("GET", "/v1/v1/sessions/s/events")
    assert (status, answer["error"]["hint"]) == (404, "Write the gateway's URL without /v1: clients add it.")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/sessions/s?x=1", "expected no query parameter, because this route has none; got 'x'"),
        ("/v1/sessions/s/requests?x=1", "expected one of the query parameters after, limit; got 'x'"),
        ("/v2/sessions", "the gateway has no route '/v2/sessions'"),
    ],
)
async def test_a_mistaken_path_or_query_is_refused_in_words(served: Served, path: str, message: str) -> None:
    assert (await served.call("GET", path))[1]["error"]["message"] == message
