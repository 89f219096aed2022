"""Log lines on stderr: for people at a terminal, JSON otherwise. A line that cannot be written is lost, never raised."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final, TextIO

import structlog

_FAILED: Final = (OSError, ValueError)
"""What writing raises on a full disk, on a pipe whose reader has gone, and on a closed file."""


class _Careful:
    """A text stream that loses what cannot be written: a server must not end, or stop serving, for its log."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with suppress(*_FAILED):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written; what the stream has kept of a failed write goes with the next one, or is lost."""
        with suppress(*_FAILED):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether people read it."""
        with suppress(*_FAILED):
            return self._stream is not None and self._stream.isatty()
        return False


def configure(level: str) -> None:
    """Set up logging for a process that serves.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    numeric = getattr(logging, level.upper())
    stream = _Careful(sys.stderr)
    logging.raiseExceptions = False  # it would write to a stderr that cannot be written
    logging.basicConfig(level=max(numeric, logging.WARNING), stream=stream, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type] # it writes and flushes, no more
    )
