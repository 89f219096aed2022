"""Background tasks of the gateway: failures are logged, and `/readyz` reports them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from wakeline import background
from wakeline.gateway.runtime.troubles import log_failure

_log = structlog.get_logger(__name__)


def supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Start a task that is restarted when it fails; see `wakeline.background`."""
    return background.supervised(name, work, log=_failed)


def _failed(name: str, seconds: float) -> None:
    error = sys.exception()
    assert error is not None
    log_failure(_log, "a background task failed and is restarted", error, task=name, seconds=seconds)
