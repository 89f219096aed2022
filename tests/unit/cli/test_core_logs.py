"""The Temporal SDK's core logs through the gateway's log, and its retries at debug level only."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from wakeline.cli.core_logs import Forwarding


@pytest.mark.parametrize(
    ("target", "level", "logged"),
    [
        ("temporalio_client::retry", logging.WARNING, "debug"),
        ("temporalio_client::retry", logging.ERROR, "error"),
        ("temporalio_sdk_core::worker", logging.WARNING, "warning"),
    ],
)
def test_a_record_of_the_core_is_a_line_with_its_fields(target: str, level: int, logged: str) -> None:
    entry = SimpleNamespace(target=target, message="gRPC call failed", fields={"error": "refused", "event": "x"})
    record = logging.LogRecord("temporalio", level, "", 0, "unused", (), None)
    record.__dict__["temporal_log"] = entry
    with capture_logs() as lines:
        Forwarding().handle(record)
    assert lines == [{"event": "gRPC call failed", "log_level": logged, "target": target, "error": "refused"}]
