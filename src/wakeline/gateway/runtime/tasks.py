"""Background tasks of the gateway: failures are logged, and `/readyz` reports them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from wakeline import background

_log = structlog.get_logger(__name__)


def supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Start a task that is restarted when it fails; see `wakeline.background`."""
    return background.supervised(name, work, log=_failed)


def _failed(name: str, seconds: float) -> None:
    _log.exception("a background task failed and is restarted", task=name, seconds=seconds)
