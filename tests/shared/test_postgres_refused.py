"""PostgreSQL servers, addresses and roles that do not fit are refused, each with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.commands import wakeline
from tests.postgres import PostgresServer, connection_to, postgres_server
from wakeline.errors import EngineRefusedError
from wakeline.gateway.log.engines.postgres import PostgresEngine

pytestmark = pytest.mark.usefixtures("forks")
GENERIC = "Start the server, or correct its address"
GRANTS = (
    "GRANT USAGE ON SCHEMA wakeline TO stranger",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wakeline TO stranger",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA wakeline TO stranger",
)


@pytest.fixture
async def address(postgres: PostgresServer) -> str:
    return await postgres.database()


async def refused(address: str) -> EngineRefusedError:
    with pytest.raises(EngineRefusedError) as error:
        await PostgresEngine(address).open()
    return error.value


@pytest.mark.parametrize(
    ("parameters", "says", "hint"),
    [
        ("sslmode=require", "TLS, which sslmode requires", "ssl = on"),
        ("sslmode=verify-full", "root.crt", "Name its file in sslrootcert"),
        ("sslmode=enable", "got 'enable'", "Correct sslmode"),
        ("sslrootcert=/nope.pem", "'/nope.pem'", "sslrootcert of the engine's address"),
        ("sslmod=disable", 'parameter "sslmod"', "did you mean sslmode?"),
        ("statement_timeout=soon", 'parameter "statement_timeout"', "Correct that parameter, or leave it out."),
        ("target_session_attrs=primry", "got 'primry'", "Correct target_session_attrs"),
        ("target_session_attrs=standby", "a server that accepts writes", "Name the primary"),
    ],
)
async def test_each_parameter_that_is_wrong_has_a_hint_of_its_own(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: str, says: str, hint: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    error = await refused(f"{address}?{parameters}")
    assert says in error.message
    assert hint in error.hint
    assert GENERIC not in error.hint


async def test_a_file_that_a_variable_names_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", "/nope.pem")
    error = await refused(f"{address}?sslmode=require")
    assert "the variable PGSSLROOTCERT" in error.message
    assert "'/nope.pem'" in error.message
    (tmp_path / "text").write_text("no certificate")
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "text"))
    error = await refused(f"{address}?sslmode=require")
    assert "certificates and keys in PEM" in error.message
    assert "PGSSLROOTCERT" in error.hint


async def test_a_host_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGHOST", "nohost.invalid")
    error = await refused("postgres://wakeline@/wakeline")
    assert "PostgreSQL at nohost.invalid: expected a host that can be found" in error.message
    assert "PGHOST" in error.hint
    assert "PostgreSQL at another.invalid: " in (await refused("postgres://wakeline@another.invalid/wakeline")).message
    assert (
        "PostgreSQL at third.invalid: " in (await refused("postgres://wakeline@/wakeline?host=third.invalid")).message
    )
    monkeypatch.setenv("PGHOST", str(tmp_path))
    error = await refused("postgres://wakeline@/wakeline")
    assert f"PostgreSQL at {tmp_path}: " in error.message
    assert GENERIC in error.hint


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that accepts connections with TLS alone, and few."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with postgres_server(authority.issue("localhost")) as server:
        for statement in (
            "CREATE DATABASE closed",
            "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
            "CREATE ROLE visitor LOGIN PASSWORD 'the-password'",
            "CREATE ROLE crowded LOGIN PASSWORD 'the-password' CONNECTION LIMIT 0",
        ):
            asyncio.run(server.execute(statement))
        yield server


async def test_a_role_that_may_not_connect_has_a_hint_of_its_own(strict: PostgresServer) -> None:
    place = f"the-password@localhost:{strict.port}"
    error = await refused(f"postgres://visitor:{place}/closed")
    assert "GRANT CONNECT ON DATABASE" in error.hint
    error = await refused(f"postgres://crowded:{place}/postgres")
    assert "too many connections" in error.message
    assert "connection limit" in error.hint


async def stranger(postgres: PostgresServer, address: str) -> str:
    """The address for a role without rights."""
    await postgres.execute("DROP ROLE IF EXISTS stranger")
    await postgres.execute("CREATE ROLE stranger LOGIN")
    return address.replace("wakeline@", "stranger@")


async def test_a_role_without_rights_on_the_tables_is_told_the_three_grants(
    postgres: PostgresServer, address: str
) -> None:
    await PostgresEngine(address).migrate(check=False)
    theirs, database = await stranger(postgres, address), address.rsplit("/", 1)[1]
    for command in ("migrate", "migrate --check", "shards", "restored"):
        code, _, err = await wakeline("admin", *command.split(), environment={"WAKELINE_ENGINE": theirs})
        assert code == 2
        assert err.startswith("engine_refused: ")
        assert "permission denied for schema wakeline" in err
        assert [grant in err for grant in GRANTS] == [True] * 3
        assert "docs/operate/upgrades.md#several-gateways-on-postgresql" in err
        assert "grant CREATE" not in err
    for lacks, grant in zip(("on table|for table version", "USAGE on ids", ""), GRANTS, strict=True):
        await postgres.execute(grant, database)
        if not lacks:
            break
        error = await refused(theirs)
        assert any(part in error.message for part in lacks.split("|"))
        assert [one in error.hint for one in GRANTS] == [True] * 3
    engine = PostgresEngine(theirs)
    await engine.open()
    await engine.close()
    await postgres.execute("REVOKE DELETE ON wakeline.events FROM stranger", database)
    assert "got: one without DELETE on events" in (await refused(theirs)).message
    for statement in ("DROP OWNED BY stranger", "DROP ROLE stranger"):
        await postgres.execute(statement, database)


async def test_a_schema_of_another_role_without_tables_is_not_offered_the_grants_alone(
    postgres: PostgresServer, address: str
) -> None:
    theirs, database = await stranger(postgres, address), address.rsplit("/", 1)[1]
    await postgres.execute("CREATE SCHEMA wakeline", database)
    await postgres.execute("GRANT USAGE ON SCHEMA wakeline TO stranger", database)
    error = await refused(theirs)
    assert "ALTER SCHEMA wakeline OWNER TO" in error.hint
    for statement in ("DROP OWNED BY stranger", "DROP ROLE stranger"):
        await postgres.execute(statement, database)


async def test_a_statement_of_an_admin_command_that_fails_is_no_failed_append(address: str) -> None:
    await PostgresEngine(address).migrate(check=False)
    async with connection_to(address) as connection, connection.transaction():
        await connection.execute("LOCK TABLE wakeline.version")
        for command in ("migrate", "migrate --check", "shards", "restored"):
            environment = {"WAKELINE_ENGINE": f"{address}?statement_timeout=100"}
            code, _, err = await wakeline("admin", *command.split(), environment=environment)
            assert code == 2
            assert "canceling statement due to statement timeout" in err
            assert "Wakeline-Publisher" not in err
