"""The log of a server process: one JSON object a line, whoever logs."""

from __future__ import annotations

import json
import subprocess
import sys

_LOGS = """
import logging

import structlog

from wakeline.cli.logs import configure

configure("info")
structlog.get_logger().info("ours", number=1)
logging.getLogger("asyncio").warning("of %s", "a library")
logging.getLogger("asyncio").info("is not shown")
try:
    raise OSError("no such host")
except OSError:
    logging.getLogger("aiohttp.server").exception("failed")
"""


def test_the_lines_of_libraries_are_json_as_ours_are() -> None:
    run = subprocess.run([sys.executable, "-c", _LOGS], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert all(line.pop("timestamp").endswith("Z") for line in lines)
    assert lines[:2] == [
        {"event": "ours", "level": "info", "number": 1},
        {"event": "of a library", "level": "warning", "logger": "asyncio"},
    ]
    assert "OSError: no such host" in lines[2].pop("exception")
    assert lines[2:] == [{"event": "failed", "level": "error", "logger": "aiohttp.server"}]
