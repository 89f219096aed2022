"""The end of an answer that lasts, when the gateway stops: early, and without an error."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Final, Self

LEAVING: Final = "the gateway stops"
"""The message of the cancellation that ends an answer."""

_RETRY_MILLISECONDS: Final = (250, 1250)


class UntilLeft:
    """A block that ends without an error when its task is cancelled with the message `LEAVING`.

    Attributes:
        left: Whether it ended so.
    """

    left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if not isinstance(error, asyncio.CancelledError) or error.args != (LEAVING,):
            return False
        task = asyncio.current_task()
        if task is None or task.uncancel():
            return False  # the client has disconnected, too
        self.left = True
        return True


def farewell() -> bytes:
    """Return the last bytes of a stream: a random pause before the client reconnects."""
    return b"retry: %d\n\n" % random.randint(*_RETRY_MILLISECONDS)
