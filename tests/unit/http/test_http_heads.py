"""Heads of requests, byte by byte: what no client library would send is refused, and never a defect."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.connecting import connecting
from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve

ROUTES = sorted(
    {
        (method.upper(), re.sub(r"\{\w+[^/]*\}", "x", path))
        for file in (Path(__file__).parents[3] / "src/wakeline/gateway/http").glob("*.py")
        for method, path in re.findall(r'web\.(get|post|put|delete)\(\s*"([^"]+)"', file.read_text())
    }
    | {(method, "/v1/stream/x") for method in ("GET", "HEAD", "POST", "PUT", "DELETE")}
)
HEADERS = [
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Expect",
    "Cookie",
    "If-None-Match",
    "Last-Event-ID",
    "Origin",
    "Producer-Epoch",
    "Producer-Id",
    "Producer-Seq",
    "Referer",
    "Sec-Fetch-Site",
    "Sec-WebSocket-Key",
    "Stream-Closed",
    "Stream-Expires-At",
    "Stream-Seq",
    "Stream-TTL",
    "Upgrade",
    "Wakeline-Activity",
    "Wakeline-Attempt",
    "Wakeline-Namespace",
    "Wakeline-Publisher",
    "Wakeline-Run",
    "Wakeline-Sequence",
    "Wakeline-Supersede",
    "Wakeline-Workflow",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Whatever",
]


async def ask(served: Served, *heads: bytes, host: bytes = b"localhost") -> int:
    """The status of the answer to a request with this head, the bytes as they are."""
    async with connecting("127.0.0.1", served.url.rsplit(":", 1)[1]) as (reader, writer):
        lines = [heads[0] + b" HTTP/1.1", b"Host: " + host, *heads[1:], b"Content-Length: 0", b"Connection: close"]
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 60)
        return int(line.split()[1])


@pytest.mark.parametrize("keys", [{}, {"token_secret": SECRET}], ids=["no auth", "tokens"])
async def test_headers_that_are_not_utf8_are_refused_on_every_route(serve: Serve, keys: dict[str, str]) -> None:
    served = await serve(**keys)
    for method, path in ROUTES:
        for name in ("Wakeline-Publisher", "Content-Type", "Expect", "X-Whatever"):
            head = f"{method} {path}".encode()
            assert await ask(served, head, name.encode() + b": a\xff\xfe\xed\xa0\x80") == 400, (method, path, name)
    for name in HEADERS:
        for route in (b"POST /v1/sessions/x/events", b"PUT /v1/stream/x"):
            assert await ask(served, route, name.encode() + b": \xff") == 400, name


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/sessions/\xff",
        b"/v1/sessions/%ff",
        b"/v1/sessions/%ED%A0%80/events",
        b"/v1/sessions/x/devices?user=%ff",
        b"/v1/sessions/x/events?topics=%ff&wait_for_start=true",
        b"/v1/sessions/x/events?from=\xff",
        b"/v1/feed?session=%ff",
        b"/v1/stream/%ff?offset=%ff",
        b"http://\xff/v1/sessions",
        b"http://[::1/v1/sessions",
        b"//",
        b"*",
        b"/v1/sessions?after=%ff",
    ],
)
async def test_no_target_is_a_defect(served: Served, target: bytes) -> None:
    for method in (b"GET", b"PUT", b"DELETE"):
        assert await ask(served, method + b" " + target) < 500


@pytest.mark.parametrize("keys", [{}, {"token_secret": SECRET}], ids=["no auth", "tokens"])
@pytest.mark.parametrize(
    "host",
    [
        b"localhost:80@evil.test",
        b"[::1",
        b"localhost:1:2",
        b"localhost:",
        b"a b",
        b"localhost/x",
        b"\x01",
        b"localhost, evil.test",
    ],
)
async def test_a_host_that_is_none_is_refused(serve: Serve, keys: dict[str, str], host: bytes) -> None:
    served = await serve(**keys)
    token = bearer()["Authorization"].encode() if keys else b"none"
    for head in (b"GET /v1/sessions", b"PUT /v1/stream/x"):
        assert await ask(served, head, b"Authorization: " + token, host=host) in (400, 403)


async def test_hosts_of_this_machine_are_taken(served: Served) -> None:
    for host in (b"localhost", b"LOCALHOST:7777", b"127.0.0.1:7777", b"[::1]:7777", b"[::1]"):
        assert await ask(served, b"GET /v1/sessions", host=host) == (403 if host.isupper() else 200)
    assert await ask(served, b"GET /v1/sessions", b"Host: evil.test") in (400, 403)


@pytest.mark.parametrize(("count", "size"), [(320, 100), (100, 330), (10, 4000)])
async def test_a_head_over_the_limit_is_refused_however_it_arrives(served: Served, count: int, size: int) -> None:
    many = [b"X-%d: %s" % (number, b"y" * size) for number in range(count)]
    assert await ask(served, b"GET /v1/sessions", *many[: count // 4]) == 200
    assert await ask(served, b"GET /v1/sessions", *many) == 400
    async with connecting("127.0.0.1", served.url.rsplit(":", 1)[1]) as (reader, writer):
        first = b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n"
        writer.write(first + b"\r\n" + first + b"\r\n".join(many) + b"\r\n\r\n")  # behind another one, in one piece
        answers = b""
        async with asyncio.timeout(60):
            while b" 400 " not in answers and (more := await reader.read(1 << 16)):
                answers += more
    assert re.findall(rb"HTTP/1.\d (\d+)", answers)[-1] == b"400"


async def test_another_site_s_page_makes_nothing_by_an_image_or_a_link(serve: Serve) -> None:
    served = await serve(cors_origins=("https://app.example",))
    path = "/v1/sessions/made/events?device=d&wait_for_start=true&wait=0"
    for site in ("cross-site", "same-site"):
        for more in ({}, {"Referer": "https://evil.test/"}, {"Sec-Fetch-Mode": "navigate"}):
            status, answer = await served.call("GET", path, headers={"Sec-Fetch-Site": site, **more})
            assert (status, answer["error"]["code"]) == (403, "origin_refused")
    assert (await served.call("GET", "/v1/sessions"))[1]["sessions"] == []
    assert (await served.call("GET", "/healthz", headers={"Sec-Fetch-Site": "cross-site"}))[0] == 200
    allowed: tuple[dict[str, str], ...] = ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {})
    named = ({"Sec-Fetch-Site": "cross-site", "Referer": "https://app.example/page"},)
    crossing = ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"},)
    for headers in (*allowed, *named, *crossing):
        assert (await served.call("GET", path, headers=headers))[0] == 200
