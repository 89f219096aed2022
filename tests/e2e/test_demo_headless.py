"""`wakeline demo --headless`: it checks itself, and its exit code is believed only if it would tell."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from wakeline.cli.demo.devices import Seen
from wakeline.client import SessionEvent


async def test_it_ends_with_nothing_missing_and_nothing_left_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", "demo", "--headless", "--seconds", "12"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    assert process.returncode == 0, output.decode()
    assert re.fullmatch(r"sent [1-9][\d,]* · missing 0 · duplicate 0", lines[-1])
    assert sum("the gateway was killed" in line for line in lines) >= 2
    assert any(line.endswith("pipeline-1 was terminated") for line in lines)
    assert any("pipeline-1: terminated" in line for line in lines)
    assert any("the phone, asleep, is notified of order-1: Pay 12 EUR to ACME?" in line for line in lines)
    assert any("order-1: completed, 7 events" in line for line in lines), "approved, it went through all its steps"
    assert list(tmp_path.iterdir()) == []


def event(offset: int) -> SessionEvent[int]:
    now, raw = datetime.now(UTC), b"%d" % offset
    return SessionEvent(offset=offset, topic="t", data=offset, time=now, cursor=f"aaaaaaaaaa-{offset + 1}", raw=raw)


def test_the_account_notices_what_is_missing_and_what_came_twice() -> None:
    seen = Seen()
    for offset in (0, 1, 4, 4, 2, 5):
        seen.take(event(offset))
    assert (seen.missing, seen.duplicate) == (2, 2)
