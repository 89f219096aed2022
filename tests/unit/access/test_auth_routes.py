"""Every route there is, also those to come: it asks who calls, and keeps what was not granted to itself."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from tests.support import Served
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve
from wakeline.gateway.http import routes

FREE = {"/", "/healthz", "/readyz"}  # the page at / holds no data, and asks for a token itself
ANY_TOKEN = {"/v1/tickets", "/v1/push"}
BY_LINK = {"/v1/answers/{link}"}
BY_BODY, BY_QUERY = "/v1/runs", "/v1/feed"  # where a session is not named in the path
EVENT = {"events": [{"topic": "t", "data": 1}]}


class Route:
    """One route, and how to call it."""

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names_a_session(self) -> bool:
        return "{session}" in self.path or self.path in (BY_BODY, BY_QUERY)

    async def call(self, served: Served, session: str, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        path = self.path.replace("{session}", session).replace("{device}", "phone").replace("{publisher}", "p")
        body = {"workflow_id": session} if self.path == BY_BODY else EVENT
        query = {"session": session} if self.path == BY_QUERY else None
        async with served.http.request(self.method, path, params=query, json=body, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name != "Date"}
            return answer.status, await answer.read(), kept


@pytest.fixture
async def asking(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> tuple[Served, list[Route]]:
    """A gateway that asks, with two sessions, and its routes."""
    made: list[web.Application] = []

    def application(parts: Any) -> web.Application:
        made.append(routes.application(parts))
        return made[0]

    monkeypatch.setattr("wakeline.gateway.app.application", application)
    served = await serve(token_secret=SECRET, engine="memory")
    for name in ("order-1", "mine"):
        await served.call("POST", f"/v1/sessions/{name}/events", json=EVENT, headers=bearer())
    found = {(route.method, route.resource.canonical) for route in made[0].router.routes() if route.resource}
    return served, [Route(*one) for one in sorted(found) if one[0] != "*"]


async def test_every_route_but_health_and_the_page_asks_who_calls(asking: tuple[Served, list[Route]]) -> None:
    served, every = asking
    assert len(every) > 10
    for route in every:
        status, _, headers = await route.call(served, "order-1", {})
        if route.path in FREE:
            assert status == 200, route
        elif route.path in BY_LINK:  # the link itself is asked for
            assert status == 404, route
        else:
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), route


async def test_every_route_refuses_a_token_that_allows_nothing(asking: tuple[Served, list[Route]]) -> None:
    served, every = asking
    for route in every:
        if route.path not in FREE | BY_LINK | ANY_TOKEN:
            status, body, _ = await route.call(served, "order-1", bearer(allow=[]))
            assert status == 403, (route, body)


async def test_no_route_tells_whether_there_is_a_session_that_was_not_granted(
    asking: tuple[Served, list[Route]],
) -> None:
    served, every = asking
    for route in every:
        if route.names_a_session:
            there = await route.call(served, "order-1", bearer(sessions=["mine"]))
            nowhere = await route.call(served, "order-2", bearer(sessions=["mine"]))
            assert there[0] == 404, (route, there)
            assert (there[0], there[1].replace(b"order-1", b"order-2"), there[2]) == nowhere, route
    status, _ = await served.call("GET", "/v1/sessions/order-1", headers=bearer())
    assert status == 200  # nothing of it was done
