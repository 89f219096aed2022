"""Gateways share a PostgreSQL database: each event reaches both, once and in order, and faults lose and double nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest

from tests.postgres import PostgresServer, connection_to, postgres_server
from tests.postgres_wire import wire_to
from tests.shared.hearing import Heard
from tests.soak import dice
from tests.support import batch, close, data_of, everything, publish
from wakeline.errors import (
    EngineRefusedError,
    RecordConflictError,
    SchemaTooNewError,
    StorageFailedError,
    TooManyPublishersError,
    UnavailableError,
)
from wakeline.gateway.log import Appended, Change, Commit, Engine, Owner, Publication, owners
from wakeline.gateway.log.engines.postgres import PostgresEngine, stretches, target

Open = Callable[..., Awaitable[PostgresEngine]]


@pytest.fixture
async def address(postgres: PostgresServer) -> str:
    return await postgres.database()


@pytest.fixture
async def opened(address: str) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def one(at: str = address) -> PostgresEngine:
            engine = PostgresEngine(at)
            await engine.open()
            stack.push_async_callback(engine.close)
            return engine

        yield one


async def test_a_listener_hears_the_appends_of_both_gateways_once_in_order(opened: Open) -> None:
    engines = await asyncio.gather(opened(), opened())
    heard = [Heard(engine, "s") for engine in engines]
    for engine in engines:
        assert await engine.state("s") is None  # as a hub asks: its readers begin here
    chance = random.Random(7)
    for number in range(150):
        some = (
            publish(chance.choice(engines), "s", number, publisher=f"p{n}-{number}")
            for n in range(chance.randint(1, 3))
        )
        await asyncio.gather(*some)
    log = await everything(engines[0], "s")
    assert [event.offset for event in log] == list(range(len(log)))
    epoch = (await close(engines[1], "s")).epoch
    for one in heard:
        await one.until("closed")
        assert one.all == [*((epoch, data_of(event)) for event in log), (epoch, "closed")]


async def test_a_listener_hears_another_gateway_s_events_before_the_end(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await opened(), await opened()
    epoch = (await publish(second, "s", 1)).epoch
    heard = Heard(second, "s")
    await publish(second, "s", 2)
    await heard.until(2)
    monkeypatch.setattr(second._watches, "woken", lambda *_: True)  # the wake-up is late
    await publish(first, "s", 3)
    await close(second, "s")
    await heard.until("closed")
    assert heard.all == [(epoch, 2), (epoch, 3), (epoch, "closed")]


async def test_a_listener_of_a_session_that_is_not_there_hears_its_first_event_from_another_gateway(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await opened(), await opened()
    heard = Heard(second, "s")
    assert await second.state("s") is None
    monkeypatch.setattr(second._watches, "woken", lambda *_: True)  # the wake-up is late
    epoch = (await publish(first, "s", 1)).epoch
    await publish(second, "s", 2)
    await heard.until(2)
    assert heard.all == [(epoch, 1), (epoch, 2)]


async def test_a_listener_hears_of_the_next_life_after_the_end_of_the_one_before(opened: Open) -> None:
    first, second = await opened(), await opened()
    before = (await publish(first, "s", 1)).epoch
    heard = Heard(second, "s")
    assert await second.state("s") is not None
    await publish(first, "s", 2)
    await heard.until(2)
    await first.delete_session("s")
    after = (await publish(first, "s", 3)).epoch
    await heard.until(3)
    # A late notification may have the listener begin before its subscription.
    assert heard.all[-3:] == [(before, 2), (before, "deleted"), (after, 3)]


async def test_a_gateway_that_does_not_watch_a_session_hears_that_there_is_something_new(opened: Open) -> None:
    first, second = await opened(), await opened()
    heard: list[tuple[str, Change]] = []

    def listen(commits: Sequence[Commit]) -> None:
        assert not any(commit.events for commit in commits)
        heard.extend((commit.session, change) for commit in commits for change in commit.changes)

    second.feed.listen(listen)
    await publish(first, "s", 1)
    await first.delete_session("s")
    async with asyncio.timeout(60):
        while ("s", "deleted") not in heard:
            await asyncio.sleep(0.01)
    assert ("s", "appended") in heard


async def test_thousands_of_sessions_at_once_reach_their_listeners_at_another_gateway(opened: Open) -> None:
    first, second = await opened(), await opened()
    names = [f"a-session-with-a-name-that-takes-its-part-of-a-notification-{n}" for n in range(1200)]
    heard = [Heard(second, name) for name in names]
    await asyncio.gather(*(publish(first, name, 0) for name in names))
    await asyncio.gather(*(publish(first, name, 1) for name in names))
    for one in heard:
        await one.until(1)
    assert all(one.offsets in ([0, 1], [1]) for one in heard)  # those that began with a poll have the second one alone


async def test_events_arrive_within_a_second_without_notifications(
    opened: Open, postgres: PostgresServer, address: str
) -> None:
    first = await opened()
    async with wire_to(postgres.port) as wire:
        second = PostgresEngine(wire.address(address))
        wire.notifies = False
        await second.open()
        try:
            assert second.health().startswith("ok, but notifications do not arrive")
            await publish(first, "s", 0)
            heard = Heard(second, "s")
            assert await second.state("s") is not None
            took = list[float]()  # a busy machine is late now and then
            for number in range(1, 6):
                await publish(first, "s", number)
                began = time.monotonic()
                await heard.until(number)
                took.append(time.monotonic() - began)
            assert heard.offsets == [1, 2, 3, 4, 5]
            assert min(took) < 2, took
        finally:
            await second.close()


async def test_a_lost_answer_to_a_commit_is_asked_for(opened: Open, postgres: PostgresServer, address: str) -> None:
    async with wire_to(postgres.port) as wire:
        engine = await opened(wire.address(address))
        heard = Heard(engine, "s")
        for number in range(40):
            # Without a publisher: a second copy would be there for all to see.
            wire.answers_cut, wire.commits_cut = int(number % 2 == 0), int(number % 3 == 0)
            assert isinstance(await publish(engine, "s", number), Appended)
            record = await engine.put_record(f"r{number}", b"1", revision=0)
            assert await engine.get_record(f"r{number}") == record
        assert wire.cuts >= 30
        assert [data_of(event) for event in await everything(engine, "s")] == list(range(40))
        assert heard.offsets == list(range(40))
        await engine.close()


async def test_the_first_commit_of_a_writer_is_asked_for_while_the_server_is_still_at_it(
    opened: Open, postgres: PostgresServer, address: str
) -> None:
    async with connection_to(address) as own:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND $1 IN (wait_event, wait_event_type)"
        )

        async def standby(name: str) -> None:
            """Let commits wait for a standby of this name; the empty name is none."""
            await own.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            await own.execute("SELECT pg_reload_conf()")

        async with wire_to(postgres.port) as wire:
            engine = await opened(wire.address(address))
            await standby("nobody")
            try:
                publishing = asyncio.ensure_future(publish(engine, "s", 1))
                async with asyncio.timeout(60):
                    while not await own.fetchval(waiting, "SyncRep"):
                        await asyncio.sleep(0.01)
                    wire.cut_all()
                    while not await own.fetchval(waiting, "Lock"):  # the gateway asks, or writes again
                        await asyncio.sleep(0.01)
            finally:
                await standby("")
            assert isinstance(await publishing, Appended)
            assert [data_of(event) for event in await everything(engine, "s")] == [1]
            await engine.close()


async def test_two_gateways_create_the_same_sessions_and_records(opened: Open) -> None:
    engines = await asyncio.gather(opened(), opened(), opened())

    async def write(engine: Engine, number: int) -> bool:
        try:
            await engine.put_record(f"r{number}", b"", revision=0)
        except RecordConflictError:
            return False
        return True

    names = [f"s{number}" for number in range(60)]
    chance = dice(0)
    for one in engines:
        chance.shuffle(names)
        assert one.shared
    answers = await asyncio.gather(
        *(
            engine.append_each([batch(name, 1, publisher=f"p{place}") for name in names])
            for place, engine in enumerate(engines)
        )
    )
    assert all(isinstance(outcome, Appended) for answer in answers for outcome in answer)
    for name in names:
        assert len(await everything(engines[0], name)) == 3
    written = await asyncio.gather(*(write(engine, number) for number in range(40) for engine in engines))
    assert sum(written) == 40


async def test_an_append_waits_for_a_session_that_another_transaction_holds(opened: Open, address: str) -> None:
    engine = await opened()
    await publish(engine, "s", 0)
    async with connection_to(address) as connection:
        holding = connection.transaction()
        await holding.start()
        await connection.execute("SELECT FROM wakeline.sessions WHERE name = 's' FOR UPDATE")
        waiting = asyncio.ensure_future(publish(engine, "s", 1))
        await asyncio.sleep(3.5)  # longer than a lock time-out
        assert not waiting.done()
        await holding.rollback()
    assert (await waiting).first_offset == 1


async def test_rows_of_deleted_sessions_are_erased(opened: Open, address: str) -> None:
    engine = await opened()
    for number in range(3):
        await publish(engine, "s", *range(700), publisher="p")
        await publish(engine, "s", "again", publisher="p", attempt=2, sequence=0)
        await publish(engine, "other", number)
        assert await engine.delete_session("s")
    async with connection_to(address) as connection:
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM wakeline.erasing") or engine.erasure_pending():
                await asyncio.sleep(0.05)
        assert await connection.fetchval("SELECT count(*) FROM wakeline.events") == 3
        for table in ("publishers", "publications", "kept"):
            assert await connection.fetchval(f"SELECT count(*) FROM wakeline.{table}") == 0


async def test_stretches_of_removed_events_are_bounded_and_retries_write_no_copy(
    opened: Open, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "REMEMBERED", 10)
    engine = await opened()
    merged: list[int] = []
    engine.counts.merged = merged.append
    for number in range(100):
        for publisher in "pq":
            done = await publish(engine, "s", number, publisher=publisher, sequence=number)
        if number % 20 == 19:
            await engine.trim("s", done.next_offset - 4, epoch=done.epoch)
    async with connection_to(address) as connection:
        rows = await connection.fetchval("SELECT count(*) FROM wakeline.publications")
        assert rows <= 2 * 12 + 4
        assert sum(merged) == 200 - rows
        assert await publish(engine, "s", 99, publisher="p", sequence=99) == Appended(
            198, 199, done.epoch, duplicate=True
        )
        assert (await publish(engine, "s", 3, publisher="p", sequence=3)).duplicate
        for attempt in range(2, 60):
            await publish(engine, "s", "another's")
            done = await publish(engine, "s", attempt, publisher="p", attempt=attempt)
            await engine.trim("s", done.next_offset - 4, epoch=done.epoch)
        assert await connection.fetchval("SELECT count(*) FROM wakeline.kept") <= 10 + 4 + 2
        assert (await engine.open_attempt("s", Publication("p", 60))).earlier_events == 100 + 58


async def test_a_user_has_so_many_publishers_in_a_session_at_all_gateways(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "MAX_PUBLISHERS", 3)
    first, second = await opened(), await opened()
    alice, bob = Owner("user:alice"), Owner("user:bob")
    for number, engine in enumerate((first, second, first)):
        await engine.open_attempt("s", Publication(f"p{number}", owner=alice))
    for engine in (first, second):
        with pytest.raises(TooManyPublishersError):
            await engine.open_attempt("s", Publication("p4", owner=alice))
        await engine.open_attempt("s", Publication("p1", owner=alice))
        await engine.open_attempt("s", Publication("of-bob", owner=bob))


GUARDED = "postgres://guarded:the-password@"


async def refused(address: str) -> EngineRefusedError:
    engine = PostgresEngine(address)
    with pytest.raises(EngineRefusedError) as error:
        await engine.open()
    assert "the-password" not in f"{error.value} {error.value.hint} {engine._target!r}"
    return error.value


async def test_a_server_that_does_not_fit_is_refused_without_its_password(
    postgres: PostgresServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = address.rsplit("/", 1)[1]
    await postgres.execute("DROP ROLE IF EXISTS guarded")
    await postgres.execute("CREATE ROLE guarded LOGIN PASSWORD 'the-password'")
    guarded = address.replace("postgres://wakeline@", GUARDED)
    wrong = guarded.replace("the-password", "another-the-password")
    assert "password authentication failed" in (await refused(wrong)).message
    assert "does not exist" in (await refused(guarded.replace(database, "nowhere"))).message
    assert "a role that may create and change" in (await refused(guarded)).message
    assert "can be reached" in (await refused(f"{GUARDED}127.0.0.1:1/x")).message
    for bad in (f"{GUARDED}127.0.0.1:port/x", f"{GUARDED}127.0.0.1:5432/x?statement_cache_size=many"):
        with pytest.raises(EngineRefusedError) as error:
            await PostgresEngine(bad).open()
        assert "the-password" not in str(error.value)
    monkeypatch.setattr(target, "_LEAST_VERSION", 990_000)
    assert "it has version" in (await refused(guarded)).message


@pytest.mark.parametrize("value", ["off", "local"])
async def test_each_transaction_that_writes_waits_for_the_disk_also_after_the_server_was_told_not_to(
    postgres: PostgresServer, opened: Open, address: str, value: str
) -> None:
    engine = await opened()
    await publish(engine, "s", 1, publisher="p")
    database = address.rsplit("/", 1)[1]
    await postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = {value}")
    await postgres.execute(
        """
        CREATE TABLE public.used (value text);
        CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.used VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON wakeline.sessions EXECUTE FUNCTION public.note();
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON wakeline.records EXECUTE FUNCTION public.note();
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        """,
        database,
    )
    later = await opened()  # its connections begin with that value, and so do the new ones of the first engine
    for number, each in enumerate((engine, later), 1):
        await publish(each, "s", number, publisher="p", sequence=number)
        await each.put_record(f"key-{number}", b"value", revision=0)
    async with connection_to(address) as connection:
        used = {row[0] for row in await connection.fetch("SELECT value FROM public.used")}
    assert used == {"on" if value == "off" else value}


async def test_a_publisher_that_one_gateway_has_forgotten_is_new_at_the_other(opened: Open) -> None:
    first, second = await opened(), await opened()
    epoch = (await publish(first, "s", 1, publisher="p")).epoch
    assert (await publish(first, "s", 1, publisher="p")).duplicate
    await second.forget_publisher("s", "p", epoch=epoch)
    assert not (await publish(first, "s", 2, publisher="p")).duplicate
    assert (await publish(second, "s", 2, publisher="p")).duplicate
    assert [data_of(event) for event in await everything(second, "s")] == [1, 2]


async def test_a_role_that_owns_the_schema_needs_no_right_to_create_one(postgres: PostgresServer, address: str) -> None:
    await postgres.execute("DROP ROLE IF EXISTS modest")
    await postgres.execute("CREATE ROLE modest LOGIN")
    async with connection_to(address) as connection:
        await connection.execute("CREATE SCHEMA wakeline AUTHORIZATION modest")
    engine = PostgresEngine(address.replace("postgres://wakeline@", "postgres://modest@"))
    await engine.open()
    assert (await publish(engine, "s", 1)).next_offset == 1
    await engine.close()


async def test_tables_of_a_newer_program_are_left_alone(opened: Open, address: str) -> None:
    await (await opened()).close()
    async with connection_to(address) as connection:
        await connection.execute("UPDATE wakeline.version SET version = 1000")
    with pytest.raises(SchemaTooNewError, match="has schema 1000"):
        await PostgresEngine(address).open()


async def test_an_engine_without_prepared_statements_works_through_a_pooler(opened: Open, address: str) -> None:
    engine = await opened(f"{address}?statement_cache_size=0")
    await publish(engine, "s", 1, publisher="p")
    assert len(await everything(engine, "s")) == 1


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may restart."""
    with postgres_server() as server:
        yield server


async def test_a_server_that_restarts_is_waited_for_and_used_again(own_server: PostgresServer, opened: Open) -> None:
    first, second = await asyncio.gather(opened(own_server.address()), opened(own_server.address()))
    heard = Heard(second, "s")
    await publish(first, "s", 0, publisher="p")
    await heard.until(0)
    await asyncio.to_thread(own_server.stop)
    for _ in range(2):
        with pytest.raises(StorageFailedError, match="PostgreSQL failed"):
            await publish(first, "s", 1, publisher="p", sequence=1)
        with pytest.raises(StorageFailedError):
            await first.state("s")
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(60):
        while True:
            try:
                await publish(first, "s", 1, publisher="p", sequence=1)
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
    await heard.until(1)
    assert heard.offsets == [0, 1]
    async with asyncio.timeout(60):
        while second.health() != "ok":
            await asyncio.sleep(0.05)
    await publish(second, "s", 2, publisher="p", sequence=2)
    assert [data_of(event) for event in await everything(first, "s")] == [0, 1, 2]
