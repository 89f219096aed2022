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


async def test_a_process_that_a_test_leaves_is_ended_and_fails_it(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(_TESTS)
    (tmp_path / "conftest.py").write_text("from tests import leftovers\nleftovers._GRACE = 0.1")
    pytest = [sys.executable, "-m", "pytest", "-p", "tests.leftovers", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    run = await asyncio.create_subprocess_exec(
        *pytest, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE
    )
    report = (await asyncio.wait_for(run.communicate(), 60))[0].decode()
    assert "1 failed, 3 passed, 3 errors" in report, report
    assert len(re.findall(r"these were left:\n\s+\d+ .*time.sleep\(600\)", report)) == 3
    assert set(re.findall(r"ERROR .*::(\w+)", report)) == {"test_leaves_a_child", "test_leaves_an_orphan", "test_fails"}
