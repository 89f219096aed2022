"""A session that is deleted while its publishers are away: none of them brings it back, and each event is accounted for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import wakeline
from tests.faults.test_restored import copied, online
from tests.gateways import GatewayProcess
from tests.support import Served
from wakeline.errors import SequenceGapError, SessionDeletedError
from wakeline.publisher import PublishDroppedError, SessionPublisher, SyncSessionPublisher


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path / "data")
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.kill()


async def status(gateway: GatewayProcess, session: str, method: str = "GET") -> int:
    async with Served(gateway.url) as served:
        return (await served.call(method, f"/v1/sessions/{session}"))[0]


async def stop_without(gateway: GatewayProcess, *sessions: str) -> None:
    """Stop the gateway; the sessions are deleted just before."""
    for session in sessions:
        assert await status(gateway, session, "DELETE") == 204
    await gateway.stop()


def events(error: BaseException) -> list[Any]:
    assert isinstance(error, PublishDroppedError)
    return [event.data for event in error.events]


async def until_told(publisher: SessionPublisher) -> None:
    while True:
        await publisher.flush()
        await asyncio.sleep(0.01)


def refused(file: Path) -> list[tuple[str, Any, str]]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT session, body, code FROM refused ORDER BY id").fetchall()
    return [(session, json.loads(body)["data"], code) for session, body, code in rows]


async def test_publishers_that_reconnect_report_their_events(gateway: GatewayProcess) -> None:
    async with SessionPublisher(gateway.url, session="kept") as kept:
        session = await SessionPublisher(gateway.url, session="s").__aenter__()
        thread = await asyncio.to_thread(SyncSessionPublisher(gateway.url, session="s").__enter__)
        for publisher in (kept, session):
            await publisher.topic("t").publish(1)
            await publisher.flush()
        thread.topic("t").publish(1)
        await asyncio.to_thread(thread.flush)
        await stop_without(gateway, "s")
        for publisher in (kept, session):
            await publisher.topic("t").publish(2)
        thread.topic("t").publish(3)
        await gateway.start()
        with pytest.raises(SessionDeletedError) as caught:
            await session.flush()
        assert events(caught.value) == [2]
        with pytest.raises(SessionDeletedError) as caught:
            await asyncio.to_thread(thread.flush)
        assert events(caught.value) == [3]
        with pytest.raises(SessionDeletedError):
            await session.topic("t").publish(4)
        with pytest.raises(SessionDeletedError):
            await asyncio.to_thread(thread.topic("t").publish, 4)
        with pytest.raises(SessionDeletedError):
            await session.aclose()
        with pytest.raises(SessionDeletedError):
            await asyncio.to_thread(thread.close)
        await kept.flush()
        assert kept.acknowledged == 2
    assert await status(gateway, "s") == 404


async def test_spooled_events_are_put_aside(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Those of a publisher that is there when the gateway is back, and those that `wakeline drain` finds."""
    file = tmp_path / "spool.db"
    how: dict[str, Any] = {"on_unavailable": "spool", "spool": file}
    stays = await SessionPublisher(gateway.url, session="stays", **how).__aenter__()
    async with SessionPublisher(gateway.url, session="leaves", publisher="p", **how) as leaves:
        for publisher in (stays, leaves):
            await publisher.topic("t").publish(1)
            await publisher.flush()
        await stop_without(gateway, "stays", "leaves")
        for publisher in (stays, leaves):
            await publisher.topic("t").publish(2)
            await publisher.flush()  # durable in the file
    async with SessionPublisher(gateway.url, session="new", **how) as new:
        await new.topic("t").publish(3)  # the gateway has never said in which epoch
    left = tmp_path / "left.db"
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(left)) as target:
        source.backup(target)
    await gateway.start()
    with pytest.raises(SessionDeletedError) as caught:
        await asyncio.wait_for(until_told(stays), 60)
    assert events(caught.value) == [2]
    with pytest.raises(SessionDeletedError):
        await stays.aclose()
    assert ("stays", 2, "session_deleted") in refused(file)
    code, out, err = await wakeline("drain", str(left), "--url", gateway.url)
    assert (code, out) == (1, "sent 1 · refused 2\n")
    assert err.count("session_deleted: 1 spooled events") == 2
    assert refused(left) == [("leaves", 2, "session_deleted"), ("stays", 2, "session_deleted")]
    assert [await status(gateway, session) for session in ("stays", "leaves", "new")] == [404, 404, 200]


async def test_a_restored_session_is_not_a_deleted_one(gateway: GatewayProcess, tmp_path: Path) -> None:
    dropped: list[Any] = []
    async with SessionPublisher(gateway.url, session="s", on_dropped=dropped.append) as session:
        await session.topic("t").publish(1)
        await session.flush()
        online(tmp_path / "data", tmp_path / "backup")
        await session.topic("t").publish(2)
        await session.flush()
        await gateway.stop()
        copied(tmp_path / "data", tmp_path / "backup")
        await session.topic("t").publish(3)
        await gateway.start()
        await session.flush()
        await session.topic("t").publish(4)
    (report,) = dropped
    assert isinstance(report, SequenceGapError)
    assert events(report) == [3]
    async with Served(gateway.url) as served:
        page = (await served.call("GET", "/v1/sessions/s/events"))[1]
    assert [event["data"] for event in page["events"]] == [1, 4]
