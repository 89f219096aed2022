"""Log lines on stderr, text at a terminal, else JSON; they never block, and may be dropped."""

from __future__ import annotations

import atexit
import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final, TextIO, cast

import msgspec
import structlog

_FAILED: Final = (OSError, ValueError)
"""Errors of writing to a full disk, to a pipe without a reader, and to a closed file."""
_MOST_WAITING: Final = 4096
_EXIT_SECONDS: Final = 1.0
_DROPPED: Final = "log lines were dropped: stderr was not read in time"


class _Patient(io.TextIOBase):
    """A text stream that never blocks: a thread writes to the real one, maybe a full pipe.

    Args:
        stream: The real stream; None if there is none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._terminal = False
        with suppress(*_FAILED):
            self._terminal = stream is not None and stream.isatty()
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant: a finalizer may write a warning while its thread holds it
        self._dropped = 0
        self._thread = threading.Thread(target=_write_all, args=(self._queue, _sink(stream)), daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue the text; drop it if too much is waiting."""
        with self._lock:
            if self._queue.qsize() >= _MOST_WAITING:
                self._dropped += max(1, text.count("\n"))
            else:
                self._report_dropped()
                self._queue.put(text)
        return len(text)

    def isatty(self) -> bool:
        """Whether the real stream is a terminal."""
        return self._terminal

    def fileno(self) -> int:
        """Return the real stream's descriptor."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def finish(self) -> None:
        """Write everything that is waiting; abandon the rest after a second."""
        with self._lock:
            self._report_dropped()
            self._queue.put(None)
        self._thread.join(_EXIT_SECONDS)

    def _report_dropped(self) -> None:
        if self._dropped:
            self._queue.put(self._dropped_line())
            self._dropped = 0

    def _dropped_line(self) -> str:
        if self._terminal:
            return f"WARNING {_DROPPED}: {self._dropped}\n"
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"dropped": self._dropped, "event": _DROPPED, "level": "warning", "timestamp": now}
        return msgspec.json.encode(line).decode() + "\n"


def _write_all(queue: SimpleQueue[str | None], sink: Callable[[str], None]) -> None:
    going_on = True
    while going_on:
        texts: list[str] = []
        item = queue.get()
        with suppress(Empty):
            while item is not None:
                texts.append(item)
                item = queue.get_nowait()
            going_on = False
        with suppress(*_FAILED):
            sink("".join(texts))


def _sink(stream: TextIO | None) -> Callable[[str], None]:
    """Return a function that writes to a stream without its locks, which could block the exit."""
    if stream is None:
        return lambda _: None
    try:
        number = stream.fileno()
    except _FAILED:
        return lambda text: (stream.write(text), stream.flush(), None)[-1]
    return lambda text: _write(number, text.encode(errors="backslashreplace"))


def _write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:
            select.select([], [number], [])


def configure(level: str) -> None:
    """Set up logging for a server process; its writes to stderr then never block it.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    numeric = getattr(logging, level.upper())
    stream = _Patient(sys.stderr)
    sys.stderr = cast("TextIO", stream)  # tracebacks, warnings, and the error that ends the process
    atexit.register(stream.finish)
    logging.raiseExceptions = False  # logging would report a failed write to the same stderr
    of_each: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    line = structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(stream)
    # Libraries log by Python's logging: their lines are as ours are, so that one parser reads the log.
    of_others = [structlog.stdlib.add_logger_name, *of_each]
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, line]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=last, foreign_pre_chain=of_others))
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[handler])
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *of_each, line],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
