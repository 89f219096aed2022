"""A reader may copy what README, guides and concepts show: each block runs, from an installed wheel, in an empty directory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import nodejs
from tests.docs.markdown import ROOT
from tests.docs.pages import PAGES, RUN, SHOWN, blocks, indented, runnable

SECONDS = 400
FACES = ROOT / "tests" / "faces"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Python is for somebody who has installed the wheel; what Wakeline needs is that of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    here = Path(sys.executable).parent

    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (wheel,) = folder.glob("*.whl")
    run(here / "uv", "venv", "--offline", "--no-project", "--python", sys.executable, folder / "venv")
    python = folder / "venv/bin/python"
    run(here / "uv", "pip", "install", "--offline", "--no-deps", "--compile-bytecode", "--python", python, wheel)
    (site,) = folder.glob("venv/lib/python*/site-packages")
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


async def outcome(*command: str | Path, cwd: Path = ROOT) -> tuple[int | None, str]:
    running = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=PIPE, stderr=STDOUT)
    printed, _ = await asyncio.wait_for(running.communicate(), SECONDS)
    return running.returncode, printed.decode()


@pytest.fixture(scope="module")
def npm_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `node_modules` of somebody who has installed the npm packages, and those of chat frontends."""
    folder = tmp_path_factory.mktemp("npm") / "node_modules"
    folder.mkdir()
    nodejs.install(FACES)
    for package in (FACES / "node_modules").glob("[!.]*"):
        (folder / package.name).symlink_to(package)
    client = folder / "@wakeline" / "client"
    shutil.copytree(nodejs.client(ROOT / "web"), client / "dist")
    shutil.copy(ROOT / "web" / "client" / "package.json", client)
    return folder


@pytest.fixture(scope="module")
async def stage(programs: Path, npm_packages: Path) -> AsyncIterator[Process]:
    """The process whose forks play pages."""
    playing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.docs.scene", programs),
        cwd=ROOT,
        env={**os.environ, "NPM_PACKAGES": str(npm_packages)},
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
        limit=1 << 24,
    )
    yield playing
    with suppress(ProcessLookupError):
        os.killpg(playing.pid, signal.SIGKILL)
    await playing.wait()


@pytest.mark.parametrize("page", runnable())
async def test_every_block_of_a_page_runs(page: str, stage: Process, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert stage.stdin is not None
    assert stage.stdout is not None
    stage.stdin.write(json.dumps([page, str(tmp_path / "empty")]).encode() + b"\n")
    wrong = await stage.stdout.readline()  # it waits for a page for less than a test may take
    assert wrong, "expected an answer, the process that plays pages has ended"
    assert json.loads(wrong) == ""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_names_its_kind(page: str) -> None:
    unknown = [f"{block.place} {block.kind!r}" for block in blocks(page) if block.kind not in RUN | SHOWN]
    assert not unknown, f"expected one of {sorted(RUN | SHOWN)} after ```"
    assert not [f"{page}:{line}" for line in indented(page)], "expected code between ```, not indented"


async def test_an_example_runs_beside_the_installed_wheel(programs: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    code, printed = await outcome(programs / "python", "-m", "examples.openai", cwd=tmp_path)
    assert (code, "openai as expected" in printed) == (0, True), printed


def test_no_example_imports_the_tests() -> None:
    imports = re.compile(r"^\s*(?:from|import) tests\b", re.M)
    assert [str(path) for path in (ROOT / "examples").rglob("*.py") if imports.search(path.read_text())] == []
