"""What the suite does where tests run in several processes: each test is run once, whatever becomes of its process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

_CONFTEST = """
import os

import pytest

pytest_plugins = ["tests.leftovers", "tests.processes"]

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    from tests import leftovers, processes

    return processes.run(session, lambda item: item.nodeid.partition("::")[0], lambda: leftovers.forked(session.config))

@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    yield os.getpid()
    print("the server is ended")
    with open("ended", "a") as file:
        file.write(f"{os.getpid()} {folder}\\n")
"""

_SOME = """
import os, time

import pytest

@pytest.mark.parametrize("number", range(20))
def test_some(server, number, capsys):
    print("said by", number)
    assert capsys.readouterr().out == f"said by {number}\\n"
    assert server == os.getpid()
    time.sleep(0.05)
    with open("ran", "a") as file:
        file.write(f"{__name__}-{number} {os.getpid()}\\n")
"""

_CRASHES = """
import os, signal

def test_before():
    pass

def test_crashes():
    os.kill(os.getpid(), signal.SIGKILL)

def test_after():
    pass
"""

_LEAVES = """
import os

def test_leaves():
    os._exit(0)

def test_after():
    pass
"""

_TALKS = """
import os, time

import pytest

@pytest.mark.parametrize("number", range(3))
def test_talks(number):
    open("began", "a").write(f"{os.getpid()}\\n")
    while not os.path.exists("killed"):
        time.sleep(0.02)
    print("." * 1_000_000)
    assert False
"""

_BREAKS = """
import pytest

@pytest.fixture(scope="session")
def broken():
    yield
    raise OSError("the server cannot be ended")

def test_passes(broken):
    pass
"""

_FAILS = """
def test_fails():
    print("what it printed")
    assert 1 == 2
"""

_LONG = """
import os, time

import pytest

@pytest.fixture
def server():
    yield
    with open("ended", "a") as file:
        file.write(f"{os.getpid()}\\n")

def test_takes_long(server):
    open("began", "a").write(f"{os.getpid()}\\n")
    time.sleep(600)
"""


async def start(folder: Path, tests: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    (folder / "conftest.py").write_text(_CONFTEST)
    for name, text in tests.items():
        (folder / f"test_{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--processes", "3", "-rA", *arguments, "."),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def until_two_have(began: Path) -> None:
    """Return when two tests have written that they began."""
    async with asyncio.timeout(60):
        while not began.exists() or len(began.read_text().split()) < 2:
            await asyncio.sleep(0.02)


async def report_of(folder: Path, tests: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    run = await start(folder, tests, *arguments)
    out, _ = await asyncio.wait_for(run.communicate(), 200)
    return run.returncode, out.decode()


async def test_each_test_is_run_once_and_those_of_a_file_by_one_process(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, dict.fromkeys("abcdef", _SOME))
    assert code == 0, report
    assert "120 passed" in report, report
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted(test for test, _ in ran) == sorted(f"test_{name}-{n}" for name in "abcdef" for n in range(20))
    processes = {process for _, process in ran}
    assert 1 < len(processes) <= 3
    assert len({(test.partition("-")[0], process) for test, process in ran}) == 6
    ended = dict(line.split() for line in (tmp_path / "ended").read_text().splitlines())
    assert ended.keys() == processes
    assert len(set(ended.values())) == len(processes)
    assert report.count("the server is ended") == len(processes)
    assert report.count("test session starts") == 1


async def test_a_failure_is_printed_with_what_the_test_printed(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, {"some": _SOME, "fails": _FAILS})
    assert code == 1, report
    assert "1 failed, 20 passed" in report, report
    assert "assert 1 == 2" in report
    assert report.count("what it printed\n") == 1
    code, report = await report_of(tmp_path, {}, "--capture", "no")
    assert report.count("what it printed\n") == 1, report


async def test_a_test_that_ends_its_process_fails_and_those_after_it_are_run(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, {"crashes": _CRASHES, "some": _SOME})
    assert code == 1, report
    assert "1 failed, 22 passed" in report, report
    assert "the process that runs the test to go on, it ended with -9" in report


async def test_a_test_that_ends_its_process_in_order_fails_too(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, {"leaves": _LEAVES, "some": _SOME})
    assert code == 1, report
    assert "1 failed, 21 passed" in report, report
    assert "the process that runs the test to go on, it ended with 0" in report


async def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    run = await start(tmp_path, {"a": _TALKS, "b": _TALKS})
    await until_two_have(tmp_path / "began")
    os.kill(run.pid, signal.SIGKILL)
    (tmp_path / "killed").touch()
    try:
        await asyncio.wait_for(run.communicate(), 60)  # all of them have its output
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


async def test_a_fixture_that_cannot_be_ended_fails_the_run(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, {"breaks": _BREAKS, "some": _SOME})
    assert code == 1, report
    assert "1 failed, 21 passed" in report, report
    assert "OSError: the server cannot be ended" in report


async def test_the_first_failure_ends_the_run_if_that_is_wanted(tmp_path: Path) -> None:
    code, report = await report_of(tmp_path, {"fails": _FAILS, "long": _LONG}, "--exitfirst")
    assert code == 1, report
    assert "stopping after 1 failures" in report, report


@pytest.mark.parametrize("whom", ["all", "one"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_stopped_ends_its_fixtures(tmp_path: Path, whom: str, how: signal.Signals) -> None:
    """Ctrl-C in a terminal reaches all processes; a supervisor may signal that one which it has started."""
    run = await start(tmp_path, {"a": _LONG, "b": _LONG})
    began, ended = tmp_path / "began", tmp_path / "ended"
    await until_two_have(began)
    os.kill(-run.pid if whom == "all" else run.pid, how)
    out, _ = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == 2, out.decode()
    assert sorted(ended.read_text().split()) == sorted(began.read_text().split())
