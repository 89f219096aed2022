"""A disk on which small events fit and large ones do not counts as full until nothing was refused for a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.clocks import Clock
from wakeline.gateway.log.engines.sqlite import upkeep as module
from wakeline.gateway.log.engines.sqlite.schema import connect_writer
from wakeline.gateway.log.engines.sqlite.upkeep import DATABASE, Upkeep


def test_a_disk_is_reported_as_full_until_nothing_was_refused_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    upkeep = Upkeep(tmp_path)
    upkeep.open()
    connection = connect_writer(tmp_path / DATABASE)
    upkeep.connected(connection)
    with capture_logs() as logged:
        for _ in range(3):
            upkeep.filled(connection)  # an append was refused
            upkeep.look(connection)
            assert (upkeep.full, upkeep.short) == (False, True)  # appends that fit are accepted at once
            clock.now += 59
            upkeep.look(connection)
            assert upkeep.short
        clock.now += 1
        upkeep.look(connection)
        assert not upkeep.short
    assert [line["event"] for line in logged] == [
        "the disk is full: appends are refused until there is space",
        "there is space on the disk again",
    ]
    connection.close()
    upkeep.close()
