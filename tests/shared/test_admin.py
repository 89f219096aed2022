"""`wakeline admin`: `migrate` brings the tables to the program's schema. `restored`: begins new epochs."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from pathlib import Path

import msgspec
import pytest

from tests.commands import wakeline
from tests.gateways import GatewayProcess
from tests.nats import NatsStore
from tests.postgres import PostgresServer, connection_to
from tests.support import Served
from wakeline.cli.processes import free_port
from wakeline.errors import EngineRefusedError
from wakeline.gateway.app import gateway
from wakeline.gateway.log.engines.postgres import PostgresEngine, schema
from wakeline.gateway.settings import Settings
from wakeline.gateway.stores import renew

pytestmark = pytest.mark.usefixtures("forks")
NOW = len(schema.MIGRATIONS)
SEEN_WITHIN = "4"
"""Seconds in which a command sees that a gateway renews its lease of one second, also on a busy machine."""

NEWER = (*schema.MIGRATIONS, "CREATE TABLE wakeline.more (id bigint)")


@pytest.fixture
async def address(postgres: PostgresServer) -> str:
    return await postgres.database()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with one more migration."""
    monkeypatch.setattr(schema, "MIGRATIONS", NEWER)
    monkeypatch.setattr("wakeline.gateway.log.engines.postgres.engine.MIGRATIONS", NEWER)


async def test_the_command_makes_the_tables_and_reports_what_is_pending(address: str) -> None:
    environment = {"WAKELINE_ENGINE": address}
    code, out, _ = await wakeline("admin", "migrate", "--check", environment=environment)
    assert (code, out) == (1, f"the store has no tables, this program has schema {NOW}: a migration is pending\n")
    code, out, _ = await wakeline("admin", "migrate", environment=environment)
    assert (code, out) == (0, f"migrated the store from no tables to schema {NOW}\n")
    for arguments in ((), ("--check",)):
        code, out, _ = await wakeline("admin", "migrate", *arguments, environment=environment)
        assert (code, out) == (0, f"the store has schema {NOW}: nothing to do\n")


async def test_a_newer_store_or_another_engine_is_refused(address: str) -> None:
    await PostgresEngine(address).migrate(check=False)
    async with connection_to(address) as connection:
        await connection.execute("UPDATE wakeline.version SET version = 70")
    for arguments in ((), ("--check",)):
        code, _, err = await wakeline("admin", "migrate", *arguments, environment={"WAKELINE_ENGINE": address})
        assert code == 2
        assert "it has schema 70" in err
    code, _, err = await wakeline("admin", "migrate", environment={"WAKELINE_ENGINE": "sqlite"})
    assert code == 2
    assert "got sqlite" in err


@pytest.mark.usefixtures("newer")
async def test_programs_that_migrate_at_once_migrate_once(address: str) -> None:
    found = await asyncio.gather(*(PostgresEngine(address).migrate(check=False) for _ in range(8)))
    assert {wanted for _, wanted in found} == {NOW + 1}
    assert await PostgresEngine(address).migrate(check=True) == (NOW + 1, NOW + 1)


async def test_a_role_that_may_not_change_tables_is_told_to_have_them_migrated(
    postgres: PostgresServer, address: str, request: pytest.FixtureRequest
) -> None:
    await PostgresEngine(address).migrate(check=False)
    database = address.rsplit("/", 1)[1]
    await postgres.execute("DROP ROLE IF EXISTS gateways")
    await postgres.execute("CREATE ROLE gateways LOGIN")
    for grant in (
        "GRANT USAGE ON SCHEMA wakeline TO gateways",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wakeline TO gateways",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA wakeline TO gateways",
    ):
        await postgres.execute(grant, database)
    engine = PostgresEngine(address.replace("wakeline@", "gateways@"))
    await engine.open()
    await engine.close()
    request.getfixturevalue("newer")
    with pytest.raises(EngineRefusedError, match="may create and change") as refused:
        await PostgresEngine(address.replace("wakeline@", "gateways@")).open()
    assert "wakeline admin migrate" in (refused.value.hint or "")
    for statement in ("DROP OWNED BY gateways", "DROP ROLE gateways"):
        await postgres.execute(statement, database)


@pytest.mark.parametrize("kind", ["postgres", "nats"])
async def test_a_declared_restore_begins_a_new_epoch_and_keeps_positions(
    address: str, nats: NatsStore, kind: str
) -> None:
    address = address if kind == "postgres" else nats.address()
    settings = Settings(engine=address, port=0, no_auth=True, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        await served.publish("s", *({"topic": "t", "data": number} for number in range(3)), publisher="p", sequence="0")
        _, page = await served.call("GET", "/v1/sessions/s/events?limit=2")
        assert (await served.call("PUT", "/v1/sessions/s/devices/phone", json={"seen": page["cursor"]}))[0] == 200
    code, out, _ = await wakeline("admin", "restored", environment={"WAKELINE_ENGINE": address})
    assert (code, out) == (0, "1 sessions continue in a new epoch\n")
    async with gateway(settings) as url, Served(url) as served:
        status, answer = await served.call("GET", f"/v1/sessions/s/events?from={page['cursor']}")
        assert (status, answer["error"]["code"]) == (410, "epoch_changed")
        _, after = await served.call("GET", "/v1/sessions/s/events?from=device&device=phone")
        assert [event["data"] for event in after["events"]] == [2]
        again = await served.publish("s", {"topic": "t", "data": 2}, publisher="p", sequence="2")
        assert again["duplicate"]


async def test_a_restore_is_not_declared_while_a_gateway_runs(address: str) -> None:
    environment = {"WAKELINE_ENGINE": address, "WAKELINE_LEASE": SEEN_WITHIN}
    settings = Settings(engine=address, port=0, no_auth=True, lease=1.0, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        await served.publish("s", {"topic": "t", "data": 1})
        _, before = await served.call("GET", "/v1/sessions/s")
        code, _, err = await wakeline("admin", "restored", environment=environment)
        assert (code, "without gateways" in err) == (2, True)
        _, after = await served.call("GET", "/v1/sessions/s")
        assert after["epoch"] == before["epoch"]


@pytest.mark.parametrize("action", ["shards", "restored"])
async def test_a_store_is_not_made_by_a_command_that_surveys_or_renews_it(address: str, action: str) -> None:
    environment = {"WAKELINE_ENGINE": address}
    code, _, err = await wakeline("admin", action, environment=environment)
    assert (code, "it has no tables" in err, "wakeline admin migrate" in err) == (2, True, True)
    assert await PostgresEngine(address).migrate(check=True) == (0, NOW)


async def test_a_renewal_on_nats_that_was_cut_short_is_completed_by_the_next_one(
    nats: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = nats.address()
    settings = Settings(engine=address, port=0, no_auth=True, leave_within=0, lease=1.0)
    async with gateway(settings) as url, Served(url) as served:
        for session in ("a", "b"):
            await served.publish(session, *({"topic": "t", "data": number} for number in range(3)))
            _, page = await served.call("GET", f"/v1/sessions/{session}/events?limit=2")
            seen = {"seen": page["cursor"]}
            assert (await served.call("PUT", f"/v1/sessions/{session}/devices/phone", json=seen))[0] == 200

    async def cut(*_: object) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as patched:
        patched.setattr("wakeline.gateway.log.engines.nats.engine.carry_over", cut)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await renew(settings)
    assert await renew(settings) == 2
    async with gateway(settings) as url, Served(url) as served:
        for session in ("a", "b"):
            _, after = await served.call("GET", f"/v1/sessions/{session}/events?from=device&device=phone")
            assert [event["data"] for event in after["events"]] == [2]
            _, whole = await served.call("GET", f"/v1/sessions/{session}/events?from=beginning")
            assert [event["data"] for event in whole["events"]] == [0, 1, 2]
        with pytest.raises(EngineRefusedError, match="without gateways"):
            await renew(msgspec.structs.replace(settings, lease=float(SEEN_WITHIN)))


async def test_the_shards_of_each_gateway_are_shown(address: str) -> None:
    environment = {"WAKELINE_ENGINE": address, "WAKELINE_LEASE": "1"}
    settings = Settings(engine=address, port=0, no_auth=True, lease=1.0, leave_within=0)
    async with gateway(settings), gateway(settings):
        async with asyncio.timeout(60):
            while True:
                code, out, _ = await wakeline("admin", "shards", environment=environment)
                lines = [line.split() for line in out.splitlines()]
                if code == 0 and [(line[1], len(line)) for line in lines] == [("running", 5 + 8)] * 2:
                    break
        assert [line[2:5] for line in lines] == [[socket.gethostname(), "pid", str(os.getpid())]] * 2
    code, out, _ = await wakeline("admin", "shards", environment=environment)
    assert (code, out) == (0, f"no gateway        free        {' '.join(map(str, range(16)))}\n")
    code, _, err = await wakeline("admin", "shards", environment={"WAKELINE_ENGINE": "memory"})
    assert (code, "got memory" in err) == (2, True)


async def test_a_gateway_that_is_silent_is_shown_with_its_host_port_and_process(address: str, tmp_path: Path) -> None:
    own = free_port()
    environment = {"WAKELINE_ENGINE": address, "WAKELINE_LEASE": "30", "WAKELINE_OWN_PORT": str(own)}
    gateways = GatewayProcess(tmp_path / "data", environment=environment)
    await gateways.start()
    assert gateways.process is not None
    place = f"{socket.gethostname()}:{own} pid {gateways.process.pid}"
    await gateways.kill()
    code, out, _ = await wakeline("admin", "shards", environment={"WAKELINE_ENGINE": address, "WAKELINE_LEASE": "1"})
    assert code == 0
    assert re.fullmatch(rf"[0-9a-f]{{16}}  silent    {re.escape(place)}  0 1 [\d ]+\n", out)


async def test_the_streams_of_nats_are_shown_before_the_gateways(nats: NatsStore) -> None:
    address = nats.address()
    name = address.split("/")[3].split("?")[0]
    environment = {"WAKELINE_ENGINE": address, "WAKELINE_LEASE": SEEN_WITHIN}
    code, out, err = await wakeline("admin", "shards", environment=environment)
    assert code == 2
    assert out.splitlines() == [
        f"{f'{name}-{one}':24}  it is not there" for one in ("records", "sessions-0", "sessions-1")
    ]
    assert f"stream {name}-records, which has the leases of the gateways: it is not there" in err
    settings = Settings(engine=address, port=0, no_auth=True, lease=1.0, leave_within=0)
    async with gateway(settings) as url, Served(url) as served:
        await served.publish("s", {"topic": "t"})
        code, out, _ = await wakeline("admin", "shards", environment=environment)
    lines = out.splitlines()
    described = r" +leader alone, 1 of 1 replicas current, [\d,]+ messages, [\d,]+ bytes"
    assert code == 0
    assert [bool(re.fullmatch(rf"{name}-\S+{described}", line)) for line in lines] == [True] * 3 + [False]
    assert lines[3].split()[1:] == ["running", socket.gethostname(), "pid", str(os.getpid()), *map(str, range(16))]
    assert sorted(int(line.split(" messages")[0].split()[-1]) for line in lines[1:3]) == [0, 1]
