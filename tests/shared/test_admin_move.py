"""`wakeline admin move`: everything of a store is in the other one, equal, and works on as if it had always been there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.commands import wakeline
from tests.nats import NatsStore
from tests.postgres import PostgresServer
from tests.soak import SOAK
from tests.support import Served, batch, close, everything, publish
from wakeline.errors import AttemptFencedError, EngineRefusedError, SessionExistsError, StreamConflictError
from wakeline.gateway.app import gateway
from wakeline.gateway.log import Append, Engine, NewSession, Owner, Portable, Publication
from wakeline.gateway.log.engines.nats import NatsEngine
from wakeline.gateway.log.engines.postgres import PostgresEngine
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.sessions import Move, Moved, check_unused, moving
from wakeline.gateway.settings import Settings

Make = Callable[[], Engine]
# Each engine once as the source and once as the target; a soak tries every pair.
KINDS = ["sqlite", "postgres", "nats"]
WAYS = list(product(KINDS, KINDS)) if SOAK > 1 else list(zip(KINDS, [*KINDS[1:], KINDS[0]], strict=True))


@pytest.fixture
async def make(postgres: PostgresServer, nats: NatsStore, tmp_path: Path) -> Callable[[str], Any]:
    async def one(kind: str) -> Make:
        if kind == "nats":
            store = nats.address()
            return lambda: NatsEngine(store)
        if kind == "postgres":
            address = await postgres.database()
            return lambda: PostgresEngine(address)
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return lambda: SqliteEngine(folder)

    return one


@asynccontextmanager
async def opened(*stores: Make) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        engines = [store() for store in stores]
        for engine in engines:
            await engine.open()
            stack.push_async_callback(engine.close)
        yield engines


async def fill(engine: Engine) -> None:
    """Sessions of every kind."""
    await publish(engine, "attempts", 1, 2, publisher="p", supersedes=True)
    await publish(engine, "attempts", 3, publisher="q")
    await publish(engine, "attempts", 4, publisher="q", attempt=2)  # keeps the events of the first one
    await publish(engine, "attempts", 5, publisher="p", attempt=2, supersedes=True)
    await publish(engine, "attempts", publisher="gap", covers=7)
    owned = Publication("owned", owner=Owner("user:ada", ("a.*",)))
    await engine.append(Append("attempts", batch("attempts", 6).events, owned))
    for number in range(30):
        done = await publish(
            engine, "trimmed", "x" * number, publisher="even" if number % 2 else "odd", sequence=number // 2
        )
    await engine.trim("trimmed", 11, epoch=done.epoch)
    done = await publish(engine, "emptied", 1, 2)
    await engine.trim("emptied", 2, epoch=done.epoch)
    await publish(engine, "gone", 1)
    await engine.delete_session("gone")
    await publish(engine, "closed", {"snow": "\N{SNOWMAN}"})
    await close(engine, "closed")
    await engine.create_session(NewSession("configured", config=b'{"retention": {}}', deadline=4e9))
    await engine.create_session(NewSession("draft", draft=True, deadline=1.0))
    await engine.append(Append("\N{SNOWMAN} ordered", batch("s", 1).events, order="7"))
    await engine.append_each([batch(f"many-{number:03}", number, publisher="p") for number in range(150)])
    for number in range(130):
        await engine.put_record(f"records/{number:03}", b"\x00\xff" * number, revision=0)
    await engine.put_record("leases/gateway/gone", b"gone", revision=0)


async def content(engine: Any) -> dict[str, Any]:
    states = await engine.sessions(limit=1000)
    found: dict[str, Any] = {"states": states}
    for state in states:
        publishers = await engine.publishers(state.session, epoch=state.epoch, limit=1000)
        found[state.session] = (
            await everything(engine, state.session),
            publishers,
            await engine.order(state.session, epoch=state.epoch),
        )
    records = await engine.records_after("", limit=1000)
    found["records"] = {record.key: record.value for record in records if record.key.startswith("records/")}
    return found


async def move(source: Engine, target: Engine) -> Moved:
    return await Move(source, target, lambda _: None).run()


@pytest.mark.parametrize(("source", "target"), WAYS, ids=["-to-".join(way) for way in WAYS])
async def test_a_store_that_was_moved_is_equal_and_goes_on(
    make: Callable[[str], Any], source: str, target: str
) -> None:
    async with opened(await make(source), await make(target)) as (old, new):
        await fill(old)
        moved = await move(old, new)
        before = await content(old)
        assert await content(new) == before
        assert (moved.sessions, moved.records) == (156, 130)
        assert await new.get_record("leases/gateway/gone") is None
        # A retry is recognised, an earlier attempt is refused, an owner keeps its publisher, an order goes on.
        assert (await publish(new, "attempts", 5, publisher="p", attempt=2)).duplicate
        with pytest.raises(AttemptFencedError):
            await publish(new, "attempts", 0, publisher="p", sequence=2)
        assert (await new.open_attempt("attempts", Publication("q", 3))).earlier_events == 2
        assert (await publish(new, "attempts", 7, publisher="gap", sequence=7)).first_offset > 0
        with pytest.raises(StreamConflictError):
            await new.append(Append("\N{SNOWMAN} ordered", batch("s", 2).events, order="6"))
        assert (await publish(new, "trimmed", 30, publisher="odd", sequence=15)).first_offset == 30
        assert (await publish(new, "emptied", 3)).first_offset == 2
        assert [name for name, _ in await new.due(5e9)] == ["configured"]


@pytest.mark.parametrize("target", ["postgres", "nats"])
async def test_a_move_that_was_cut_short_continues(
    make: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    async with opened(await make("sqlite"), await make(target)) as (old, new):
        await fill(old)
        adopt, adopted = new.adopt, list[str]()

        async def fails(session: str, *given: Any, **how: Any) -> None:
            if len(adopted) == 20:
                raise ConnectionError("cut")
            adopted.append(session)
            await adopt(session, *given, **how)

        monkeypatch.setattr(new, "adopt", fails)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await move(old, new)
            assert len(await new.sessions(limit=1000)) == 20
        monkeypatch.setattr(new, "adopt", adopt)
        assert (await move(old, new)).sessions == 156
        assert await content(new) == await content(old)
        assert (await move(old, new)).sessions == 156
        await publish(new, "other", 1)
        await publish(old, "other", 1)
        with pytest.raises(SessionExistsError, match="'other'"):
            await move(old, new)


@pytest.mark.parametrize("kind", ["postgres", "nats"])
async def test_a_store_with_a_gateway_is_not_moved(
    make: Callable[[str], Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(await make(kind)) as (engine,):
        settings = Settings(port=0, no_auth=True, lease=1.0)
        async with gateway(settings, engine=(await make(kind))()) as _:
            await check_unused(engine, 0.5)  # it uses another store
        await engine.put_record("leases/gateway/killed", b"killed", revision=0)
        await check_unused(engine, 0.5)

        async def renewed_meanwhile(_: float) -> None:
            (lease,) = await engine.records("leases/")
            await engine.put_record(lease.key, b"killed", revision=lease.revision)

        monkeypatch.setattr(moving, "asyncio", SimpleNamespace(sleep=renewed_meanwhile))
        with pytest.raises(EngineRefusedError, match="without gateways"):
            await check_unused(engine, 3.0)
        assert isinstance(engine, Portable)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("kind", ["postgres", "nats"])
async def test_the_command_moves_the_store_of_a_gateway_with_its_cursors(
    postgres: PostgresServer, nats: NatsStore, tmp_path: Path, kind: str
) -> None:
    address = await postgres.database() if kind == "postgres" else nats.address()
    old, new = f"sqlite:{tmp_path / 'data'}", address
    async with gateway(Settings(data=str(tmp_path / "data"), port=0, no_auth=True)) as url, Served(url) as served:
        await served.publish("s", *({"topic": "t", "data": number} for number in range(3)))
        _, page = await served.call("GET", "/v1/sessions/s/events?limit=2")
        assert (await served.call("PUT", "/v1/sessions/s/devices/phone", json={"seen": page["cursor"]}))[0] == 200
        code, _, err = await wakeline("admin", "move", "--from", old, "--to", new)
        assert (code, "data_in_use" in err) == (2, True)
    # It names both stores itself: what WAKELINE_ENGINE has does not matter.
    code, out, err = await wakeline("admin", "move", "--from", old, "--to", new, environment={"WAKELINE_ENGINE": ""})
    assert code == 0, err
    assert out.startswith("moved and verified 1 sessions, 3 events, 0 publishers, ")
    settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        for start in (page["cursor"], "device&device=phone"):
            _, after = await served.call("GET", f"/v1/sessions/s/events?from={start}")
            assert [event["data"] for event in after["events"]] == [2]
    for given in (("--from", old), ("--from", "memory", "--to", new), ("--from", old, "--to", "s3://x")):
        code, _, err = await wakeline("admin", "move", *given)
        assert (code, "settings_invalid" in err) == (2, True), err


@pytest.mark.usefixtures("forks")
async def test_a_store_that_does_not_exist_is_not_moved(postgres: PostgresServer, tmp_path: Path) -> None:
    address = await postgres.database()
    code, _, err = await wakeline("admin", "move", "--from", f"sqlite:{tmp_path}/nope", "--to", address)
    assert (code, "there is none in" in err) == (2, True)
    assert not (tmp_path / "nope").exists()
    code, _, err = await wakeline("admin", "move", "--from", address, "--to", f"sqlite:{tmp_path}/new")
    assert (code, "it has no tables" in err) == (2, True)
