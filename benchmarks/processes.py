"""Starting the servers under test, each in a process of its own, on the cores it may use; and their CPU time."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_TICKS = os.sysconf("SC_CLK_TCK")
_URL = re.compile(rb"http://[\w.\[\]:-]*?:(\d+)")

ALL_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {ALL_CORES[0]}
LOAD_CORE = {ALL_CORES[-1]}


class StartError(Exception):
    """A server did not come up; the message holds the end of what it said."""


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Runs the block on `cores`. A process that is started inside inherits them, with all the threads it will have."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has now."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    total = (int(fields[11]) + int(fields[12])) / _TICKS
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            total += cpu_seconds(int(child))
    return total


def machine_cpu_seconds() -> float:
    """CPU time that all processes and the kernel of this machine have used, on the cores together."""
    user, nice, system, _, _, interrupt, soft = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, interrupt, soft))) / _TICKS


@dataclass
class Process:
    """A server that was started here, and will be ended here."""

    command: Sequence[str]
    cores: set[int]
    folder: Path
    pipe: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def start(self, *, wait_for_url: bool = True) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - closed by stop()
        with on_cores(self.cores):
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE if self.pipe else subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | self.environment,
            )
        if wait_for_url:
            self.port = self._find_port()

    def _find_port(self) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if found := _URL.search(self.said()):
                return int(found[1])
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        state, said = self.state(), self.last_words()
        self.stop()
        raise StartError(f"{' '.join(self.command)}\n  printed no URL ({state}){said}")

    @property
    def input(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise AssertionError("this process was started without a pipe")
        return self._process.stdin

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> bytes:
        return os.pread(self._log.fileno(), 1 << 24, 0)

    def state(self) -> str:
        code = self._process.poll()
        return "it still runs" if code is None else f"it ended with {code}"

    def last_words(self) -> str:
        """The end of what the process printed, to explain a failure."""
        said = self.said().decode(errors="replace").strip()
        return f"; it said:\n{said[-1500:]}" if said else "; it said nothing"

    def stop(self) -> None:
        """Asks the process to end, and makes it end when it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._log.close()
