from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import everything, publish
from wakeline.errors import SessionNotFoundError
from wakeline.gateway.log import Engine, NewSession, SessionState


async def test_pages_are_contiguous_and_say_where_the_next_begins(engine: Engine) -> None:
    await publish(engine, "a", *range(10))
    page = await engine.read("a", 2, before=10, limit=3)
    assert ([e.offset for e in page.events], page.next_offset) == ([2, 3, 4], 5)
    page = await engine.read("a", 5, before=7, limit=100)
    assert ([e.offset for e in page.events], page.next_offset) == ([5, 6], 7)
    page = await engine.read("a", 10, before=100)
    assert (page.events, page.next_offset) == ([], 10)


async def test_a_topic_filter_moves_past_what_it_leaves_out(engine: Engine) -> None:
    await publish(engine, "a", 0, 1, topic="x")
    await publish(engine, "a", 2, topic="y")
    await publish(engine, "a", 3, topic="x")
    page = await engine.read("a", 0, before=4, topics={"y"})
    assert ([e.offset for e in page.events], page.next_offset) == ([2], 4)
    page = await engine.read("a", 3, before=4, topics={"y"})
    assert (page.events, page.next_offset) == ([], 4)


async def test_a_page_ends_early_when_events_are_large(engine: Engine) -> None:
    for _ in range(4):
        await publish(engine, "a", "x" * 600_000)
    page = await engine.read("a", 0, before=4)
    assert 1 <= len(page.events) < 4
    assert len(await everything(engine, "a")) == 4


async def test_an_unknown_session_is_told(engine: Engine) -> None:
    with pytest.raises(SessionNotFoundError):
        await engine.read("nowhere", 0, before=10)
    assert await engine.state("nowhere") is None


async def test_sessions_are_listed_by_name_in_pages(engine: Engine) -> None:
    for name in ("b", "a", "ä", "c/d", "A"):
        await publish(engine, name, 1)
    first = await engine.sessions(limit=2)
    rest = await engine.sessions(after=first[-1].session)
    assert [s.session for s in first + rest] == ["A", "a", "b", "c/d", "ä"]
    assert all(s.next_offset == 1 and not s.closed for s in first + rest)


async def test_the_newest_sessions_are_listed_first_in_pages(engine: Engine) -> None:
    for name in ("order-2", "order-1", "chat-1", "order-3", "ä"):
        await engine.create_session(NewSession(name))
        await asyncio.sleep(0.002)
    await engine.create_session(NewSession("draft", draft=True))
    every: dict[str, Any] = {"before": None, "limit": 100, "within": ("*",), "contains": ""}
    found: list[SessionState] = []
    while page := await engine.newest(
        **{**every, "before": (found[-1].created, found[-1].session) if found else None, "limit": 2}
    ):
        found += page
    assert [state.session for state in found] == ["ä", "order-3", "chat-1", "order-1", "order-2"]

    async def listed(**how: Any) -> str:
        return " ".join(state.session for state in await engine.newest(**{**every, **how}))

    assert await listed(contains="er-") == "order-3 order-1 order-2"
    assert await listed(contains="er-", limit=1) == "order-3"
    assert await listed(contains="%") == await listed(contains="ER-") == await listed(within=()) == ""
    assert await listed(within=("order-*", "ä")) == "ä order-3 order-1 order-2"
    assert await listed(within=("order-1", "chat-*")) == "chat-1 order-1"
    await engine.delete_session("order-3")
    assert await listed() == "ä chat-1 order-1 order-2"


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        (("*",), "A a a/b a0 ab b ba \ud7ffx \U0010ffff \U0010ffffx"),
        (("a*",), "a a/b a0 ab"),
        (("a", "b"), "a b"),
        (("ab", "a*", "b"), "a a/b a0 ab b"),
        (("a/*", "a0", "a*"), "a a/b a0 ab"),
        (("\ud7ff*",), "\ud7ffx"),
        (("\U0010ffff*",), "\U0010ffff \U0010ffffx"),
        (("nothing*", "c"), ""),
        ((), ""),
    ],
)
async def test_sessions_are_listed_within_names_and_beginnings(
    engine: Engine, within: tuple[str, ...], expected: str
) -> None:
    for name in ("b", "a", "ab", "a/b", "a0", "A", "ba", "\ud7ffx", "\U0010ffff", "\U0010ffffx"):
        await engine.create_session(NewSession(name))
    found: list[str] = []
    while page := await engine.sessions(after=found[-1] if found else "", limit=2, within=within):
        found += [state.session for state in page]
    assert found == expected.split()
