"""What the suite does where a test leaves a process: it ends the process, and fails the test."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.docs.markdown import ROOT

_TESTS = """
import subprocess, sys

import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

@pytest.fixture(scope="session")
def server():
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()

def test_leaves_a_child(server):
    subprocess.Popen(SLEEP)

def test_leaves_an_orphan():
    start = f"import subprocess; print(subprocess.Popen({SLEEP!r}, start_new_session=True, stdout=-3).pid)"
    subprocess.run([sys.executable, "-c", start], check=True)

def test_fails():
    subprocess.Popen(SLEEP)
    assert False

def test_leaves_nothing(server):
    assert server.poll() is None
"""

_FORKS = """
import asyncio, os

import pytest
from tests import commands

@pytest.fixture(scope="session")
def forks():
    with commands.forking():
        yield

def test_leaves_a_fork(forks):
    serve = ("serve", "--no-auth", "--port", "0", "--data", "data")
    with open(os.devnull, "wb") as nothing:
        asyncio.run(commands.start(*serve, output=nothing, environment=dict(os.environ)))

def test_leaves_nothing(forks):
    pass
"""

_LONG = """
import subprocess, sys, time

def test_takes_long():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    print("started", process.pid, flush=True)
    time.sleep(600)
"""


async def start(folder: Path, tests: str, *arguments: str) -> asyncio.subprocess.Process:
    (folder / "test_some.py").write_text(tests)
    (folder / "conftest.py").write_text("from tests import leftovers\nleftovers._GRACE = 0.1")
    # The plugins of the whole suite take seconds to import.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "tests.leftovers", "-p", "no:cacheprovider", "-q", *arguments, "."),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_process_that_a_test_leaves_is_ended_and_fails_it(tmp_path: Path) -> None:
    run = await start(tmp_path, _TESTS)
    report = (await asyncio.wait_for(run.communicate(), 200))[0].decode()
    assert "1 failed, 3 passed, 3 errors" in report, report
    # Where the variable CI is set, pytest repeats a whole message in its summary.
    assert len(set(re.findall(r"these were left:\n\s+(\d+) .*time.sleep\(600\)", report))) == 3
    assert set(re.findall(r"ERROR .*::(\w+)", report)) == {"test_leaves_a_child", "test_leaves_an_orphan", "test_fails"}


async def test_a_fork_is_of_the_test_although_the_process_that_forks_may_stay(tmp_path: Path) -> None:
    run = await start(tmp_path, _FORKS)
    report = (await asyncio.wait_for(run.communicate(), 200))[0].decode()
    assert "2 passed, 1 error" in report, report
    assert set(re.findall(r"ERROR .*::(\w+)", report)) == {"test_leaves_a_fork"}


async def test_a_run_that_is_terminated_leaves_no_process(tmp_path: Path) -> None:
    run = await start(tmp_path, _LONG, "--capture=no")
    assert run.stdout is not None
    async with asyncio.timeout(200):
        while not (found := re.search(rb"started (\d+)", await run.stdout.readline())):
            pass
        run.terminate()
        await run.communicate()
    # The system takes an ended process from its list a moment later, whose parent has ended before it.
    async with asyncio.timeout(60):
        while Path(f"/proc/{int(found[1])}").exists():
            await asyncio.sleep(0.02)
