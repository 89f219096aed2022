"""The public API under the type checkers that our users have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FILES = sorted(str(path) for path in FOLDER.glob("*_api.py"))


@pytest.mark.parametrize(
    "checker",
    [
        ["mypy", "--strict", *FILES],
        ["pyright", "--project", str(FOLDER / "pyrightconfig.json"), "--pythonpath", sys.executable],
    ],
    ids=lambda checker: checker[0],
)
def test_types(checker: list[str]) -> None:
    command = [sys.executable, "-m", *checker]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
