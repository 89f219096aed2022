"""What `$run.closed` tells of a failure and of a result."""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter


async def failure(converter: DataConverter | None, failed: Failure) -> dict[str, Any]:
    """A failure: its message, and the type and message of what it failed of."""
    told: dict[str, Any] = {"message": failed.message}
    cause = failed
    # An activity's failure says "Activity task failed"; what the reader wants to know is what it failed of.
    while cause.HasField("cause"):
        cause = cause.cause
    if cause.HasField("application_failure_info") and cause.application_failure_info.type:
        told["type"] = cause.application_failure_info.type
    if cause is not failed:
        told["cause"] = cause.message
    return told


async def result(converter: DataConverter | None, payloads: Payloads, most_bytes: int) -> dict[str, Any]:
    """A result."""
    return {}
