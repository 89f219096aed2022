"""The files that a store in SQLite notes, to detect a copy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import publish
from wakeline.gateway.log.engines.sqlite import SqliteEngine
from wakeline.gateway.log.engines.sqlite.generations import Generation


async def is_restored(directory: Path) -> bool:
    """Open a store, and publish; return whether it counts as restored."""
    engine = SqliteEngine(directory, durability="process")
    await engine.open()
    try:
        await publish(engine, "s", 1)
        return engine.restored
    finally:
        await engine.close()


def noted(directory: Path, *, becomes: str | None = None) -> str:
    """Return the files that a store has noted, or change them."""
    with closing(sqlite3.connect(directory / "wakeline.db", isolation_level=None)) as connection:
        if becomes is not None:
            connection.execute("UPDATE store SET inode = ?", (becomes,))
        return str(connection.execute("SELECT inode FROM store").fetchone()[0])


async def test_a_store_of_an_earlier_version_notes_its_files_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = str(tmp_path.stat().st_ino)
    monkeypatch.setattr(Generation, "_files", lambda _: f"{inode} 7")
    assert not await is_restored(tmp_path)
    noted(tmp_path, becomes=inode)
    assert not await is_restored(tmp_path)
    assert noted(tmp_path) == f"{inode} 7"
    monkeypatch.setattr(Generation, "_files", lambda _: f"{inode} 8")  # a copy on the same inode
    assert await is_restored(tmp_path)


async def test_a_system_without_generations_of_inodes_keeps_the_one_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generation, "_files", lambda _: "3 7")
    assert not await is_restored(tmp_path)
    monkeypatch.setattr(Generation, "_files", lambda _: "3")
    assert not await is_restored(tmp_path)
    assert noted(tmp_path) == "3 7"
