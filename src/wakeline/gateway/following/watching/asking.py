"""Asks Temporal about a run until it answers, through outages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from temporalio.service import RPCError

from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.reaching import Connection
from wakeline.retry import Backoff
from wakeline.temporal.failures import UNKNOWN_TIMES, is_forgotten

_LONGEST_PAUSE: Final = 30.0
# A call that lasted for so long counts as one that worked.
_OUTAGE_SECONDS: Final = 30.0
T = TypeVar("T")


async def until_known(connection: Connection, ask: Callable[[], Awaitable[T | None]]) -> T | None:
    """Ask until there is an answer; None if Temporal says often enough that it has no such run.

    Args:
        connection: Temporal; not asked while it has too many calls.
        ask: Asks once; returns None if it is to be called again at once.
    """
    unknown, backoff = 0, Backoff(2 * RETRY_SECONDS, _LONGEST_PAUSE)
    while unknown < UNKNOWN_TIMES:
        await connection.until_calm()
        began = time.monotonic()
        try:
            if (answer := await ask()) is not None:
                return answer
            unknown = 0
            backoff.reset()
        except RPCError as error:
            unknown = unknown + 1 if is_forgotten(error) else 0
            if time.monotonic() - began >= _OUTAGE_SECONDS:
                backoff.reset()
            if unknown < UNKNOWN_TIMES:
                await connection.after_failure(backoff)
    return None
