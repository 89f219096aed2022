"""`wakeline …` as processes that are forked from one that has imported everything: a start of Python costs a second.

    with forking():
        code, out, err = await wakeline("tail", "order-1")
        gateway = await start("serve", output=log)

A fork is a process of its own, with its own files, environment and exit code. Outside of `forking`, and for tests of the
start itself, Python is started as a person starts it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, Protocol

# Not the demo: its worker imports pydantic, by which cyclopts would then check every option once more, in each fork.
_IMPORTED = [
    "rich.traceback",
    "wakeline.gateway.app",
    *(
        f"wakeline.cli.{name}"
        for name in (
            "serve",
            "dev",
            "tail",
            "sessions",
            "token",
            "publish",
            "input",
            "restored",
            "drain",
            "notifications",
            "admin",
        )
    ),
    # An engine is imported by the gateway that is told to use it.
    "wakeline.gateway.log.engines.postgres",
    "wakeline.gateway.log.engines.nats",
    "tests.stores",
]
_MOST_BYTES = 100_000
_forks: socket.socket | None = None


class Running(Protocol):
    """A process, as asyncio has it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int) -> None: ...


@contextmanager
def forking() -> Iterator[None]:
    """Fork each command, for as long as the block lasts."""
    global _forks
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        _forks = ours
        try:
            yield
        finally:
            _forks = None
            process.kill()
            process.wait()


def are_forked() -> bool:
    """Whether `start` forks."""
    return _forks is not None


async def start(*arguments: str, output: IO[bytes], environment: Mapping[str, str]) -> Running:
    """Fork a command in a session of its own; both its outputs go to a file."""
    assert _forks is not None
    read, write = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        _, fork = await asyncio.get_running_loop().connect_read_pipe(_Fork, os.fdopen(read, "rb", buffering=0))
        files = [nothing, output.fileno(), output.fileno(), write]
        _fork(_forks, arguments, environment, files, own_session=True)
    finally:
        os.close(nothing)
        os.close(write)
    try:
        await asyncio.shield(fork.started)
    except asyncio.CancelledError:
        await fork.started
        fork.send_signal(signal.SIGKILL)
        raise
    return fork


class _Fork(asyncio.Protocol):
    """A forked command, by what its watcher writes: its id, then its exit code."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._written = b""
        self.pid = 0

    def data_received(self, data: bytes) -> None:
        self._written += data
        pid, _, code = self._written.partition(b"\n")
        if not self.started.done():
            self.pid = int(pid)
            self.started.set_result(None)
        if code and not self._ended.done():
            self._ended.set_result(int(code))

    def connection_lost(self, _: Exception | None) -> None:
        if not self.started.done():
            self.started.set_exception(EOFError("expected a fork, the process that forks has ended"))
        if not self._ended.done():
            self._ended.set_result(-signal.SIGKILL)
        self._closed.set_result(None)

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        await asyncio.shield(self._closed)  # the pipe too: it would be left open if the loop ended now
        return self._ended.result()

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal)


async def wakeline(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str, str]:
    """Run a command to its end; returns its exit code and what it printed on stdout and stderr."""
    variables = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    if _forks is None:
        return await _started(arguments, stdin, variables)
    return await asyncio.wait_for(asyncio.to_thread(_forked, _forks, arguments, stdin, variables), 60)


async def _started(arguments: tuple[str, ...], stdin: bytes, environment: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wakeline", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def _forked(
    forks: socket.socket, arguments: tuple[str, ...], stdin: bytes, environment: dict[str, str]
) -> tuple[int, str, str]:
    pairs = [os.pipe() for _ in range(4)]
    theirs = [pairs[0][0], *(write for _, write in pairs[1:])]
    try:
        _fork(forks, arguments, environment, theirs)
    finally:
        for file in theirs:
            os.close(file)
    with open(pairs[0][1], "wb") as given, open(pairs[3][0], "rb") as status:
        given.write(stdin)
        given.close()
        # Neither is more than a pipe holds: the commands of tests print little.
        with open(pairs[1][0], "rb") as out, open(pairs[2][0], "rb") as err:
            printed, complained = out.read(), err.read()
        return int(status.read().split()[1]), printed.decode(), complained.decode()


def _fork(
    forks: socket.socket,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    files: list[int],
    *,
    own_session: bool = False,
) -> None:
    """Ask for a fork. Files: its standard ones, and one to which its id and its exit code are written."""
    asked = {
        "arguments": arguments,
        "environment": dict(environment),
        "directory": os.getcwd(),
        "own_session": own_session,
    }
    request = json.dumps(asked).encode()
    assert len(request) < _MOST_BYTES
    socket.send_fds(forks, [request], files)


def _serve(requests: socket.socket) -> None:
    """Fork what is asked for; returns in the fork, with its files and environment."""
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(requests, _MOST_BYTES, 4)
        if not message:
            sys.exit()
        if os.fork() == 0:
            requests.close()
            return _watch(json.loads(message), files)
        for file in files:
            os.close(file)


def _watch(asked: dict[str, object], files: list[int]) -> None:
    """Fork the command, and write its id and its exit code; returns in the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command = os.fork()
    if command != 0:
        for file in files[:3]:
            os.close(file)
        os.write(files[3], b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]))
        os._exit(0)
    if asked["own_session"]:
        os.setsid()
    os.write(files[3], b"%d\n" % os.getpid())
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    arguments, environment, directory = asked["arguments"], asked["environment"], asked["directory"]
    assert isinstance(arguments, list)
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(directory))
    sys.argv = ["wakeline", *arguments]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from tests.stores import VARIABLE, use
    from wakeline.cli.main import main

    if VARIABLE in os.environ:
        use(os.environ[VARIABLE])

    main()
