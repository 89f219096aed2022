"""What cannot be logged is lost; who wanted it logged goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from wakeline.logs import get_logger


class _Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def handler() -> Iterator[_Broken]:
    handler = _Broken()
    logging.getLogger("wakeline").addHandler(handler)
    yield handler
    logging.getLogger("wakeline").removeHandler(handler)


@pytest.mark.usefixtures("handler")
def test_a_handler_that_raises_ends_no_other() -> None:
    get_logger("wakeline.publisher.sender").warning("lost")
    try:
        raise ValueError("a defect")
    except ValueError:
        get_logger("wakeline.streams.flusher").exception("lost, too")


def test_a_line_names_the_place_that_logged_it() -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(filename)s %(message)s"))
    logger = logging.getLogger("wakeline.test")
    logger.addHandler(handler)
    get_logger("wakeline.test").warning("%d lost", 3)
    logger.removeHandler(handler)
    assert stream.getvalue() == "test_logs.py 3 lost\n"
