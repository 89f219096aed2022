"""The tables, and their migrations."""

from __future__ import annotations

from typing import Final

import asyncpg
import structlog

from wakeline.errors import SchemaTooNewError
from wakeline.gateway.log.engines.postgres.refusals import of_migration
from wakeline.gateway.log.engines.postgres.target import Connection, Target

_LOCK: Final = 0x57414B45  # "WAKE": the advisory lock of a migration
_log = structlog.get_logger(__name__)

# Each entry migrates the tables from the version of its index to the next one. Entries are never edited, only added.
# Names sort by code points: COLLATE "C". Rows that every append changes have free space beside them (fillfactor), so that a
# change stays on its page and writes no index.
MIGRATIONS: Final = (
    """
    CREATE SEQUENCE wakeline.ids;
    CREATE SEQUENCE wakeline.revisions;

    -- `version` is another random number after each transaction that changes a session's log: a gateway may use what it
    -- remembers of its publishers as long as the version is the same. A counter could come back after a failover.
    CREATE TABLE wakeline.sessions (
        id           bigint PRIMARY KEY,
        name         text COLLATE "C" NOT NULL UNIQUE,
        epoch        text NOT NULL,
        created      text NOT NULL,
        version      bigint NOT NULL,
        first_offset bigint NOT NULL,
        next_offset  bigint NOT NULL,
        bytes_begin  bigint NOT NULL,
        bytes_end    bigint NOT NULL,
        latest       bigint NOT NULL,
        closed       boolean NOT NULL,
        draft        boolean NOT NULL,
        writer_order text NOT NULL,
        config       bytea NOT NULL,
        deadline     double precision
    ) WITH (fillfactor = 70);
    CREATE INDEX sessions_by_deadline ON wakeline.sessions (deadline) WHERE deadline IS NOT NULL;

    -- `bytes_before`: bytes of the session's events before this one. `latest`: the latest time up to it, which never goes back.
    CREATE TABLE wakeline.events (
        session      bigint NOT NULL,
        at           bigint NOT NULL,
        topic        text NOT NULL,
        body         bytea NOT NULL,
        bytes_before bigint NOT NULL,
        latest       bigint NOT NULL,
        PRIMARY KEY (session, at)
    );

    CREATE TABLE wakeline.publishers (
        id         bigint PRIMARY KEY,
        session    bigint NOT NULL,
        name       text COLLATE "C" NOT NULL,
        attempt    bigint NOT NULL,
        owner      text,
        owner_name text,
        UNIQUE (session, name)
    );
    CREATE INDEX publishers_by_owner ON wakeline.publishers (session, owner_name) WHERE owner_name IS NOT NULL;

    -- Stretches of a publisher's current attempt: sequences [first, next) are at offsets [first, next). `rough`: many
    -- stretches of removed events together, which have no exact offsets.
    CREATE TABLE wakeline.publications (
        publisher      bigint NOT NULL,
        first_sequence bigint NOT NULL,
        next_sequence  bigint NOT NULL,
        first_offset   bigint NOT NULL,
        next_offset    bigint NOT NULL,
        rough          boolean NOT NULL DEFAULT false,
        PRIMARY KEY (publisher, first_sequence)
    ) WITH (fillfactor = 70);

    -- The events of a publisher's earlier attempts that are still valid.
    CREATE TABLE wakeline.kept (
        publisher    bigint NOT NULL,
        first_offset bigint NOT NULL,
        next_offset  bigint NOT NULL,
        rough        boolean NOT NULL DEFAULT false,
        PRIMARY KEY (publisher, first_offset)
    );

    CREATE TABLE wakeline.records (
        key      text COLLATE "C" PRIMARY KEY,
        value    bytea NOT NULL,
        revision bigint NOT NULL
    ) WITH (fillfactor = 50);

    -- The last transaction of each connection that writes: it tells whether a commit whose answer was lost has taken place.
    CREATE TABLE wakeline.writers (
        id    text PRIMARY KEY,
        token bigint NOT NULL,
        at    timestamptz NOT NULL
    ) WITH (fillfactor = 50);

    -- Deleted sessions whose rows still exist, with the Unix time of the deletion.
    CREATE TABLE wakeline.erasing (
        session bigint PRIMARY KEY,
        since   double precision NOT NULL
    );
    """,
    """
    -- Retention removes events as fast as they arrive. A fifth of a large table, the default, would be much dead space.
    ALTER TABLE wakeline.events SET (autovacuum_vacuum_scale_factor = 0.05);
    """,
    """
    -- The newest sessions, without a sort.
    CREATE INDEX sessions_by_created ON wakeline.sessions (created COLLATE "C", name) WHERE NOT draft;
    """,
)


# Gateways only read the version. `has_table_privilege` asks for one right at a time: of several, any would do.
_LACKS: Final = """
    SELECT wanted.privilege || ' on ' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE']) AS wanted(privilege)
    WHERE n.nspname = 'wakeline' AND CASE
        WHEN c.relkind = 'S' THEN wanted.privilege = 'USAGE' AND NOT has_sequence_privilege(c.oid, 'USAGE')
        WHEN c.relkind <> 'r' OR wanted.privilege = 'USAGE' THEN false
        WHEN c.relname = 'version' THEN wanted.privilege = 'SELECT' AND NOT has_table_privilege(c.oid, 'SELECT')
        ELSE NOT has_table_privilege(c.oid, wanted.privilege)
    END
    ORDER BY 1
"""
_SHOWN: Final = 3


async def check_rights(connection: Connection, target: Target) -> None:
    """Check that the role may use every table, before the first session needs one.

    Raises:
        EngineRefusedError: It may not.
    """
    lacks = [row[0] for row in await connection.fetch(_LACKS)]
    if lacks:
        more = f" and {len(lacks) - _SHOWN} more" if len(lacks) > _SHOWN else ""
        raise await target.lacking(connection, f"one without {', '.join(lacks[:_SHOWN])}{more}")


async def migrate(connection: Connection, target: Target) -> None:
    """Bring the tables to the newest version, one gateway after the other.

    Raises:
        SchemaTooNewError: A newer Wakeline has written them.
        EngineRefusedError: The role has too few privileges.
    """
    version = await version_of(connection)
    if version == len(MIGRATIONS):
        return
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            version = await version_of(connection)
            if version == 0:
                # `IF NOT EXISTS` needs the right to create schemas, also for one that exists.
                if await connection.fetchval("SELECT to_regnamespace('wakeline') IS NULL"):
                    await connection.execute("CREATE SCHEMA wakeline")
                await connection.execute("CREATE TABLE wakeline.version (version integer NOT NULL)")
                await connection.execute("INSERT INTO wakeline.version VALUES (0)")
            elif version < len(MIGRATIONS):
                _log.info("the store is migrated to a newer schema", schema=len(MIGRATIONS), found=version)
            for script in MIGRATIONS[version:]:
                await connection.execute(script)
            await connection.execute("UPDATE wakeline.version SET version = $1", len(MIGRATIONS))
    except asyncpg.InsufficientPrivilegeError as error:
        raise of_migration(target.name, error, found=version) from None


async def version_of(connection: Connection) -> int:
    """Return the version of the tables; 0 if there are none.

    Raises:
        SchemaTooNewError: It is newer than this program.
    """
    if not await connection.fetchval(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'wakeline' AND tablename = 'version'"
    ):
        return 0
    version = int(await connection.fetchval("SELECT version FROM wakeline.version"))
    if version > len(MIGRATIONS):
        raise SchemaTooNewError(
            f"expected schema {len(MIGRATIONS)} or older in the database, it has schema {version}",
            hint="Run the newer Wakeline on this database; nothing was changed.",
        )
    return version
