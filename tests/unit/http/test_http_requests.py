"""What every route does with a request's parameters and headers, whichever route it is."""

from __future__ import annotations

import gzip
import importlib
import pkgutil
import re
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import pytest
import yaml  # type: ignore[import-untyped]
from aiohttp import web
from yarl import URL

import wakeline.gateway.http
from tests.docs.markdown import ROOT, text
from tests.support import Served
from tests.unit.conftest import Serve
from wakeline.errors import SettingsInvalidError
from wakeline.events import Cursor
from wakeline.gateway.http.parameters import taken
from wakeline.gateway.transports.negotiation import accepts_gzip
from wakeline.gateway.transports.sse import wanted

OPENAPI: dict[str, Any] = yaml.load((ROOT / "docs/reference/openapi.yaml").read_text(), Loader=yaml.CSafeLoader)


def routes() -> dict[tuple[str, str], web.RouteDef]:
    """Every route of every group, by method and path."""
    found: dict[tuple[str, str], web.RouteDef] = {}
    for module in pkgutil.iter_modules(wakeline.gateway.http.__path__):
        there = vars(importlib.import_module(f"wakeline.gateway.http.{module.name}"))
        for name, group in there.items():
            if name.endswith("Routes") and group.__module__.endswith(module.name):
                found |= {(route.method, route.path): route for route in group(MagicMock()).routes()}
    return found


ROUTES = routes()
EACH = pytest.mark.parametrize(("method", "path"), list(ROUTES), ids=lambda part: part)


def parameters(method: str, path: str, where: str) -> set[str]:
    """The names of a route's parameters in the document."""
    item = OPENAPI["paths"][path]
    named = [*item.get("parameters", []), *item[method.lower()].get("parameters", [])]
    resolved = [
        OPENAPI["components"]["parameters"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in named
    ]
    return {one["name"] for one in resolved if one["in"] == where}


def at(path: str, query: str = "") -> URL:
    filled = re.sub(r"\{device\}", "phone", re.sub(r"\{session[^}]*\}+", "s", path.replace(":(?s:.+)", "")))
    return URL(f"{filled.replace('{publisher}', 'p')}?{query}", encoded=True)


def is_page(path: str) -> bool:
    """Return whether people open it: mail programs add parameters to its URL, and it answers with HTML."""
    return path.startswith("/v1/answers/")


def test_there_are_routes() -> None:
    assert len(ROUTES) > 20


@EACH
def test_a_route_accepts_the_parameters_of_its_document(method: str, path: str) -> None:
    if path.startswith("/v1/stream/"):
        return  # another protocol's document
    ignored = {"*"} if is_page(path) else set()
    assert set(taken(ROUTES[method, path].handler)) == parameters(method, path, "query") | ignored


@EACH
async def test_an_unknown_parameter_is_refused_by_name(served: Served, method: str, path: str) -> None:
    if is_page(path):
        async with served.http.request(method, at(path, "utm_source=mail")) as answer:
            assert (answer.status, "utm_source" in await answer.text()) == (404, False)
        return
    status, body = await served.call(method, str(at(path, "form=now")))
    if path.startswith("/v1/stream/"):  # its protocol has them passed over
        assert "form" not in str(body)
    else:
        assert (status, body["error"]["code"], "'form'" in body["error"]["message"]) == (400, "request_invalid", True)


async def test_a_repeated_parameter_is_refused(served: Served) -> None:
    status, body = await served.call("GET", "/v1/sessions/s/events?from=now&from=beginning")
    assert (status, body["error"]["message"]) == (400, "expected from once, got it 2 times")


@pytest.mark.parametrize("query", ["before=now", "limit=3", "wait=1"])
async def test_parameters_of_pages_are_refused_on_a_stream(served: Served, query: str) -> None:
    stream = {"Accept": "text/event-stream"}
    status, body = await served.call("GET", f"/v1/sessions/s/events?{query}", headers=stream)
    assert (status, query.split("=")[0] in body["error"]["message"]) == (400, True)


async def test_a_socket_accepts_no_parameter_of_the_stream(served: Served) -> None:
    async with served.http.get(
        "/v1/feed?session=s", headers={"Connection": "Upgrade", "Upgrade": "websocket"}
    ) as answer:
        assert (answer.status, "'session'" in await answer.text()) == (400, True)


async def test_a_polyfill_resumes_by_its_parameter_and_the_header_wins(served: Served) -> None:
    epoch = (await served.publish("s", *({"topic": "t", "data": number} for number in range(3))))["epoch"]
    first, second = str(Cursor(epoch, 1)), str(Cursor(epoch, 2))
    stream = await served.stream("s", f"lastEventId={first}&from=now")
    assert (await stream.next())["data"] == 1
    stream = await served.stream("s", f"lastEventId={first}", **{"Last-Event-ID": second})
    assert (await stream.next())["data"] == 2
    stream = await served.stream("s", "lastEventId=")
    assert (await stream.next())["data"] == 0
    resumed = ""
    async with served.http.get("/v1/feed?session=s&from=beginning") as answer:
        while not resumed.startswith("id: ") or len(resumed) < 10:
            resumed = (await answer.content.readline()).decode()
    async with served.http.get(f"/v1/feed?session=s&lastEventId={quote(resumed[4:].strip())}") as answer:
        assert answer.status == 200


async def test_a_polyfill_resumes_a_durable_stream(served: Served) -> None:
    kind = {"Content-Type": "text/plain"}
    async with served.http.put("/v1/stream/d", data="one", headers=kind) as answer:
        offset = answer.headers["Stream-Next-Offset"]
    await served.http.post("/v1/stream/d", data="two", headers=kind)
    async with served.http.get(f"/v1/stream/d?live=sse&offset=-1&lastEventId={offset}") as answer:
        lines = [(await answer.content.readline()).decode() for _ in range(6)]
    assert "two" in "".join(lines)
    assert "one" not in "".join(lines)


@EACH
async def test_an_escape_that_is_not_utf_8_is_refused_on_every_route(served: Served, method: str, path: str) -> None:
    filled = str(at(path)).rstrip("?")
    targets = [
        f"{filled}?ticket=%FF",
        filled[:-1] + "%FF",
        filled[:-1] + "%ED%A0%BD",
        filled.replace("/s/", "/%C0%AF/"),
    ]
    for target in targets:
        if target == filled:
            continue
        status, body = await served.call(method, target)
        assert status == 400, target
        if method != "HEAD":
            assert body["error"]["code"] == "request_invalid"
            assert "percent-encoded UTF-8" in body["error"]["message"]


async def test_an_escaped_percent_sign_is_part_of_a_name(served: Served) -> None:
    status, body = await served.call("PUT", "/v1/sessions/%25FF%C3%A9", json={})
    assert (status, body["session"]) == (201, "%FFé")


@EACH
async def test_a_body_that_is_not_in_its_encoding_is_no_defect(served: Served, method: str, path: str) -> None:
    if method not in ("POST", "PUT") or is_page(path):
        return
    kind = "application/x-ndjson" if path.endswith("import") else "application/json"
    await served.http.put("/v1/stream/s", headers={"Content-Type": "application/json"})
    reads = not path.endswith(("/close", "/tickets", "/retry", "/stop"))
    whole = gzip.compress(b'{"events": [{"topic": "t"}]}')
    for encoding, body in (
        ("gzip", b"not gzip"),
        ("gzip", whole[:-4]),
        ("deflate", b"\x00zz"),
        ("br", b"zz"),
        ("gzip, gzip", b"zz"),
    ):
        headers = {"Content-Type": kind, "Content-Encoding": encoding}
        status, answer = await served.call(method, str(at(path)), data=body, headers=headers)
        if reads:
            code = "encoding_invalid" if encoding in ("gzip", "deflate") else "encoding_unknown"
            assert (status, answer["error"]["code"]) == (400 if code == "encoding_invalid" else 415, code)
        else:
            assert status < 500 or answer["error"]["code"] == "temporal_unavailable"


@pytest.mark.parametrize("path", ["/v1/sessions/s/events", "/v1/sessions/s/close", "/nowhere"])
async def test_an_unknown_expectation_is_refused_in_the_one_shape(served: Served, path: str) -> None:
    status, body = await served.call("POST", path, headers={"Expect": "202-maybe"})
    assert (status, body["error"]["code"]) == (417, "expectation_failed")
    assert "202-maybe" in body["error"]["message"]


@pytest.mark.parametrize(
    ("accept", "stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0.5, application/json;q=0.4", True),
        ("text/event-stream; charset=utf-8 ; Q=0.9, */*;q=0.1", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0.5, application/json", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_accept_is_read_without_case_and_with_its_weights(accept: str, stream: bool) -> None:
    request = MagicMock()
    request.headers.getall.return_value = [accept]
    assert wanted(request) is stream


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip, br", True), ("GZIP", True), ("*", True), ("gzip;q=0", False), ("*;q=0, gzip;q=0.1", True), ("br", False)],
)
def test_a_page_is_compressed_for_clients_that_accept_it(accepted: str, compressed: bool) -> None:
    assert accepts_gzip({"Accept-Encoding": accepted}) is compressed


async def test_a_page_may_send_every_header_of_the_protocol(serve: Serve) -> None:
    served = await serve(cors_origins=("http://app.example",), cors_headers=("X-Request-Id",))
    asked = {"Origin": "http://app.example", "Access-Control-Request-Method": "POST"}
    async with served.http.options("/v1/sessions/s/events", headers=asked) as answer:
        allowed = {name.strip() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    documents = text("PROTOCOL.md") + text("docs/reference/durable-streams.md")
    headers = {
        *re.findall(r"`(Wakeline-[A-Z]\w+|Producer-(?:Id|Epoch|Seq)|Stream-(?:Closed|Seq|TTL|Expires-At))`", documents),
        *("Last-Event-ID", "If-None-Match", "Content-Type", "Authorization"),
        *("traceparent", "tracestate", "baggage", "X-Request-Id"),
    }
    headers |= {
        name for method, path in ROUTES if path in OPENAPI["paths"] for name in parameters(method, path, "header")
    }
    assert len(headers) > 20
    assert headers - allowed == set()


async def test_a_name_that_no_header_has_is_refused_at_start(serve: Serve) -> None:
    for name in ("*", "X Request", ""):
        with pytest.raises(SettingsInvalidError, match="cors_headers"):
            await serve(cors_headers=(name,))
