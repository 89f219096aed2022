"""Loggers that never raise; a message that cannot be written is lost."""

from __future__ import annotations

import logging
from typing import Any


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger of the standard library that suppresses the errors of its handlers."""

    def log(self, level: int, msg: object, *args: object, **how: Any) -> None:
        """Log a message; drop it if a handler raises."""
        how["stacklevel"] = how.get("stacklevel", 1) + 1  # the caller, not this method
        try:
            super().log(level, msg, *args, **how)
        except Exception:  # noqa: BLE001 - a closed stderr or a broken handler must not fail the work
            return


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger that never raises, by the name for `logging.getLogger`."""
    return _Logger(logging.getLogger(name), {})
