"""The database file: its tables, its migrations, its connections and its lock."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from wakeline.errors import DataInUseError, SchemaTooNewError, StorageFailedError
from wakeline.gateway.log.engines.sqlite.files import identity
from wakeline.gateway.log.values import unix

_log = structlog.get_logger(__name__)

APPLICATION_ID: Final = 0x57414B45  # "WAKE": identifies Wakeline's databases, also to the command `file`

_TIME: Final = b',"time":"'  # the last one in a body is the event's own: quotes within texts are escaped

_NOT_OURS: Final = "Give --data another directory, or move the file away; nothing in it was changed."
_NOT_OPENED: Final = (
    "Check the space on the disk and that this user may write there; restore a backup if the file is damaged."
)

# Each entry migrates the file from the version of its index to the next one. Entries are never edited, only added.
# The layout is measured: docs/decisions/0002-sqlite-layout.md.
MIGRATIONS: Final = (
    """
    CREATE TABLE sessions (
        id      INTEGER PRIMARY KEY,
        name    TEXT NOT NULL UNIQUE,
        epoch   TEXT NOT NULL,
        created TEXT NOT NULL,
        closed  INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE events (
        id      INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        offset  INTEGER NOT NULL,
        topic   TEXT NOT NULL,
        body    BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX events_by_offset ON events (session, offset);

    CREATE TABLE publishers (
        id      INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        name    TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        UNIQUE (session, name)
    ) STRICT;

    -- Stretches of a publisher's current attempt: sequences [first, next) stand at offsets [first, next).
    CREATE TABLE publications (
        publisher      INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL,
        next_sequence  INTEGER NOT NULL,
        first_offset   INTEGER NOT NULL,
        next_offset    INTEGER NOT NULL,
        PRIMARY KEY (publisher, first_sequence)
    ) STRICT, WITHOUT ROWID;

    -- AUTOINCREMENT: a record that is removed and written again must not have a revision it had before.
    CREATE TABLE records (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        key      TEXT NOT NULL UNIQUE,
        value    BLOB NOT NULL
    ) STRICT;
    """,
    """
    -- Where the log begins, or goes on when all of its events are gone.
    ALTER TABLE sessions ADD COLUMN first_offset INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN config BLOB NOT NULL DEFAULT x'';
    ALTER TABLE sessions ADD COLUMN deadline REAL;
    CREATE INDEX sessions_by_deadline ON sessions (deadline) WHERE deadline IS NOT NULL;

    -- Bytes of the session's events before this one: what a stretch holds is a difference, whatever its length.
    ALTER TABLE events ADD COLUMN bytes_before INTEGER NOT NULL DEFAULT 0;
    UPDATE events SET bytes_before = earlier.total FROM (
        SELECT id, sum(length(body)) OVER (PARTITION BY session ORDER BY offset) - length(body) AS total FROM events
    ) AS earlier WHERE earlier.id = events.id;

    -- Deleted sessions whose rows are still to be removed; their ids are not given away before. 0: whose copies are.
    CREATE TABLE erasing (session INTEGER PRIMARY KEY) STRICT;
    """,
    """
    -- Where the events of a publisher's earlier attempts stand that still count.
    CREATE TABLE kept (
        publisher    INTEGER NOT NULL,
        first_offset INTEGER NOT NULL,
        next_offset  INTEGER NOT NULL,
        PRIMARY KEY (publisher, first_offset)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Whose a publisher is, as JSON; NULL: nobody's until it is used.
    ALTER TABLE publishers ADD COLUMN owner TEXT;
    """,
    """
    -- When each was deleted, in unix time. Which numbers stand for something else: erasing.py.
    ALTER TABLE erasing ADD COLUMN since REAL NOT NULL DEFAULT 0;
    CREATE INDEX erasing_by_since ON erasing (since);
    UPDATE erasing SET since = strftime('%s');
    -- Earlier versions left copies of deleted rows in free space. A new file has none.
    INSERT OR REPLACE INTO erasing SELECT 0, strftime('%s') WHERE EXISTS (SELECT 1 FROM sqlite_sequence)
        OR EXISTS (SELECT 1 FROM sessions);
    """,
    """
    -- 1: of events that retention removed, many stretches put together: how many there were, and not where. stretches.py.
    ALTER TABLE publications ADD COLUMN rough INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE kept ADD COLUMN rough INTEGER NOT NULL DEFAULT 0;
    """,
    """
    -- One row: the generation of the store, how far it has come, and its file. See generations.py.
    CREATE TABLE store (generation TEXT NOT NULL, ticks INTEGER NOT NULL, inode TEXT NOT NULL) STRICT;
    INSERT INTO store VALUES ('', 0, '');
    """,
    """
    -- The latest time of the session's events up to this one, unix time in milliseconds: it never goes back, though times may.
    ALTER TABLE events ADD COLUMN latest INTEGER NOT NULL DEFAULT 0;
    UPDATE events SET latest = earlier.latest FROM (
        SELECT id, max(accepted_at(body)) OVER (PARTITION BY session ORDER BY offset) AS latest FROM events
    ) AS earlier WHERE earlier.id = events.id;
    """,
    """
    -- 1: the session is being made, and only calls that give its epoch find it.
    ALTER TABLE sessions ADD COLUMN draft INTEGER NOT NULL DEFAULT 0;
    -- Earlier versions made them under names that begin so; what is left of them is erased.
    INSERT OR REPLACE INTO erasing SELECT id, strftime('%s') FROM sessions WHERE name < char(2);
    DELETE FROM sessions WHERE name < char(2);
    """,
    """
    -- The last `Stream-Seq`; empty if there was none. Earlier versions had it in a record.
    ALTER TABLE sessions ADD COLUMN writer_order TEXT NOT NULL DEFAULT '';
    UPDATE sessions SET writer_order = json_extract(CAST(value AS TEXT), '$.seq') FROM records
        WHERE key = 'stream-seq/' || name AND json_extract(CAST(value AS TEXT), '$.epoch') = epoch;
    DELETE FROM records WHERE key >= 'stream-seq/' AND key < 'stream-seq0';
    """,
    """
    -- The newest sessions, without a sort.
    CREATE INDEX sessions_by_created ON sessions (created, name) WHERE NOT draft;
    """,
)


def connect_writer(path: Path, *, durability: str = "full") -> sqlite3.Connection:
    """Open the file for writing and bring it to the newest schema.

    Args:
        path: The database file; created if missing.
        durability: With `full` (default) commits survive a power cut, with `process` only a crash of the process.

    Raises:
        SchemaTooNewError: A newer Wakeline wrote it.
        StorageFailedError: It is not a Wakeline database, or cannot be opened.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        version = _version(connection, path)  # before anything is changed
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        # Checkpoints run in the writer; rarer ones keep them out of the p99 at the price of a WAL of some 40 MB.
        connection.execute("PRAGMA wal_autocheckpoint = 10000")
        # It grows beyond while another program reads. Without a limit SQLite would keep the file as long as it once was.
        connection.execute("PRAGMA journal_size_limit = 50000000")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA secure_delete = ON")  # overwrite deleted rows
        if 0 < version < len(MIGRATIONS):
            # It takes about 15 s per million events: without this line the start would seem to hang.
            size = round(path.stat().st_size / 1e6)
            _log.info("the store is migrated to a newer schema", megabytes=size, schema=len(MIGRATIONS), found=version)
        _migrate(connection, version)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            hint = _NOT_OURS if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB else _NOT_OPENED
            raise StorageFailedError(f"expected a Wakeline database at {path}, got: {error}", hint=hint) from error
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading; the connection sees only committed data."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    connection.execute("PRAGMA query_only = 1")
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application not in (0, APPLICATION_ID):
        raise StorageFailedError(
            f"expected a Wakeline database at {path}, it belongs to application {application:#x}", hint=_NOT_OURS
        )
    if version > len(MIGRATIONS):
        raise SchemaTooNewError(f"expected schema {len(MIGRATIONS)} or older in {path}, it has schema {version}")
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Run the migrations that the file lacks."""
    connection.create_function("accepted_at", 1, _accepted_at, deterministic=True)
    scripts = [
        f"{script}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1)
    ]
    if version == 0:
        scripts = ["".join(scripts)]  # a new file has no older schema to keep: one commit
    for script in scripts:
        # One transaction each: a crash in the middle leaves the older schema whole.
        connection.executescript(f"BEGIN IMMEDIATE; {script} COMMIT;")


def _accepted_at(body: bytes) -> int:
    """Return the time in an event's body, as unix time in milliseconds."""
    time = body[body.rindex(_TIME) + len(_TIME) :].partition(b'"')[0]
    return unix(time.decode())


class DirectoryLock:
    """The lock of a data directory, which keeps other gateways away.

    With two writers on one file, the events of each would not reach the other's devices.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Lock the directory; the kernel releases the lock whenever the process ends.

        Raises:
            DataInUseError: Another process has it.
        """
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, 20, 0).decode(errors="replace").strip()
                os.close(file)
                holder = f"process {holder}" if holder.isdigit() else "another process"
                raise DataInUseError(
                    f"expected to be alone on {self._path.parent.absolute()}, {holder} has it"
                ) from None
            if identity(self._path) == (os.fstat(file).st_dev, os.fstat(file).st_ino):
                self._file = file
                with suppress(OSError):  # the disk may be full; the process id is only for the message
                    os.ftruncate(file, 0)
                    os.pwrite(file, str(os.getpid()).encode(), 0)
            else:  # the file was deleted before it was locked: another process would lock a new one
                os.close(file)

    def release(self) -> None:
        """Unlock the directory."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
