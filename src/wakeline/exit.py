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
import sys
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
    # The collector lists no frozen objects.
    gc.unfreeze()
    gc.collect()
    deadline = time.monotonic() + _LONGEST_WAIT
    while _is_handing_over() and time.monotonic() < deadline:
        # Lets the other threads have their turn.
        time.sleep(_PAUSE)


def _is_handing_over() -> bool:
    """Return whether a thread of the SDK still holds a future that has its answer."""
    futures = [thing for thing in gc.get_objects() if type(thing) is asyncio.Future and thing.done()]
    if not futures:
        return False
    known = {id(future): 0 for future in futures}
    _count_references(known)
    # Two more references: the variable, and the argument of the call.
    return any(sys.getrefcount(future) - 2 > known[id(future)] for future in futures)


def _count_references(known: dict[int, int]) -> None:
    """Count how many references Python's objects hold."""
    # A task that has ended holds the last future that it awaited. The collector knows no references of other threads.
    things = gc.get_objects()
    for thing in things:
        if thing is not things:
            for held in gc.get_referents(thing):
                if id(held) in known:
                    known[id(held)] += 1
