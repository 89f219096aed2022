"""A range of records is found in the index, however many other records there are."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from wakeline.gateway.log.engines.sqlite import queries


@pytest.mark.parametrize("after", ["", "m/0100"])
def test_a_slice_of_records_visits_no_others(after: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE records (revision INTEGER PRIMARY KEY, key TEXT UNIQUE, value BLOB)")
        names = [(f"{kind}/{number:04}",) for kind in "amz" for number in range(1_000)]
        connection.executemany("INSERT INTO records (key, value) VALUES (?, 'x')", names)
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        connection.set_progress_handler(step, 1)
        assert len(queries.records_after(connection, after, "m/", 16)) == 16
        assert 0 < steps < 1_000
        steps = 0
        assert queries.count_records(connection, "z/0") == (1_000, 1_000)
        assert steps < 15_000
