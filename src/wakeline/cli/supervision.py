"""Starts several gateways on one machine, restarts those that end, and stops all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import structlog

from wakeline.background import cancel_all
from wakeline.cli.processes import die_with_parent
from wakeline.errors import SettingsInvalidError
from wakeline.gateway.listening import check_ports
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff

NUMBER: Final = "WAKELINE_PROCESS_NUMBER"
"""The variable by which a process knows that it is one of several, and which one."""

_ALONE: Final = {
    "sqlite": "One gateway writes a SQLite file, on one core.",
    "memory": "The engine memory keeps sessions in one process, where other gateways cannot read them.",
}
_REFUSED: Final = 2
_HEALTHY_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


async def supervise(settings: Settings) -> int:
    """Run `settings.processes` gateways until SIGTERM or SIGINT; return the exit code.

    Raises:
        SettingsInvalidError: Several gateways cannot run with these settings.
        ListenRefusedError: A port of theirs is in use.
    """
    _check(settings)
    # Here, so that it is reported once: another program that answers there would look like the first gateway.
    await check_ports(settings)
    gateways = _Gateways(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateways.stop)
    return await gateways.run()


def _check(settings: Settings) -> None:
    if settings.engine in _ALONE:
        raise SettingsInvalidError(
            f"expected an engine that gateways share for processes = {settings.processes}, got {settings.engine}",
            hint=f"{_ALONE[settings.engine]} Set engine to postgres://… or nats://…, or leave processes out.",
        )
    if settings.port == 0:
        raise SettingsInvalidError(
            f"expected a port that {settings.processes} processes can share, got 0", hint="Set port, such as 7777."
        )


class _Gateways:
    """The processes. Each is a run of the same command, out of reach of the terminal's Ctrl-C.

    Args:
        settings: The settings that the command has, and each process has, too.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._listened = False  # once the first one has
        self._refused = asyncio.Event()

    def stop(self) -> None:
        """Ask every process to stop; the second time, without sending its clients elsewhere first."""
        self._stopping = True
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()

    async def run(self) -> int:
        """Keep every process running until the stop; return the exit code."""
        # The first one alone: it migrates the tables, and if it is refused, the others would be refused with it.
        keeping = [asyncio.ensure_future(self._keep(0))]
        listening = asyncio.ensure_future(self._until_it_listens())
        await asyncio.wait([listening, *keeping], return_when=asyncio.FIRST_COMPLETED)
        self._listened = listening.done()
        await cancel_all(listening)
        if not self._stopping and not self._refused.is_set():
            keeping += [asyncio.ensure_future(self._keep(number)) for number in range(1, self._settings.processes)]
        codes = await asyncio.gather(*keeping)
        return _REFUSED if self._refused.is_set() else max(codes)

    async def _keep(self, number: int) -> int:
        """Run one process, and again when it ends; return its last exit code."""
        backoff = Backoff(0.2, 5.0)
        while True:
            began = asyncio.get_running_loop().time()
            process = self._running[number] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "wakeline", *sys.argv[1:]),
                env={**os.environ, NUMBER: str(number)},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            if self._stopping:  # asked while it was being started
                process.terminate()
            code = await process.wait()
            if self._stopping:
                return _ended(code)
            # It has printed why: the settings are wrong, for all of them. Once one has listened, the settings are right, and
            # the refusal is the store's, which may be failing over: the others go on.
            if code == _REFUSED and not self._listened:
                self._refused.set()
                self.stop()
                return code
            if asyncio.get_running_loop().time() - began > _HEALTHY_SECONDS:
                backoff.reset()
            _log.warning("a gateway has ended and is started again", process=number, code=code)
            await backoff.wait()
            if self._stopping:
                return _ended(code)

    async def _until_it_listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(self._settings.host, self._settings.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _ended(code: int) -> int:
    """Return the exit code of a process that was asked to stop."""
    # It may have been asked before it could handle the signal.
    return 0 if code == -signal.SIGTERM else abs(code)
