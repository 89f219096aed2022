"""Background work is done by the gateway that owns it, and goes on when another gateway takes it over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.shared.conftest import Gateway, OnNats, OnPostgres, Start, shared_out
from tests.sharing import SharedEngine
from wakeline.gateway.sessions import retention

NAMES = [f"s{number}" for number in range(24)]


async def publish(served: Gateway, session: str, count: int) -> None:
    events = [{"topic": "t", "data": number} for number in range(count)]
    status, answer = await served.call("POST", f"/v1/sessions/{session}/events", json={"events": events})
    assert status == 200, answer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, str]]:
    """Which engine has trimmed which session."""
    seen: list[tuple[object, str]] = []

    def note(kind: Any) -> None:
        trim = kind.trim

        async def noted(engine: Any, session: str, *args: Any, **how: Any) -> int:
            seen.append((engine, session))
            kept: int = await trim(engine, session, *args, **how)
            return kept

        monkeypatch.setattr(kind, "trim", noted)

    for kind in (SharedEngine, OnPostgres, OnNats):
        note(kind)
    return seen


async def test_each_session_is_trimmed_by_one_gateway_whichever_took_its_events(
    start: Start, trims: list[tuple[object, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "WALK_SECONDS", 1.0)
    # A lease that a busy machine does not let end in the middle of this.
    gateways = [await start(retention_events=3, lease=8.0) for _ in range(2)]
    await shared_out(gateways)
    trims.clear()
    for number, name in enumerate(NAMES):
        await publish(gateways[number % 2], name, 10)

    async def trimmed() -> bool:
        states = [await gateways[0].engine.state(name) for name in NAMES]
        return all(state is not None and state.first_offset == 7 for state in states)

    await until(trimmed)
    by = {name: {engine for engine, session in trims if session == name} for name in NAMES}
    assert all(len(engines) == 1 for engines in by.values())
    assert {engine for engines in by.values() for engine in engines} == {served.engine for served in gateways}


async def test_a_session_expires_although_the_gateway_that_took_its_events_is_gone(start: Start) -> None:
    first = await start(retention_age=1.0)
    for name in NAMES[:8]:
        await publish(first, name, 2)
        assert (await first.call("POST", f"/v1/sessions/{name}/close"))[0] == 200
    first.engine.cut = True
    second = await start(retention_age=1.0)

    async def gone() -> bool:
        return not await second.engine.sessions()

    await until(gone)


async def test_a_gateway_that_starts_leaves_the_import_of_another_alone(start: Start) -> None:
    first = await start()
    await publish(first, "old", 5)
    async with first.http.get("/v1/sessions/old/export") as answer:
        header, *rest = (await answer.text()).splitlines(keepends=True)
    more = asyncio.Event()

    async def file() -> Any:
        yield (header + rest[0]).encode()
        await more.wait()
        yield "".join(rest[1:]).encode()

    headers = {"Content-Type": "application/x-ndjson"}
    importing = asyncio.create_task(first.http.post("/v1/sessions/new/import", data=file(), headers=headers))

    async def drafted() -> bool:
        return bool(await first.engine.due(float("inf")))

    await until(drafted)
    second = await start()
    await asyncio.sleep(1.5)
    more.set()
    assert (await importing).status == 201
    status, page = await second.call("GET", "/v1/sessions/new/events?from=beginning")
    assert (status, len(page["events"])) == (200, 5)
