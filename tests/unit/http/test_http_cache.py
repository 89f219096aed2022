"""Pages that never change may be kept by caches, for tokens that say so."""

from __future__ import annotations

import pytest

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve

PATH = "/v1/sessions/s/events"
KEPT = "private, max-age=31536000, immutable"


@pytest.fixture
async def asking(serve: Serve) -> Served:
    served = await serve(token_secret=SECRET)
    batch = {"events": [{"topic": "x" if n % 2 else "y", "data": n} for n in range(20)]}
    status, _ = await served.call("POST", PATH, json=batch, headers=bearer())
    assert status == 200
    return served


async def get(served: Served, query: str, **headers: str) -> tuple[int, str, str | None, bytes]:
    async with served.http.get(f"{PATH}?{query}", headers=headers) as answer:
        return answer.status, answer.headers["Cache-Control"], answer.headers.get("ETag"), await answer.read()


async def test_a_full_page_is_kept_and_asked_for_by_its_tag(asking: Served) -> None:
    cached = bearer(cache=True)
    _, state = await asking.call("GET", "/v1/sessions/s", headers=cached)
    query = f"from={state['epoch']}-5&limit=5"
    status, control, tag, body = await get(asking, query, **cached)
    assert (status, control) == (200, KEPT)
    assert tag is not None
    assert await get(asking, query, **cached) == (200, KEPT, tag, body)
    assert await get(asking, query, **cached, **{"If-None-Match": tag}) == (304, KEPT, tag, b"")


async def test_a_kept_page_is_not_shown_to_a_request_that_begins_elsewhere(asking: Served) -> None:
    cached = bearer(cache=True)
    _, state = await asking.call("GET", "/v1/sessions/s", headers=cached)
    path, at = f"{PATH}?from={state['epoch']}-5&limit=5", {"Last-Event-ID": f"{state['epoch']}-7"}
    async with asking.http.get(path, headers={**cached, **at}) as answer:
        assert (await answer.json())["events"][0]["data"] == 7
        varies = {name.strip() for name in answer.headers["Vary"].split(",")}
    assert {"Accept", "Last-Event-ID", "Authorization"} <= varies


async def test_another_page_has_another_tag(asking: Served) -> None:
    cached = bearer(cache=True)
    _, state = await asking.call("GET", "/v1/sessions/s", headers=cached)
    at = f"from={state['epoch']}-"
    queries = [
        f"{at}5&limit=5",
        f"{at}5&limit=6",
        f"{at}6&limit=5",
        f"{at}5&limit=5&topics=x",
        f"{at}5&limit=5&topics=y",
    ]
    tags = [(await get(asking, query, **cached))[2] for query in queries]
    assert None not in tags
    assert len(set(tags)) == 5
    narrower = bearer(cache=True, topics=["x"])
    assert (await get(asking, queries[0], **narrower))[2] == tags[3], "expected the tag of the page with the same bytes"


@pytest.mark.parametrize(
    "query", ["from={at}15&limit=5", "from={at}15", "from=beginning&limit=5", "from=tail:9&limit=2"]
)
async def test_a_page_that_may_change_is_not_kept(asking: Served, query: str) -> None:
    cached = bearer(cache=True)
    _, state = await asking.call("GET", "/v1/sessions/s", headers=cached)
    _, control, tag, _ = await get(asking, query.format(at=f"{state['epoch']}-"), **cached)
    assert (control, tag) == ("no-store", None)


async def test_a_token_that_does_not_say_so_gets_nothing_to_keep(asking: Served) -> None:
    _, state = await asking.call("GET", "/v1/sessions/s", headers=bearer())
    _, control, tag, _ = await get(asking, f"from={state['epoch']}-5&limit=5", **bearer())
    assert (control, tag) == ("no-store", None)


async def test_a_tag_opens_nothing_to_who_may_not_read(asking: Served) -> None:
    cached = bearer(cache=True)
    _, state = await asking.call("GET", "/v1/sessions/s", headers=cached)
    query = f"from={state['epoch']}-5&limit=5"
    _, _, tag, _ = await get(asking, query, **cached)
    assert tag is not None
    status, control, _, _ = await get(asking, query, **bearer(cache=True, sessions=["other"]), **{"If-None-Match": tag})
    assert (status, control) == (404, "no-store")
