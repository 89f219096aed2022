"""The address of PostgreSQL, as its users write it: TLS, the places of a password, and several hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.accepting import accepting
from tests.certificates import Authority
from tests.gateways import GatewayProcess
from tests.postgres import PostgresServer, connection_to, postgres_server
from tests.support import Served, publish
from wakeline.cli.processes import free_port
from wakeline.errors import EngineRefusedError
from wakeline.gateway.log.engines.postgres import PostgresEngine, target

pytestmark = pytest.mark.usefixtures("forks")
PASSWORD = "the-password"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def encrypted(authority: Authority) -> Iterator[PostgresServer]:
    """A server that offers TLS, as localhost, and has a database and a role with a password."""
    with postgres_server(authority.issue("localhost")) as server:
        for statement in (
            f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'",
            "CREATE DATABASE guarded OWNER guarded",
        ):
            asyncio.run(server.execute(statement))
        yield server


def place_of(server: PostgresServer, authority: Authority, login: str = "guarded") -> str:
    """The address of its database, with TLS alone."""
    return f"postgres://{login}@localhost:{server.port}/guarded?sslmode=verify-full&sslrootcert={authority.file}"


async def refused(address: str) -> str:
    with pytest.raises(EngineRefusedError) as error:
        await PostgresEngine(address).open()
    assert PASSWORD not in f"{error.value} {error.value.hint}"
    return error.value.message


async def encryption(server: PostgresServer) -> set[bool]:
    """Whether the connections of gateways are encrypted."""
    async with connection_to(server.address()) as connection:
        rows = await connection.fetch(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'wakeline'"
        )
    return {row[0] for row in rows}


@pytest.mark.parametrize("given", ["PGPASSWORD", "PGPASSFILE", "address"])
async def test_every_connection_of_a_gateway_is_encrypted_and_its_log_has_no_password(
    encrypted: PostgresServer, authority: Authority, tmp_path: Path, given: str
) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"localhost:{encrypted.port}:guarded:guarded:{PASSWORD}\n")
    file.chmod(0o600)
    environment = {"PGPASSWORD": {"PGPASSWORD": PASSWORD}, "PGPASSFILE": {"PGPASSFILE": str(file)}, "address": {}}[
        given
    ]
    login = f"guarded:{PASSWORD}" if given == "address" else "guarded"
    engine = {"WAKELINE_ENGINE": place_of(encrypted, authority, login), "WAKELINE_LOG_LEVEL": "debug"}
    gateway = GatewayProcess(tmp_path / "a", environment={**environment, **engine, "WAKELINE_LEAVE_WITHIN": "0"})
    await gateway.start()
    try:
        async with Served(gateway.url) as served:
            await served.publish("s", {"topic": "t"})
            assert await encryption(encrypted) == {True}
            await encrypted.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wakeline'"
            )
            assert (await served.publish("s", {"topic": "t"}))["next_offset"] >= 2
            assert await encryption(encrypted) == {True}
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()
    assert PASSWORD not in gateway.log.read_text()


async def test_a_server_that_cannot_prove_who_it_is_gets_no_password(
    encrypted: PostgresServer, postgres: PostgresServer, authority: Authority, tmp_path: Path
) -> None:
    right = place_of(encrypted, authority, f"guarded:{PASSWORD}")
    another = Authority(tmp_path, "another")
    assert "certificate verify failed" in await refused(right.replace(authority.file, another.file))
    assert "certificate verify failed" in await refused(right.replace("localhost", "127.0.0.1"))
    assert "rejected SSL upgrade" in await refused(right.replace(f":{encrypted.port}/", f":{postgres.port}/"))
    missing = await refused(right.replace(authority.file, "/nowhere.pem"))
    assert missing.startswith("expected a file in sslrootcert")


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A host that accepts connections and says nothing: its port, and what has connected."""
    connected: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        await asyncio.Future()

    async with accepting(take) as port:
        yield port, connected


async def test_of_several_hosts_the_one_that_answers_is_used(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "CONNECT_SECONDS", 3.0)  # the one that answers has as long
    address = await postgres.database()
    async with silent() as (port, connected):
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{port},127.0.0.1:{postgres.port}"
        engine = PostgresEngine(address.replace(f"127.0.0.1:{postgres.port}", hosts))
        await engine.open()
        await publish(engine, "s", 1)
        assert len(connected) == 1  # from then on the one that had answered
        await engine.close()


async def test_if_no_host_answers_the_refusal_names_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "CONNECT_SECONDS", 0.5)
    first, second = free_port(), free_port()
    message = await refused(f"postgres://guarded:{PASSWORD}@127.0.0.1:{first},127.0.0.1:{second}/x")
    assert f"127.0.0.1:{first},127.0.0.1:{second}: expected a server that can be reached" in message
