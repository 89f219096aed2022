"""Loggers whose failure is nobody's failure: what cannot be written is lost, and the work goes on."""

from __future__ import annotations

import logging
from typing import Any


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger of the standard library that never raises, whatever its handlers do."""

    def log(self, level: int, msg: object, *args: object, **how: Any) -> None:
        """Log, or lose the message."""
        how["stacklevel"] = how.get("stacklevel", 1) + 1  # the caller, not this method
        try:
            super().log(level, msg, *args, **how)
        except Exception:  # noqa: BLE001 - a closed stderr or a broken handler must not end what was only to be reported
            return


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a name, as `logging.getLogger` has it, but for that it never raises."""
    return _Logger(logging.getLogger(name), {})
