"""Logs an outage: after a few seconds, then less and less often, and once at its end."""

from __future__ import annotations

import logging
import time
from typing import Final

_FIRST_SECONDS: Final = 3.0
_SECOND_SECONDS: Final = 30.0
_LONGEST_SECONDS: Final = 600.0


class Outage:
    """Logs the outages of one service that is retried.

    Args:
        logger: The logger.
        what: The beginning of the messages, such as `Reaching the gateway at http://…`.
    """

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], what: str) -> None:
        self._logger = logger
        self._what = what
        self._since: float | None = None
        self._next = 0.0
        self._pause = _SECOND_SECONDS
        self._is_logged = False
        self._failed_at = 0.0

    @property
    def quiet(self) -> float:
        """The seconds since the last failure."""
        return time.monotonic() - self._failed_at

    @property
    def seconds(self) -> float:
        """The duration of the outage; 0 when there is none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def failed(self, error: object, began: float | None = None, *, at_once: bool = False) -> None:
        """Record a failure that will be retried; log it if it is time.

        Args:
            error: The error.
            began: The start of the failed call, by `time.monotonic`; None for now.
            at_once: Log the first failure too, since the outage will last.
        """
        now = self._failed_at = time.monotonic()
        if self._since is None:
            self._since = now if began is None else began
            self._next = self._since + (0.0 if at_once else _FIRST_SECONDS)
            self._pause = _SECOND_SECONDS
        if now >= self._next:
            self._is_logged = True
            self._next = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_SECONDS)
            self.log_failure(error, now - self._since)

    def over(self, since: float | None = None) -> None:
        """Record a success; log it if the outage was logged.

        Args:
            since: The time of the success, by `time.monotonic`; None for now.
        """
        if self._since is None:
            return
        if self._is_logged:
            self._is_logged = False
            self.log_end((time.monotonic() if since is None else since) - self._since)
        self._since = None

    def log_failure(self, error: object, seconds: float) -> None:
        """Log that the service has failed for so many seconds."""
        self._logger.warning("%s has failed for %.0f s and is retried: %s", self._what, seconds, error)

    def log_end(self, seconds: float) -> None:
        """Log that the service works again, after so many seconds."""
        self._logger.info("%s works again after %.0f s", self._what, seconds)
