"""Where a read begins: `from=` in all its forms, and pages backwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import Served
from tests.unit.conftest import on_disk

PATH = "/v1/sessions/s/events"


async def fill(served: Served, count: int, *, every: int = 1) -> str:
    """`count` events; each `every`-th has the topic `x`, the others `y`. Gives the epoch."""
    events = [{"topic": "x" if n % every == 0 else "y", "data": n} for n in range(count)]
    answer = await served.publish("s", *events)
    return str(answer["epoch"])


async def page(served: Served, query: str) -> dict[str, Any]:
    status, body = await served.call("GET", f"{PATH}?{query}")
    assert status == 200, body
    assert isinstance(body, dict)
    return body


def offsets(body: dict[str, Any]) -> list[int]:
    return [event["offset"] for event in body["events"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=tail:3", [17, 18, 19]),
        ("from=tail:0", []),
        ("from=tail:100", list(range(20))),
        ("from=tail:2&topics=x", [10, 15]),
        ("from=tail:10000&topics=x", [0, 5, 10, 15]),
        ("from=tail:1&topics=none", []),
        ("from=tail:0&topics=x", []),
        ("topics=x*", [0, 5, 10, 15]),
        ("topics=nothing*,x", [0, 5, 10, 15]),
    ],
)
async def test_the_tail_is_counted_in_matching_events(served: Served, query: str, expected: list[int]) -> None:
    await fill(served, 20, every=5)
    assert offsets(await page(served, query)) == expected


@on_disk
async def test_a_rare_topic_far_back_is_found(served: Served) -> None:
    await served.publish("s", {"topic": "rare"})
    for _ in range(3):
        await served.publish("s", *[{"topic": "t", "data": "x" * 100} for _ in range(2000)])
    assert offsets(await page(served, "from=tail:1&topics=rare")) == [0]
    assert offsets(await page(served, "before=now&topics=rare")) == [0]


@pytest.mark.parametrize(
    "text", ["tail:", "tail:-1", "tail:1.5", "tail:01", "tail:10001", "tail:x", "tail:99999999999"]
)
async def test_a_tail_that_is_no_number_is_refused(served: Served, text: str) -> None:
    await fill(served, 1)
    status, body = await served.call("GET", f"{PATH}?from={text}")
    assert (status, body["error"]["code"]) == (400, "request_invalid")
    assert body["error"]["message"] == f"expected tail:N with N from 0 to 10000, got {text!r}"


@on_disk
async def test_time_begins_at_the_first_event_not_older(served: Served) -> None:
    times = []
    for n in range(12):
        await served.publish("s", {"topic": "t", "data": n})
        times.append((await page(served, "from=tail:1"))["events"][0]["time"])
        await asyncio.sleep(0.003)
    for n, time in enumerate(times):
        first = next(i for i, other in enumerate(times) if other >= time)
        assert offsets(await page(served, f"from=time:{time}")) == list(range(first, 12)), n
    assert offsets(await page(served, "from=time:2000-01-01T00:00:00%2B02:00")) == list(range(12))
    assert offsets(await page(served, "from=time:2100-01-01T00:00:00Z")) == []


@pytest.mark.parametrize(
    "text", ["time:", "time:yesterday", "time:2026-11-21", "time:2026-11-21T05:14:43", "time:12345"]
)
async def test_a_time_without_an_offset_is_refused(served: Served, text: str) -> None:
    await fill(served, 1)
    status, body = await served.call("GET", f"{PATH}?from={text}")
    assert (status, body["error"]["code"]) == (400, "request_invalid")


async def test_a_page_says_where_it_began_and_where_it_ends(served: Served) -> None:
    epoch = await fill(served, 5)
    body = await page(served, "from=tail:2&limit=1")
    assert (body["from"], body["cursor"], body["up_to_date"]) == (f"{epoch}-3", f"{epoch}-4", False)
    body = await page(served, f"from={epoch}-5")
    assert (body["from"], body["cursor"], body["up_to_date"], body["closed"]) == (
        f"{epoch}-5",
        f"{epoch}-5",
        True,
        False,
    )


@pytest.mark.parametrize("topics", ["", "&topics=x"])
@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
async def test_pages_backwards_are_the_log_in_its_order(served: Served, limit: int, topics: str) -> None:
    await fill(served, 23, every=4 if topics else 1)
    expected = offsets(await page(served, f"from=beginning{topics}"))
    read: list[int] = []
    before: str | None = "now"
    for _ in range(40):
        body = await page(served, f"before={before}&limit={limit}{topics}")
        assert len(body["events"]) <= limit
        read = offsets(body) + read
        before = body["previous"]
        if before is None:
            break
    assert before is None
    assert read == expected


@on_disk
async def test_a_page_backwards_of_large_events_stays_small(served: Served) -> None:
    for _ in range(6):
        await served.publish("s", *[{"topic": "t", "data": "x" * 100_000} for _ in range(2)])
    body = await page(served, "before=now&limit=10000")
    assert 1 <= len(body["events"]) <= 4
    assert body["events"][-1]["offset"] == 11
    assert body["previous"] is not None


async def test_backwards_goes_with_neither_from_nor_wait(served: Served) -> None:
    await fill(served, 1)
    for query in ("before=now&from=beginning", "before=now&wait=1"):
        status, body = await served.call("GET", f"{PATH}?{query}")
        assert (status, body["error"]["code"]) == (400, "request_invalid")


async def test_a_large_page_is_compressed_for_who_takes_it(served: Served) -> None:
    await served.publish("s", *[{"topic": "t", "data": "x" * 100} for _ in range(200)])
    async with served.http.get(PATH, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len((await answer.json())["events"]) == 200
    async with served.http.get(PATH, headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers
    async with served.http.get(PATH, headers={"Accept-Encoding": "gzip", "Accept": "text/event-stream"}) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_nothing_is_kept_by_caches_unless_a_token_says_so(served: Served) -> None:
    epoch = await fill(served, 10)
    async with served.http.get(f"{PATH}?from={epoch}-0&limit=2") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert "ETag" not in answer.headers


async def test_a_beginning_that_is_none_is_refused_with_all_that_there_are(served: Served) -> None:
    await fill(served, 1)
    status, body = await served.call("GET", f"{PATH}?from=yesterday")
    assert (status, body["error"]["code"]) == (400, "cursor_invalid")
    for beginning in ("beginning", "now", "tail:N", "time:T", "device"):
        assert beginning in body["error"]["message"]
        assert beginning in body["error"]["hint"]


async def test_a_page_refuses_to_end_by_until_which_streams_alone_do(served: Served) -> None:
    await fill(served, 1)
    status, body = await served.call("GET", f"{PATH}?until=settled")
    assert (status, body["error"]["code"]) == (400, "request_invalid")
    assert "until=settled with Accept: text/event-stream" in body["error"]["message"]
    assert (await served.call("GET", f"{PATH}?until=never"))[0] == 200
