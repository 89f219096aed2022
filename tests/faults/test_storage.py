"""A disk that is full, a store that fails, and files that are not what they should be."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.support import Served, data_of, everything, publish
from wakeline.errors import DataInUseError, SchemaTooNewError, StorageFailedError, StorageFullError
from wakeline.events import compose, timestamp
from wakeline.gateway.log.engines.sqlite import SqliteEngine, queries
from wakeline.gateway.log.engines.sqlite.schema import APPLICATION_ID, MIGRATIONS
from wakeline.gateway.log.names import after_prefix

BIG = {"topic": "t", "data": "x" * 100_000}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(directory)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def test_a_full_disk_is_told_loses_nothing_and_is_over_when_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk of 4 MB in a mount namespace of the gateway's own: it goes when the gateway goes, and takes no root.
    mount = f'mount -t tmpfs -o size=4m tmpfs {disk} && head -c 1500000 /dev/zero > {disk}/ballast && exec "$@"'
    gateway = GatewayProcess(disk / "data", prefix=["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
    try:
        await gateway.start()
        assert gateway.process is not None
        ballast = Path(f"/proc/{gateway.process.pid}/root{disk}/ballast")
        assert ballast.stat().st_size == 1_500_000
        async with Served(gateway.url) as served:
            acknowledged = 0
            while True:
                status, answer = await served.call(
                    "POST", "/v1/sessions/s/events", json={"events": [BIG, {**BIG, "data": acknowledged}]}
                )
                if status != 200:
                    break
                assert answer["first_offset"] == 2 * acknowledged
                acknowledged += 1
                assert acknowledged < 100
            assert (status, answer["error"]["code"]) == (507, "storage_full")
            _, state = await served.call("GET", "/v1/sessions/s")
            assert state["next_offset"] == 2 * acknowledged
            live = await served.stream("s")
            assert [e["offset"] for e in await live.take(2 * acknowledged)] == list(range(2 * acknowledged))
            ballast.unlink()
            answer = await served.publish("s", BIG)
            assert answer["first_offset"] == 2 * acknowledged
            assert (await live.next())["offset"] == 2 * acknowledged
            live.close()
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()


async def test_a_full_database_fails_the_whole_group_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        first = await publish(engine, "s", 0, publisher="p")
        connection = engine._writer._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        held = asyncio.ensure_future(
            engine._writer.submit(lambda *_: time.sleep(1.5))
        )  # so that the next three are one group
        await asyncio.sleep(0.1)
        outcomes = await asyncio.gather(
            *(publish(engine, "s", n, "x" * 50_000, publisher=f"p{n}") for n in range(3)), return_exceptions=True
        )
        await held
        assert [type(outcome) for outcome in outcomes] == [StorageFullError] * 3
        assert [data_of(e) for e in await everything(engine, "s")] == [0]
        connection.execute("PRAGMA max_page_count = 1000000")
        again = await publish(engine, "s", 1, publisher="p", sequence=1)
        assert (again.first_offset, again.epoch) == (1, first.epoch)


async def test_a_store_that_fails_otherwise_says_unknown_and_the_retry_settles_it(tmp_path: Path) -> None:
    heard: list[int] = []
    async with opened(tmp_path) as engine:
        engine.feed.listen(lambda commits: heard.extend(e.offset for commit in commits for e in commit.events))
        await publish(engine, "s", 0, publisher="p")
        await asyncio.sleep(0.2)  # what is looked after at a start is done
        await everything(
            engine, "s"
        )  # a reader has the file, too: SQLite would else take its log away with the last connection
        # The file is taken from under the writer: the next commit fails, and the one after it must work again.
        engine._writer._connection.close()
        with pytest.raises(StorageFailedError):
            await publish(engine, "s", 1, publisher="p", sequence=1)
        answer = await publish(engine, "s", 1, publisher="p", sequence=1)
        assert (answer.first_offset, answer.duplicate) == (1, False)
        assert [data_of(e) for e in await everything(engine, "s")] == [0, 1]
    assert heard == [0, 1]


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await publish(engine, "s", 0)
    file = tmp_path / "wakeline.db"
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(SchemaTooNewError, match=f"schema {len(MIGRATIONS) + 1}"):
        await SqliteEngine(tmp_path).open()
    assert file.read_bytes() == before
    gateway = GatewayProcess(tmp_path)
    await gateway.start(wait=False)
    assert gateway.process is not None
    assert await asyncio.wait_for(gateway.process.wait(), 60) == 2
    assert "schema_too_new" in gateway.log.read_text()


@pytest.mark.parametrize("content", [b"this is not a database at all, whatever its name says " * 100, None])
async def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "wakeline.db"
    if content is None:
        connection = sqlite3.connect(file)
        connection.executescript("PRAGMA application_id = 77; CREATE TABLE theirs (x);")
        connection.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(StorageFailedError, match=r"expected a Wakeline database") as refused:
        await SqliteEngine(tmp_path).open()
    assert "move the file away" in refused.value.hint
    if content is not None:
        assert file.read_bytes() == before


async def test_a_database_that_cannot_be_opened_is_not_called_somebody_else_s(tmp_path: Path) -> None:
    (tmp_path / "wakeline.db").mkdir()
    with pytest.raises(StorageFailedError, match=r"unable to open database file") as refused:
        await SqliteEngine(tmp_path).open()
    assert refused.value.hint.startswith("Check the space on the disk")


async def test_a_directory_belongs_to_one_process(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(DataInUseError):
            await SqliteEngine(tmp_path).open()
    async with opened(tmp_path):
        pass


async def test_a_hole_in_the_file_is_told_and_never_read_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        await publish(engine, "s", *range(5))
        await publish(engine, "other", 1)
    connection = sqlite3.connect(tmp_path / "wakeline.db")
    connection.execute("DELETE FROM events WHERE offset = 2")
    connection.commit()
    connection.close()
    async with opened(tmp_path) as engine:
        with pytest.raises(StorageFailedError, match="expected offset 2"):
            await engine.read("s", 0, before=5)
        assert len(await everything(engine, "other")) == 1


async def test_a_failed_migration_leaves_the_older_schema_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as engine:
        await publish(engine, "s", 0)
    broken = (*MIGRATIONS, "ALTER TABLE events ADD COLUMN extra TEXT; SELECT no_such_function();")
    monkeypatch.setattr("wakeline.gateway.log.engines.sqlite.schema.MIGRATIONS", broken)
    with pytest.raises(StorageFailedError):
        await SqliteEngine(tmp_path).open()
    monkeypatch.setattr("wakeline.gateway.log.engines.sqlite.schema.MIGRATIONS", MIGRATIONS)
    async with opened(tmp_path) as engine:
        assert [data_of(e) for e in await everything(engine, "s")] == [0]
    connection = sqlite3.connect(tmp_path / "wakeline.db")
    columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
    connection.close()
    assert "extra" not in columns
    monkeypatch.setattr(
        "wakeline.gateway.log.engines.sqlite.schema.MIGRATIONS",
        (*MIGRATIONS, "ALTER TABLE events ADD COLUMN extra TEXT;"),
    )
    async with opened(tmp_path) as engine:
        assert [data_of(e) for e in await everything(engine, "s")] == [0]


async def test_a_store_of_an_earlier_version_is_migrated_and_its_unfinished_imports_are_erased(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "wakeline.db", isolation_level=None)) as connection:
        connection.create_function("accepted_at", 1, lambda _: 0)
        for script in MIGRATIONS[:8]:  # the ninth gave drafts a column; before, they had names of their own
            connection.executescript(script)
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 8;")
        for number, name in enumerate(("kept", "\x01import x"), start=1):
            row = (number, name, f"epoch{number}", timestamp())
            connection.execute("INSERT INTO sessions (id, name, epoch, created) VALUES (?, ?, ?, ?)", row)
            body = compose("t", b"1", time=timestamp()).body
            connection.execute(
                "INSERT INTO events (session, offset, topic, body) VALUES (?, 0, 't', ?)", (number, body)
            )
        order = ("stream-seq/kept", b'{"epoch":"epoch1","seq":"m"}')  # the tenth moved it into the session
        connection.execute("INSERT INTO records (key, value) VALUES (?, ?)", order)
    gateway = GatewayProcess(tmp_path)
    await gateway.start()
    try:
        assert "the store is migrated to a newer schema" in gateway.log.read_text()
        async with Served(gateway.url) as served:
            _, listed = await served.call("GET", "/v1/sessions")
            assert [session["session"] for session in listed["sessions"]] == ["kept"]
            _, page = await served.call("GET", "/v1/sessions/kept/events?from=beginning")
            assert [event["data"] for event in page["events"]] == [1]
            for seq, status in (("m", 409), ("n", 204)):
                answer = await served.call("POST", "/v1/stream/kept", json=[2], headers={"Stream-Seq": seq})
                assert answer[0] == status
    finally:
        assert await gateway.stop() == 0
    with closing(sqlite3.connect(tmp_path / "wakeline.db")) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (2,)


async def test_records_are_found_by_a_range_of_the_index(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "wakeline.db")) as connection:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {queries.RECORDS_AFTER}", ("a/", "", after_prefix("a/"), -1)
        ).fetchall()
    assert [row[3] for row in plan] == [
        "SEARCH records USING INDEX sqlite_autoindex_records_1 (key>? AND key<?)",
    ]
