"""While the gateway is away events are kept in a file, and sent from it in order, each once, by whoever comes."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from tests.unit.publisher.scripted import RIGHTLY, Answer, Frame, ScriptedGateway, error, spooling
from wakeline.errors import AttemptFencedError, EventTooLargeError, TokenExpiredError
from wakeline.publisher import PublishDroppedError, SessionPublisher, SpoolError
from wakeline.publisher.drain import drain
from wakeline.publisher.frames import Identity
from wakeline.publisher.places import Places
from wakeline.publisher.pool import shared_connection
from wakeline.publisher.spool import Spool


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def rows(file: Path, table: str = "events") -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def until_empty(file: Path) -> None:
    async with asyncio.timeout(60):
        while rows(file):
            await asyncio.sleep(0.01)


async def test_flush_is_durable_in_the_file_and_the_gateway_gets_it_when_it_is_back(
    away: ScriptedGateway, file: Path
) -> None:
    async with spooling(away, file) as session:
        topic = session.topic("t")
        for n in range(1200):
            await topic.publish(n)
        await asyncio.wait_for(session.flush(), 60)
        assert rows(file) == 1200
        await away.start()
        await until_empty(file)
        for n in range(1200, 1300):
            await topic.publish(n)
    assert (away.events(), rows(file), rows(file, "sources")) == (list(range(1300)), 0, 0)


async def test_it_comes_and_goes(script: ScriptedGateway, file: Path) -> None:
    async with spooling(script, file) as session:
        topic = session.topic("t")
        for n in range(600):
            await topic.publish(n)
            if n % 200 == 100:
                await script.stop()
            elif n % 200 == 199:
                await session.flush()
                await script.start()
            elif n % 10 == 0:
                await asyncio.sleep(0.005)
        await until_empty(file)
    assert script.events() == list(range(600))


async def test_what_an_earlier_process_left_is_sent_by_the_next_one(away: ScriptedGateway, file: Path) -> None:
    async with spooling(away, file, "first") as session:
        await session.topic("t").publish("left")
    async with spooling(away, file, "named", publisher="p") as session:
        await session.topic("t").publish("left 1")
    async with spooling(away, file, "named", publisher="p") as session:
        await session.topic("t").publish("left 2")
    assert rows(file) == 3
    # The gateway knows the name from before.
    away.log["named", "p", 1] = [{"data": "from before"}]
    await away.start()
    async with spooling(away, file, "named", publisher="p") as session:
        await session.topic("t").publish("live")
        await session.flush()
        await until_empty(file)
    assert away.events("first") == ["left"]
    assert away.events("named") == ["from before", "left 1", "left 2", "live"]


async def test_an_answer_that_was_lost_doubles_nothing(away: ScriptedGateway, file: Path) -> None:
    async with spooling(away, file) as session:
        for n in range(700):
            await session.topic("t").publish(n)
    appends = 0

    def lose(frame: Frame) -> Answer:
        nonlocal appends
        if frame["type"] == "append":
            appends += 1
            if appends in (1, 3):
                away.append(frame, next(key for key in away.log if key[0] == "s"))
                return None
        return RIGHTLY

    away.script = lose
    await away.start()
    async with spooling(away, file, "other"):
        await until_empty(file)
    assert away.events() == list(range(700))


async def test_a_drain_that_was_interrupted_does_not_bring_a_deleted_session_back(
    away: ScriptedGateway, file: Path
) -> None:
    async with spooling(away, file, "s", publisher="p") as session:
        await session.topic("t").publish(1)
    spool, refused = Spool.at(file), list[PublishDroppedError]()
    await away.start()
    away.script = lambda frame: RIGHTLY if frame["type"] != "append" else [error(frame["channel"], "token_expired")]
    with pytest.raises(TokenExpiredError):
        await drain(spool, shared_connection(away.url, None), refused)
    away.script = lambda frame: [error(frame["channel"], "session_deleted")] if frame["type"] == "open" else RIGHTLY
    await drain(spool, shared_connection(away.url, None), refused)
    assert [frame.get("epoch") for frame in away.frames if frame["type"] == "open"] == [None, "e"]
    assert [type(one).__name__ for one in refused] == ["SessionDeletedError"]
    assert (rows(file), rows(file, "refused")) == (0, 1)


async def test_what_is_refused_is_put_aside_and_told(away: ScriptedGateway, file: Path) -> None:
    async with spooling(away, file) as session:
        for n in range(20):
            await session.topic("t").publish(n)
    async with spooling(away, file, "fenced", publisher="p") as session:
        await session.topic("t").publish("stale")

    def refuse(frame: Frame) -> Answer:
        if frame["type"] == "open" and frame["session"] == "fenced":
            return [error(frame["channel"], "attempt_fenced", attempt=2)]
        if frame["type"] == "append" and any(event["data"] in (5, 6) for event in frame["events"]):
            return [error(frame["channel"], "event_too_large")]
        return RIGHTLY

    away.script = refuse
    await away.start()
    refused: list[PublishDroppedError] = []
    await drain(Spool.at(file), shared_connection(away.url, None), refused)
    assert away.events() == [n for n in range(20) if n not in (5, 6)]
    assert (rows(file), rows(file, "refused")) == (0, 3)
    assert isinstance(refused[0], AttemptFencedError)
    assert [isinstance(one, EventTooLargeError) for one in refused[1:]] == [True, True]


async def test_one_that_is_fenced_while_it_spooled_is_told_with_the_events(away: ScriptedGateway, file: Path) -> None:
    async def scene() -> None:
        async with spooling(away, file, publisher="p") as session:
            await session.topic("t").publish("stale")
            await session.flush()
            away.script = lambda frame: [error(frame["channel"], "attempt_fenced", attempt=2)]
            await away.start()
            async with asyncio.timeout(60):
                while True:
                    await session.topic("t").publish("more")
                    await asyncio.sleep(0.01)

    with pytest.raises(AttemptFencedError) as caught:
        await scene()
    assert isinstance(caught.value, PublishDroppedError)
    assert "stale" in [event.data for event in caught.value.events]
    assert (rows(file), rows(file, "refused") > 0) == (0, True)


def test_a_file_of_something_else_is_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(SpoolError, match="another SQLite database"):
        Spool(file).waiting()
    file.write_bytes(b"no database " * 100)
    with pytest.raises(SpoolError):
        Spool(file).add(Identity(session="s", publisher="p"), 0, [b"{}"])


async def test_a_disk_that_cannot_be_written_is_told_with_the_events(away: ScriptedGateway, tmp_path: Path) -> None:
    async with spooling(away, tmp_path / "nowhere" / "spool.db") as session:
        await session.topic("t").publish(1)
        with pytest.raises(SpoolError) as caught:
            await session.flush()
        assert isinstance(caught.value, PublishDroppedError)
        assert [event.data for event in caught.value.events] == [1]


async def test_a_local_activity_that_is_run_again_is_not_taken_for_what_it_published_before(
    script: ScriptedGateway, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = ActivityEnvironment()
    running.info = dataclasses.replace(running.info, is_local=True)

    async def publish(data: str) -> None:
        session = SessionPublisher.from_within_activity(script.url, session="s", on_unavailable="spool", spool=file)
        async with session:
            await session.topic("t").publish(data)

    await running.run(publish, "first")
    # Its worker dies before it has told what came of it; the next one runs it again, and the gateway is away.
    monkeypatch.setattr("wakeline.publisher.publisher._places", Places())
    await script.stop()
    await running.run(publish, "again")
    await script.start()
    refused: list[PublishDroppedError] = []
    await drain(Spool.at(file), shared_connection(script.url, None), refused)
    assert not refused
    assert script.events() == ["first", "again"]
