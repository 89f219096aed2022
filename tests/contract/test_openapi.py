"""`docs/reference/openapi.yaml` names every route, and every answer is as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reference" / "openapi.yaml"
ROUTES = ROOT / "src" / "wakeline" / "gateway" / "http"
METHODS = ("get", "post", "put", "delete")


@pytest.mark.timeout(900)
def test_every_answer_is_as_the_document_says() -> None:
    # A run of its own: to collect these tests takes seconds, in each process of a run that has them.
    cases = Path(__file__).with_name("openapi_answers.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_document_names_every_route() -> None:
    documented = {
        (method, path)
        for path, operations in yaml.load(DOCUMENT.read_bytes(), Loader=yaml.CSafeLoader)["paths"].items()
        for method in operations
        if method in METHODS
    }
    served = {
        (method.lower(), path)
        for file in sorted(ROUTES.glob("*.py"))
        for method, path in re.findall(r'@route\(\s*"([A-Z]+)",\s*"([^"]+)"', file.read_text())
    }
    # Durable Streams has a document of its own.
    assert documented == {route for route in served if not route[1].startswith("/v1/stream/")}
