"""No test leaves a process or a background task running: what outlives its test is ended, and the test fails.

Each process that a test starts inherits a mark in its environment, so that a process whose parent has ended is found, too.
Processes of fixtures of a wider scope (a Temporal server, a browser) may stay until the last test has ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wakeline.background import _known, _Supervised

_MARK = "WAKELINE_TESTS"
_RUN = "the whole run"
# A process that was told to end may take a moment, on a busy machine a long one.
_GRACE = 60.0
_PROC = Path("/proc")


class Processes:
    """The processes that descend from this one, or are marked.

    Args:
        mark: The beginning of the value that `_MARK` has in the environment of our processes.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._parents: dict[int, int] = {}
        self._ours: set[int] = {os.getpid()}

    def running(self) -> set[int]:
        """Their ids, this one's apart."""
        there = {int(name) for name in os.listdir(_PROC) if name.isdigit()}
        self._ours &= there
        new = there - self._parents.keys()
        self._parents = {pid: parent for pid, parent in self._parents.items() if pid in there}
        for pid in sorted(new):
            self._note(pid)
        return {pid for pid in self._ours if pid != os.getpid() and _is_running(pid)}

    def below(self, roots: Iterable[int]) -> set[int]:
        """These processes and all that descend from them."""
        found = set(roots)
        while more := {pid for pid, parent in self._parents.items() if parent in found} - found:
            found |= more
        return found

    def _note(self, pid: int) -> None:
        with suppress(OSError):
            self._parents[pid] = int(_stat(pid)[1])
            if self._parents[pid] in self._ours or self._mark in _environment(pid):
                self._ours.add(pid)


def _stat(pid: int) -> list[str]:
    """State, parent and what follows; the program's name before them may hold anything."""
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _environment(pid: int) -> bytes:
    """Its environment; a process has none for a moment while it becomes another program."""
    for _ in range(100):
        found = (_PROC / str(pid) / "environ").read_bytes()
        state, parent = _stat(pid)[:2]
        if found or state in "ZX" or parent in ("0", "2"):  # those of the kernel never have one
            return found
        time.sleep(0.001)
    return b""


def _is_running(pid: int) -> bool:
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _command(pid: int) -> str:
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "?"


def _background_tasks() -> set[asyncio.Task[Any]]:
    """The gateways' supervised tasks, in event loops that will run again."""
    # Every test asks, few have left one: thousands of tasks that have ended may not have been collected yet.
    if not any(_is_work_of_a_gateway(known) for known in tuple(_known)):
        return set()
    # `asyncio.all_tasks` returns those of one loop, and tests have several.
    tasks: Iterable[asyncio.Task[Any]] = list(asyncio.tasks._all_tasks)  # type: ignore[attr-defined]
    return {task for task in tasks if not task.done() and _is_of_a_gateway(task) and not task.get_loop().is_closed()}


def _is_of_a_gateway(task: asyncio.Task[Any]) -> bool:
    # A publisher keeps its connection for a while, for the next publisher.
    frame = getattr(task.get_coro(), "cr_frame", None)
    known = frame.f_locals.get("self") if frame is not None else None
    return isinstance(known, _Supervised) and _is_work_of_a_gateway(known)


def _is_work_of_a_gateway(known: _Supervised) -> bool:
    return known._work.__module__.startswith("wakeline.gateway.")


class Leftovers:
    """Looks after each test, and after the last one, whether processes or background tasks were left.

    Args:
        run: The id of the whole run, which all processes of tests share.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        os.environ[_MARK] = mark = f"{run}:{os.getpid()};"
        self._processes = Processes(mark)
        self._allowed: set[int] = self._processes.running()
        self._lasting: set[asyncio.Task[Any]] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        before, tasks = self._processes.running(), _background_tasks()
        result = yield
        self._allowed |= self._processes.running() - before
        self._lasting |= _background_tasks() - tasks
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> Generator[None, None, None]:
        try:
            yield
        finally:
            left = self._end(set() if nextitem is None else self._allowed)
            tasks = _background_tasks() - self._lasting
            self._lasting |= tasks  # one test fails because of them, not all that follow
        if left:
            pytest.fail(f"expected a test to end every process that it starts, these were left:\n{left}", pytrace=False)
        if tasks:
            names = "\n".join(sorted(f"  {task.get_name()}" for task in tasks))
            pytest.fail(f"expected a test to end its background tasks, these were left:\n{names}", pytrace=False)

    def _end(self, allowed: set[int]) -> str:
        """Kill every process that is not allowed to stay; what they were."""
        until = time.monotonic() + _GRACE
        while left := self._left(allowed):
            if time.monotonic() > until:
                lines = [f"  {pid} {_command(pid)}" for pid in sorted(left)]
                for pid in self._processes.below(left):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return "\n".join(lines)
            time.sleep(0.02)
        return ""

    def _left(self, allowed: set[int]) -> set[int]:
        running = self._processes.running()
        commands = {pid: _command(pid) for pid in running}
        helpers = {pid for pid in running if "multiprocessing.resource_tracker" in commands[pid]}
        # What this one forks was started by a test, although its parent may stay.
        forking = {pid for pid in running & allowed if "tests.commands" in commands[pid]}
        return running - self._processes.below((allowed - forking) | helpers) - forking


class Run(Leftovers):
    """The same, in the process in which pytest was started: at the end nothing of the whole run is left."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        try:
            yield
        finally:
            self._processes = Processes(f"{self._run}:")
            if left := self._end(set()):
                print(f"\nexpected no process at the end of the run, these were left:\n{left}")
                session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    # What stops a run that takes too long sends this signal; the end of the run is then looked after as by Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell starts background jobs with Ctrl-C ignored, and the programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Run(uuid.uuid4().hex), _RUN)


def forked(config: pytest.Config) -> None:
    """Look after the tests of a process that was forked to run some of them."""
    config.pluginmanager.unregister(name=_RUN)
    config.pluginmanager.register(Leftovers(os.environ[_MARK].partition(":")[0]))
