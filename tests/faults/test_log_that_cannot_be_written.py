"""A log that nobody reads, and a stderr that is not there: what cannot be logged is lost, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.gateways import GatewayProcess
from tests.support import Served


@pytest.mark.parametrize("stderr", ["2>&1 1>/dev/null | true", "1>/dev/null 2>&-"])
async def test_a_gateway_whose_log_cannot_be_written_fails_only_what_must_fail(tmp_path: Path, stderr: str) -> None:
    # No file may have more than 8 MiB, so that appends fail after a while, and each of these is to be logged.
    prefix = ["sh", "-c", f'ulimit -f 16384; "$@" {stderr}', "sh"]
    gateway = GatewayProcess(tmp_path / "data", prefix=prefix, environment={"WAKELINE_LOG_LEVEL": "debug"})
    await gateway.start()
    try:
        body = {"events": [{"topic": "t", "data": "x" * 900_000}]}
        async with Served(gateway.url) as served, asyncio.timeout(60):
            answers = [await served.call("POST", "/v1/sessions/s/events", json=body) for _ in range(20)]
            failed = [answer["error"]["code"] for status, answer in answers if status != 200]
            assert answers[0][0] == 200
            assert set(failed) == {"storage_failed"}
            assert (await served.call("GET", "/readyz"))[0] == 503
            assert (await served.call("GET", "/v1/sessions/s"))[0] == 200
    finally:
        await gateway.kill()


class _Unread:
    """A pipe whose reader is alive and does not read."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fill(self) -> None:
        """Fill it, through a descriptor of its own: a gateway's stays a blocking one."""
        filling = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    os.write(filling, b"x" * size)
        os.close(filling)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def unread() -> Iterator[_Unread]:
    pipe = _Unread()
    yield pipe
    pipe.close()


def _logging_to(pipe: _Unread, data: Path, *arguments: str) -> GatewayProcess:
    prefix = ["sh", "-c", f'exec "$@" 2>/proc/{os.getpid()}/fd/{pipe.writer}', "sh"]
    return GatewayProcess(data, *arguments, prefix=prefix, environment={"WAKELINE_LOG_LEVEL": "debug"})


@pytest.mark.skipif(sys.platform != "linux", reason="opens a pipe anew by /proc")
async def test_a_gateway_whose_log_nobody_reads_starts_serves_and_ends(tmp_path: Path, unread: _Unread) -> None:
    unread.fill()
    gateway = _logging_to(unread, tmp_path / "data")
    await gateway.start()
    try:
        async with Served(gateway.url) as served, asyncio.timeout(60):
            body = {"events": [{"topic": "t", "data": 1}]}
            assert (await served.call("POST", "/v1/sessions/s/events", json=body))[0] == 200
            assert (await served.call("GET", "/readyz"))[0] == 200
        async with asyncio.timeout(60):
            assert await gateway.stop() == 0
    finally:
        await gateway.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="opens a pipe anew by /proc")
async def test_a_gateway_whose_log_nobody_reads_ends_when_its_files_are_gone(tmp_path: Path, unread: _Unread) -> None:
    gateway = _logging_to(unread, tmp_path / "data")
    await gateway.start()
    try:
        unread.fill()
        (tmp_path / "data" / "wakeline.lock").unlink()
        async with asyncio.timeout(60):
            assert gateway.process is not None
            assert await gateway.process.wait() == 2
    finally:
        await gateway.kill()


def test_lines_keep_their_order_and_the_next_one_tells_how_many_were_dropped(unread: _Unread) -> None:
    code = """
import logging, sys
from wakeline.cli.logs import configure
import structlog
configure("info")
sys.stdout.write("configured\\n"), sys.stdout.flush()
sys.stdin.readline()
for number in range(20_000):
    structlog.get_logger().info("line", number=number)
sys.stdout.write("logged\\n"), sys.stdout.flush()
sys.stdin.readline()
structlog.get_logger().info("last")
sys.exit("the end")
"""
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, stderr=unread.writer, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        process.stdin.write("log\n")
        process.stdin.flush()
        assert process.stdout.readline() == "logged\n"  # with a full pipe
        written = b""
        os.set_blocking(unread.reader, False)
        asked = False
        while process.poll() is None or b"the end" not in written:
            with suppress(BlockingIOError):
                written += os.read(unread.reader, 1 << 20)
            if not asked and b'"number": 4000' in written:
                asked = True
                process.stdin.write("end\n")
                process.stdin.flush()
    lines = written.decode().splitlines()
    assert lines[-1] == "the end"
    told = [json.loads(line) for line in lines[:-1]]
    numbers = [line["number"] for line in told if "number" in line]
    dropped = [line["dropped"] for line in told if "dropped" in line]
    assert numbers == sorted(numbers)
    assert sum(dropped) == 20_000 - len(numbers) > 0
    assert told[-1]["event"] == "last"
