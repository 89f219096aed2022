"""Finds the first run to follow of a chain that has continued already."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from wakeline.gateway.reaching import Connection
from wakeline.temporal.chains import Start, start_of
from wakeline.temporal.failures import UNKNOWN_TIMES, unless_forgotten

# Each is replayed by a worker once: a chain that has gone on for years is not read from its beginning.
MOST_BEFORE: Final = 10
# A device waits meanwhile.
_AGAIN_SECONDS: Final = 0.1


async def beginning(connection: Connection, workflow_id: str, run_id: str) -> Start:
    """Return how the earliest available run of a chain began whose output no later run received.

    At most `MOST_BEFORE` runs before the one given; a run that was handed its predecessor's stream has what they said.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    start = await _start(connection, workflow_id, run_id)
    for _ in range(MOST_BEFORE):
        if not start.previous or start.received:
            break
        before = await unless_forgotten(_start(connection, workflow_id, start.previous))
        if before is None:
            break
        start = before
    return start


async def _start(connection: Connection, workflow_id: str, run_id: str) -> Start:
    """Return how a run began; its absence is believed after several answers."""
    for _ in range(UNKNOWN_TIMES - 1):
        await connection.until_calm()
        if (start := await unless_forgotten(start_of(connection.client, workflow_id, run_id))) is not None:
            return start
        await asyncio.sleep(_AGAIN_SECONDS * random.uniform(1, 2))
    return await start_of(connection.client, workflow_id, run_id)
