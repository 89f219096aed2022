"""A log that nobody reads, and a stderr that is not there: what cannot be logged is lost, and nothing else is."""

from __future__ import annotations

import asyncio
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
        async with Served(gateway.url) as served, asyncio.timeout(30):
            answers = [await served.call("POST", "/v1/sessions/s/events", json=body) for _ in range(20)]
            failed = [answer["error"]["code"] for status, answer in answers if status != 200]
            assert answers[0][0] == 200
            assert set(failed) == {"storage_failed"}
            assert (await served.call("GET", "/readyz"))[0] == 503
            assert (await served.call("GET", "/v1/sessions/s"))[0] == 200
    finally:
        await gateway.kill()
