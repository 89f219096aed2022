"""Stops processes, as a machine does that stands still, and lets them go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_SECONDS = 60.0


def pause(pids: Iterable[int]) -> None:
    """Stop processes, and return when no thread of them runs; one that has ended is left out.

    On a busy machine a process runs on after SIGSTOP until one of its threads has its turn.
    """
    sent = list(pids)
    for pid in sent:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + _SECONDS
    while any(_runs(pid) for pid in sent):
        assert time.monotonic() < end, f"processes {sent} do not stop"
        time.sleep(0.001)


def resume(pids: Iterable[int]) -> None:
    """Let processes go on; one that has ended is left out."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _runs(pid: int) -> bool:
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "TtZX":
                    return True
    return False
