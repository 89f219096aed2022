"""The public conformance tests of Durable Streams, against a gateway of its own: all of them, or it says which not and why."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from tests.conformance.node import VITEST, node
from tests.gateways import GatewayProcess

PASSED = 250
# What is there but not run: forks, which the gateway refuses (501 not_implemented), and subscriptions, which wake workers, are
# reserved by the protocol, and are off in the suite unless a server says that it has them.
LEFT_OUT = {"Fork - ": 82, "Reserved subscription APIs": 6}
# The suite's own wait for a long-poll to end, and an origin from which it asks what a browser would ask before it calls.
SETTINGS = {"WAKELINE_LONG_POLL_TIMEOUT": "0.5", "WAKELINE_CORS_ORIGINS": "https://example.com"}


# These sleep for most of a time to live, and a busy machine may sleep for longer than that: they are asked again, alone.
MOST_AGAIN = 12


async def run_suite(url: str, report: Path, *only: str) -> list[dict[str, Any]]:
    """Each test with its outcome, or only some."""
    pattern = [f"--testNamePattern=^({'|'.join(map(re.escape, only))})$"] if only else []
    async with node(str(VITEST), "run", *pattern, f"--outputFile={report}", GATEWAY_URL=url) as process:
        output, errors = await asyncio.wait_for(process.communicate(), 200)
    assert report.exists(), (output + errors).decode()[-2000:]
    (file,) = json.loads(report.read_text())["testResults"]
    tests: list[dict[str, Any]] = file["assertionResults"]
    return tests


def outcomes(tests: list[dict[str, Any]], status: str) -> dict[str, list[str]]:
    """What those of an outcome say, by name."""
    return {test["fullName"]: test["failureMessages"] for test in tests if test["status"] == status}


async def test_every_test_of_the_suite(tmp_path: Path, forks: None) -> None:
    gateway = GatewayProcess(tmp_path / "data", environment=SETTINGS)
    await gateway.start()
    try:
        tests = await run_suite(gateway.url, tmp_path / "report.json")
        failed = outcomes(tests, "failed")
        if 0 < len(failed) <= MOST_AGAIN:
            again = await run_suite(gateway.url, tmp_path / "again.json", *failed)
            failed = {name: why for name, why in failed.items() if name not in outcomes(again, "passed")}
    finally:
        assert await gateway.stop() == 0
    assert not failed, json.dumps(failed, indent=1)[:8000]
    left_out = [test["fullName"] for test in tests if test["status"] not in ("passed", "failed")]
    assert {name: sum(test.startswith(name) for test in left_out) for name in LEFT_OUT} == LEFT_OUT
    assert len(left_out) == sum(LEFT_OUT.values())
    assert len(tests) - len(left_out) == PASSED
