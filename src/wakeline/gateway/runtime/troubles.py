"""Log lines of failures that are retried: the store's engine alone logs its outages."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import structlog

from wakeline.errors import UnavailableError
from wakeline.outages import Outage

_CALM_SECONDS: Final = 1.0
"""Seconds without a failure after which the store counts as back: several connections fail and recover one by one."""

_REFUSAL_SECONDS: Final = 600.0
"""Seconds without a refusal after which the next one is logged at once again."""

_log = structlog.get_logger(__name__)


def log_failure(log: Any, event: str, error: BaseException, **fields: object) -> None:
    """Log a failure of work that is tried again: with a traceback if it is a defect.

    The failures of an outage of the store are logged at debug level, because the engine logs the outage.

    Args:
        log: The logger of the caller.
        event: The message.
        error: The failure.
        fields: Further fields of the log line.
    """
    if is_logged(error):
        log.debug(event, error=str(error), **fields)
    elif isinstance(error, UnavailableError):
        log.warning(event, error=error.message, **fields)
    else:
        log.error(event, exc_info=error, **fields)


def is_logged(error: BaseException) -> bool:
    """Return whether the store's engine logs a failure, as part of an outage."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_logged, error.exceptions))
    return isinstance(error, UnavailableError) and error.logged


class LoggedOutage(Outage):
    """Logs an outage in the gateway's log: its first failure at once.

    Args:
        failed: The message of a failure.
        back: The message of the end.
        fields: Further fields of the log lines.
    """

    def __init__(self, failed: str, back: str, **fields: str) -> None:
        super().__init__(_log, failed)
        self._failed_event = failed
        self._back_event = back
        self._fields = fields

    def log_failure(self, error: object, seconds: float) -> None:
        """Log that the service has failed for so many seconds."""
        _log.warning(self._failed_event, error=str(error), seconds=round(seconds, 1), **self._fields)

    def log_end(self, seconds: float) -> None:
        """Log that the service works again, after so many seconds."""
        _log.info(self._back_event, seconds=round(seconds, 1), **self._fields)


class StoreOutage:
    """Logs the outages of a store: their beginning, now and then their length, their end.

    Args:
        store: The name of the store, without credentials.
    """

    def __init__(self, store: str) -> None:
        self._outage = LoggedOutage("the store is away", "the store is back", store=store)
        self._store = store
        self._refusals: dict[str, LoggedOutage] = {}
        self._away = False
        self._checking: asyncio.TimerHandle | None = None

    def failed(self, error: str, began: float | None = None) -> None:
        """Record that the store could not be used."""
        self._away = True
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        self._outage.failed(error, began, at_once=True)

    def refused(self, kind: str, error: str) -> None:
        """Record that the store is there, and refuses some requests; logged by kind."""
        refusals = self._refusals.get(kind)
        if refusals is None or refusals.quiet > _REFUSAL_SECONDS:
            refusals = self._refusals[kind] = LoggedOutage("the store refuses requests", "", store=self._store)
        refusals.failed(f"{kind}: {error}", at_once=True)

    def works(self) -> None:
        """Record that the store was used; it is back if it does not fail again within a moment."""
        if self._away and self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(_CALM_SECONDS, self._back)

    def _back(self) -> None:
        self._checking = None
        self._away = False
        self._outage.over(time.monotonic() - _CALM_SECONDS)
