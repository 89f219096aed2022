"""Log lines on stderr: text at a terminal, JSON otherwise; unwritable lines are lost."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final, TextIO

import structlog

_FAILED: Final = (OSError, ValueError)
"""Errors of writing to a full disk, to a pipe without a reader, and to a closed file."""


class _Careful:
    """A text stream that suppresses errors: a server must keep serving without its log."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; lose it if that fails."""
        with suppress(*_FAILED):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; a part that cannot be written stays for the next flush, or is lost."""
        with suppress(*_FAILED):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
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
