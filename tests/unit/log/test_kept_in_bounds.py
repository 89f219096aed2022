"""What one caller can make the store keep beside events is bounded: stretches, publishers, devices."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import data_of, everything, new_event, publish
from tests.tokens import SECRET, bearer
from tests.unit.conftest import Serve, on_disk
from wakeline.errors import TooManyPublishersError
from wakeline.gateway.devices import Positions, Presence
from wakeline.gateway.log import CLAIM, Append, Appended, Owner, Publication, owners
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine, stretches
from wakeline.gateway.metrics import Metrics

KEPT = 20
EVENTS = 1_000


def count(directory: Path, table: str) -> int:
    with closing(sqlite3.connect(directory / "wakeline.db")) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


async def in_turn(engine: SqliteEngine) -> str:
    """Two publishers append one event each in turn; retention keeps the last few events."""
    for n in range(EVENTS // 2):
        for publisher in "pq":
            done = await publish(engine, "s", f"{publisher}{n}", publisher=publisher, sequence=n)
        if n % 25 == 24:
            await engine.trim("s", done.next_offset - KEPT, epoch=done.epoch)
    return done.epoch


async def test_stretches_of_removed_events_are_bounded_and_retries_write_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "REMEMBERED", 30)
    engine = SqliteEngine(tmp_path, durability="process")
    await engine.open()
    try:
        metrics = Metrics()
        engine.counts.publishers, engine.counts.merged = metrics.publishers_added.inc, metrics.merged.inc
        epoch = await in_turn(engine)
        exposed = metrics.expose().decode()
        assert "wakeline_publishers_added_total 2.0" in exposed
        merged = float(exposed.split("\nwakeline_stretches_merged_total ")[1].split()[0])
        assert merged >= EVENTS - 2 * (30 + 2) - KEPT - 50
        assert count(tmp_path, "publications") <= 2 * (30 + 2) + KEPT + 50
        last = EVENTS // 2 - 1
        for n in (0, 1, 100, last - 20, last):
            again = await publish(engine, "s", f"p{n}", publisher="p", sequence=n)
            assert again.duplicate
            if n >= last - 20:
                assert again == Appended(2 * n, 2 * n + 1, epoch, duplicate=True)
            else:
                assert 0 <= again.first_offset < again.next_offset <= EVENTS - KEPT
        # One that is partly known, partly new, goes on where it was.
        onward = await publish(engine, "s", f"p{last}", "new", publisher="p", sequence=last)
        assert (onward.next_offset, onward.duplicate) == (EVENTS + 1, False)
        state = await engine.state("s")
        assert state is not None
        assert state.next_offset == EVENTS + 1
        # An attempt that keeps the earlier ones counts all of their events, those that are gone, too.
        opened = await engine.open_attempt("s", Publication("p", 2))
        assert opened.earlier_events == EVENTS // 2 + 1
        await publish(engine, "s", "more", publisher="p", attempt=2)
        opened = await engine.open_attempt("s", Publication("p", 3))
        assert opened.earlier_events == EVENTS // 2 + 2
        # One that supersedes them names offsets of its own alone.
        await publish(engine, "s", "anew", publisher="p", attempt=4, supersedes=True)
        (told,) = [data_of(e) for e in await everything(engine, "s") if e.topic == "$attempt.superseded"]
        named = {offset for first, end in told["offsets"] for offset in range(first, end + 1)}
        assert named >= {EVENTS - 2, EVENTS, EVENTS + 1}
        assert all(offset % 2 == 0 for offset in named if offset < EVENTS)
    finally:
        await engine.close()


async def test_stretches_of_attempts_that_still_count_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "REMEMBERED", 10)
    engine = SqliteEngine(tmp_path, durability="process")
    await engine.open()
    try:
        for attempt in range(1, 301):
            await publish(engine, "s", "another's")
            done = await publish(engine, "s", attempt, publisher="p", attempt=attempt)
            await engine.trim("s", done.next_offset - KEPT, epoch=done.epoch)
        assert count(tmp_path, "kept") <= 10 + KEPT
        assert (await engine.open_attempt("s", Publication("p", 301))).earlier_events == 300
    finally:
        await engine.close()


async def test_many_publishers_are_visited_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "REMEMBERED", 1)
    engine = SqliteEngine(tmp_path, durability="process")
    await engine.open()
    try:
        for n in range(40):
            for publisher in range(12):
                done = await publish(engine, "s", n, publisher=f"p{publisher}", sequence=n)
        while (await engine.trim("s", done.next_offset - 1, epoch=done.epoch, limit=100)) < done.next_offset - 1:
            pass
        assert count(tmp_path, "publications") <= 12 * 12
    finally:
        await engine.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_user_has_so_many_publishers_in_a_session_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(owners, "MAX_PUBLISHERS", 3)
    engine = MemoryEngine() if kind == "memory" else SqliteEngine(tmp_path, durability="process")
    await engine.open()
    alice, bob, claim = Owner("user:alice"), Owner("user:bob"), Owner(CLAIM)
    added: list[int] = []
    engine.counts.publishers = added.append

    def by(name: str, sequence: int = 0, owner: Owner | None = alice) -> Publication:
        return Publication(name, sequence=sequence, owner=owner)

    async def full() -> None:
        with pytest.raises(TooManyPublishersError, match="at most 3 publishers of one user"):
            await engine.append(Append("s", events, by("y")))
        with pytest.raises(TooManyPublishersError):
            await engine.open_attempt("s", by("z"))

    try:
        events = (new_event("x"),)
        for name in "abc":
            await engine.append(Append("s", events, by(name, owner=Owner("user:alice", topics=(name,)))))
        await full()
        await full()
        state = await engine.state("s")
        assert state is not None
        assert state.next_offset == 3
        # Those that are there go on, and so do other users, tokens of the claim, the gateway's own, and other sessions.
        await engine.append(Append("s", events, by("a", 1)))
        for n in range(5):
            await engine.append(Append("s", events, by(f"run:{n}", owner=claim)))
            await engine.append(Append("s", events, by(f"stream:{n}", owner=None)))
        for n in range(3):
            await engine.open_attempt("s", by(f"bob-{n}", owner=bob))
        await engine.append(Append("t", events, by("d")))
        assert sum(added) == 3 + 5 + 5 + 3 + 1
        # It counts still after a change of the session's settings, and one that the claim takes over is no longer the user's.
        await engine.configure("s", epoch=state.epoch, config=b"{}")
        await full()
        await engine.open_attempt("s", by("a", owner=claim))
        await engine.open_attempt("s", by("d"))
        await full()
        await engine.delete_session("s")
        await engine.open_attempt("s", by("e"))
    finally:
        await engine.close()


async def test_publishers_are_counted_again_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "MAX_PUBLISHERS", 3)
    for _ in range(2):
        engine = SqliteEngine(tmp_path, durability="process")
        await engine.open()
        try:
            for n in range(3):
                owner = Owner("user:alice", topics=(f"{n}",))
                await engine.open_attempt("s", Publication(f"p{n}", owner=owner))
            with pytest.raises(TooManyPublishersError):
                await engine.open_attempt("s", Publication("one more", owner=Owner("user:alice")))
            await engine.open_attempt("s", Publication("q", owner=Owner("user:bob")))
        finally:
            await engine.close()


async def test_a_token_that_opens_many_publishers_keeps_nobody_else_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "MAX_PUBLISHERS", 20)
    served = await serve(token_secret=SECRET)
    mallory: dict[str, Any] = {"sub": "mallory", "sessions": ["order-1"], "allow": ["publish"], "topics": ["chat"]}

    async def opened(name: str, **claims: Any) -> tuple[int, str]:
        path = f"/v1/sessions/order-1/publishers/{name}"
        status, body = await served.call("PUT", path, json={}, headers=bearer(**claims))
        return status, body["error"]["code"] if status >= 400 else ""

    async with served.http.ws_connect("/v1/publish", headers=bearer(**mallory)) as socket:
        for n in range(50):
            await socket.send_json({"type": "open", "channel": n, "session": "order-1", "publisher": f"x{n}"})
        frames: list[Any] = []
        while len(frames) < 51:
            frames += map(json.loads, (await socket.receive_str(timeout=60)).split("\n"))
    assert [frame["type"] for frame in frames].count("opened") == 20
    assert await opened("y", **mallory) == (409, "too_many_publishers")
    assert await opened("w", sub="worker", allow=["publish"]) == (200, "")
    assert await opened("x1", sub="worker", allow=["publish"]) == (403, "publisher_taken")
    assert await opened("x1", sub="worker", allow=["publish"], publishers=["*"]) == (200, "")


@on_disk
async def test_to_open_publishers_counts_as_publishing(serve: Serve) -> None:
    served = await serve(token_secret=SECRET, publish_rate=1)
    found = []
    for n in range(7):
        status, _ = await served.call("PUT", f"/v1/sessions/s/publishers/p{n}", json={}, headers=bearer())
        found.append(status)
    assert (found[0], found[-1]) == (200, 429)


async def test_a_user_has_so_many_devices_in_a_session_and_the_longest_away_are_forgotten() -> None:
    engine, metrics = MemoryEngine(), Metrics()
    epoch = (await publish(engine, "s", 1)).epoch
    limited = Positions(engine, Presence(), user_devices=64, counted=metrics.count_devices)
    async with limited as positions:
        await positions.acknowledge("s", "bob", "phone", f"{epoch}-1")
        for n in range(200):
            await positions.acknowledge("s", "mallory", f"made-up-{n}", f"{epoch}-1")
            await positions.acknowledge("s", "", f"nobody-{n}", f"{epoch}-1")
        assert len(await positions.devices("s", "mallory")) <= 64
        assert len(await positions.devices("s", "")) == 200, "where nobody is asked who they are, all are one user's"
        assert [d.seen for d in await positions.devices("s", "bob")] == [f"{epoch}-1"]
        newest = (await positions.acknowledge("s", "mallory", "made-up-199", f"{epoch}-1")).seen
        assert newest == f"{epoch}-1"
    text = metrics.expose().decode()
    known = len(await positions.devices("s"))
    assert "wakeline_devices_added_total 401.0" in text
    assert f"wakeline_devices_forgotten_total {401 - known}.0" in text
