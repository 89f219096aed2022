"""Programs that have called Temporal come to their end.

The SDK's threads hand the answer of each call to Python, and a call that was cancelled is answered as well. A program
that ends while they do so may never end, or abort with "PyGILState_Release: thread state must be current": Python stops
every thread that wants its turn, and the SDK's do not bear that. On a busy machine a program that connects a client and
does no more aborts one time in four. Readers cancel many calls, most of them last of all. So a program waits here,
before Python begins to end, until the answers have been handed over. See https://github.com/temporalio/sdk-python/issues/300.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import time

_LONGEST_WAIT = 3.0
_PAUSE = 0.01
_registered = False


def end_in_order() -> None:
    """See that this program waits, when it ends, for answers that are being handed over."""
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_wait)


def _wait() -> None:
    # The futures that are left after this belong to threads of the SDK.
    gc.collect()
    deadline = time.monotonic() + _LONGEST_WAIT
    while _is_handing_over() and time.monotonic() < deadline:
        # Lets the other threads have their turn.
        time.sleep(_PAUSE)


def _is_handing_over() -> bool:
    return any(type(thing) is asyncio.Future and thing.done() for thing in gc.get_objects())
