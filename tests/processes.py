"""Runs the tests in several processes, which are forked when everything is imported and all tests are collected.

    python -m pytest --processes 8

Processes that import and collect by themselves, as those of pytest-xdist do, take eight seconds of CPU each before their first
test. Forks take none, and share the memory.

What one process runs, a file or a single test, is a share. Each process takes the next one when it has run its last.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any, Final

import pytest

_NUMBER: Final = struct.Struct("i")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=0, metavar="N", help="run the tests in N processes")


def run(session: pytest.Session, share_of: Callable[[pytest.Item], str], forked: Callable[[], None]) -> bool | None:
    """Run the session's tests in several processes; return None if that is not wanted.

    Args:
        session: The session, whose tests were collected.
        share_of: Returns the share of a test. Shares are taken in the order of their first tests.
        forked: Called in each process at its start.
    """
    count, options = session.config.getoption("processes"), session.config.option
    if not count or options.collectonly or (session.testsfailed and not options.continue_on_collection_errors):
        return None
    shares: dict[str, list[pytest.Item]] = {}
    for item in session.items:
        shares.setdefault(share_of(item), []).append(item)
    with tempfile.TemporaryFile(buffering=0) as numbers:
        # Forks share the position in a file, so that a read takes the next share for one of them alone.
        numbers.write(b"".join(map(_NUMBER.pack, range(len(shares)))))
        numbers.seek(0)
        _Run(session, list(shares.values()), numbers, forked).until_over(count)
    return True


class _Run:
    """The run, in the process that was started by a person."""

    def __init__(
        self, session: pytest.Session, shares: list[list[pytest.Item]], numbers: IO[bytes], forked: Callable[[], None]
    ) -> None:
        self._session = session
        self._shares = shares
        self._numbers = numbers
        self._forked = forked
        self._processes: dict[Connection, _Process] = {}
        self._started = 0
        reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
        reporter.showfspath = False  # tests of several files are reported by turns
        # pytest names its factory of temporary folders in fixtures only, and here there are none.
        self._folders: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
        self._folder = self._folders.getbasetemp()  # of all processes

    def until_over(self, count: int) -> None:
        try:
            for _ in range(count):
                self._start([])
            while self._processes:
                for reports in wait(list(self._processes)):
                    assert isinstance(reports, Connection)
                    self._receive(reports)
                    if self._session.shouldfail:
                        raise self._session.Failed(self._session.shouldfail)
                    if self._session.shouldstop:
                        raise self._session.Interrupted(self._session.shouldstop)
        finally:
            for process in self._processes.values():
                process.interrupt()
            for process in self._processes.values():
                process.wait()

    def _start(self, first: Iterable[pytest.Item]) -> None:
        """Start a process, which runs these tests before it takes a share."""
        self._started += 1
        reports, theirs = Pipe(duplex=False)
        sys.stdout.flush()  # or both processes would print what is in its buffer
        # Not by `multiprocessing`, of whose processes some code under test behaves otherwise.
        process = os.fork()
        if process == 0:
            code = 1
            try:
                reports.close()  # so that a process whose reports nobody reads any more ends
                self._work(self._started, list(first), theirs)
                code = 0
            except KeyboardInterrupt:
                pass
            except BaseException:  # noqa: BLE001 - the process ends here
                traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()  # which `os._exit` does not
                finally:
                    os._exit(code)
        theirs.close()
        self._processes[reports] = _Process(process, deque(first))

    def _receive(self, reports: Connection) -> None:
        process = self._processes[reports]
        hook, config = self._session.config.hook, self._session.config
        try:
            message = reports.recv()
        except EOFError:
            code = process.wait()
            del self._processes[reports]
            reports.close()
            if process.left:
                self._replace(process, code)
            elif code != 0:
                self._fail("the end of a process of tests", f"expected it to end with 0, it ended with {code}")
            return
        match message:
            case int(share):
                process.left += self._shares[share]
            case dict(data):
                hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=data))
            case str(text):
                self._fail("the end of a process of tests", text)
            case None:
                item = process.left.popleft()
                hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _replace(self, process: _Process, code: int) -> None:
        """Report the test whose process ended with it, and have another process run those that it has left."""
        item = process.left.popleft()
        self._fail(item.nodeid, f"expected the process that runs the test to go on, it ended with {code}")
        self._start(process.left)

    def _fail(self, what: str, text: str) -> None:
        report = pytest.TestReport(what, (what, None, what), {}, "failed", text, "call")
        self._session.config.hook.pytest_runtest_logreport(report=report)

    def _work(self, number: int, first: list[pytest.Item], reports: Connection) -> None:
        """Run tests, in a process of its own."""
        for theirs in self._processes:
            theirs.close()
        session, plugins = self._session, self._session.config.pluginmanager
        random.seed()
        capturing: Any = plugins.getplugin("capturemanager")
        capturing.stop_global_capturing()  # its files are those of the other processes, too
        capturing.start_global_capturing()
        session.config.get_terminal_writer()._file = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lasts
        self._folders._basetemp = self._folder / f"process-{number}"
        self._folders._basetemp.mkdir(mode=0o700)
        self._forked()
        plugins.register(_Reports(session.config, reports))
        try:
            for share in self._taken(first, reports):
                for item, following in zip(share, [*share[1:], session], strict=True):
                    # By what follows, pytest decides which fixtures end: with a share all but those of the session.
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C, which all processes receive, was noticed
            try:
                session._setupstate.teardown_exact(None)
            except Exception:  # noqa: BLE001 - it is printed by the other process
                reports.send(traceback.format_exc())

    def _taken(self, first: list[pytest.Item], reports: Connection) -> Iterator[list[pytest.Item]]:
        """Take one share after the other."""
        if first:
            yield first
        while taken := os.read(self._numbers.fileno(), _NUMBER.size):
            (number,) = _NUMBER.unpack(taken)
            reports.send(number)
            yield self._shares[number]


class _Process:
    """A process of tests.

    Attributes:
        left: The tests that it has taken and not run.
    """

    def __init__(self, process: int, left: deque[pytest.Item]) -> None:
        self._process = process
        self.left = left

    def interrupt(self) -> None:
        os.kill(self._process, signal.SIGINT)

    def wait(self) -> int:
        _, status = os.waitpid(self._process, 0)
        return os.waitstatus_to_exitcode(status)


class _Reports:
    """Sends the reports of a process to the one that prints them."""

    def __init__(self, config: pytest.Config, to: Connection) -> None:
        self._config = config
        self._to = to

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._to.send(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_runtest_logfinish(self) -> None:
        self._to.send(None)
