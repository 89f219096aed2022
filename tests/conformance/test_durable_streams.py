"""The public conformance tests of Durable Streams, against a gateway of its own: all of them, or it says which not and why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.node import VITEST, node
from tests.gateways import GatewayProcess

PASSED = 250
# What is there but not run: forks, which the gateway refuses (501 not_implemented), and subscriptions, which wake workers, are
# reserved by the protocol, and are off in the suite unless a server says that it has them.
LEFT_OUT = {"Fork - ": 82, "Reserved subscription APIs": 6}
# The suite's own wait for a long-poll to end, and an origin from which it asks what a browser would ask before it calls.
SETTINGS = {"WAKELINE_LONG_POLL_TIMEOUT": "0.5", "WAKELINE_CORS_ORIGINS": "https://example.com"}


async def run_suite(url: str, report: Path) -> list[dict[str, Any]]:
    """Each test with its outcome."""
    async with node(str(VITEST), "run", f"--outputFile={report}", GATEWAY_URL=url) as process:
        output, errors = await asyncio.wait_for(process.communicate(), 200)
    assert report.exists(), (output + errors).decode()[-2000:]
    (file,) = json.loads(report.read_text())["testResults"]
    tests: list[dict[str, Any]] = file["assertionResults"]
    return tests


@pytest.mark.timeout(300)
async def test_every_test_of_the_suite(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "data", environment=SETTINGS)
    await gateway.start()
    try:
        tests = await run_suite(gateway.url, tmp_path / "report.json")
    finally:
        assert await gateway.stop() == 0
    failed = {test["fullName"]: test["failureMessages"] for test in tests if test["status"] == "failed"}
    assert not failed, json.dumps(failed, indent=1)[:8000]
    left_out = [test["fullName"] for test in tests if test["status"] != "passed"]
    assert {name: sum(test.startswith(name) for test in left_out) for name in LEFT_OUT} == LEFT_OUT
    assert len(left_out) == sum(LEFT_OUT.values())
    assert len(tests) - len(left_out) == PASSED
