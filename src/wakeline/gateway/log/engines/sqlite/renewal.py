"""Begins a new generation of a restored store: new epochs for sessions and their records."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from wakeline.errors import SettingsInvalidError, StorageFailedError
from wakeline.gateway.log.engines.sqlite.appends import Appends
from wakeline.gateway.log.engines.sqlite.generations import Generation
from wakeline.gateway.log.engines.sqlite.schema import DirectoryLock, connect_writer
from wakeline.gateway.log.engines.sqlite.upkeep import DATABASE, LOCK
from wakeline.gateway.log.names import new_epoch
from wakeline.gateway.log.store import Carry

_RECORDS: Final = 100


def renew(connection: sqlite3.Connection, appends: Appends, *, generation: Generation, carry: Carry) -> None:
    """Begin a new generation, in the current transaction."""
    appends.flush()
    appends.forget()
    epochs: dict[str, str] = {}
    for session, epoch in connection.execute("SELECT id, epoch FROM sessions").fetchall():
        epochs[epoch] = new_epoch()
        connection.execute("UPDATE sessions SET epoch = ? WHERE id = ?", (epochs[epoch], session))
    last = 0
    while rows := connection.execute(
        "SELECT revision, key, value FROM records WHERE revision > ? ORDER BY revision LIMIT ?", (last, _RECORDS)
    ).fetchall():
        for last, key, value in rows:
            carried = carry(key, value, epochs)
            if carried != (key, value):
                connection.execute("UPDATE records SET key = ?, value = ? WHERE revision = ?", (*carried, last))
    generation.begin(connection)


def check_stored(directory: Path) -> None:
    """Check that a directory has a store.

    Raises:
        SettingsInvalidError: It has none.
    """
    if not (directory / DATABASE).is_file():
        raise SettingsInvalidError(
            f"expected a data directory with a {DATABASE}, there is none in {directory}",
            hint="Correct the path of the directory.",
        )


def mark_restored(directory: Path) -> None:
    """Mark the store in a directory as restored, for its next start.

    Raises:
        DataInUseError: A process uses the directory.
        SettingsInvalidError: There is no store.
        StorageFailedError: It cannot be written.
    """
    check_stored(directory)
    lock = DirectoryLock(directory / LOCK)
    lock.acquire()
    try:
        with closing(connect_writer(directory / DATABASE)) as connection:
            # A store without a generation gets one here: `Generation.open` would otherwise treat it as new.
            connection.execute(
                "UPDATE store SET generation = coalesce(nullif(generation, ''), 'none'), inode = 'restored'"
            )
    except sqlite3.Error as error:
        raise StorageFailedError(
            f"expected a store in {directory} that can be written, got: {error}",
            hint="Run the command as the gateway's user.",
        ) from error
    finally:
        lock.release()
