"""Finds the first run to follow of a chain that has continued already."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Final, NamedTuple

from temporalio.api.history.v1 import HistoryEvent
from temporalio.service import RPCError

from wakeline.gateway.reaching import Connection
from wakeline.temporal.chains import first_event, received_stream
from wakeline.temporal.failures import UNKNOWN_TIMES, is_forgotten

# Each is replayed by a worker once: a chain that has gone on for years is not read from its beginning.
MOST_BEFORE: Final = 10
# A device waits meanwhile.
_AGAIN_SECONDS: Final = 0.1


class Beginning(NamedTuple):
    """A Temporal run of a chain.

    Attributes:
        run_id: Its id.
        started_at: When it started, by Temporal's clock.
    """

    run_id: str
    started_at: datetime


async def beginning(connection: Connection, workflow_id: str, run_id: str) -> Beginning:
    """Return the earliest available run of a chain whose output no later run received.

    At most `MOST_BEFORE` runs before the one given; a run that was handed its predecessor's stream has what they said.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    first = await _first(connection, workflow_id, run_id)
    for _ in range(MOST_BEFORE):
        started = first.workflow_execution_started_event_attributes
        previous = started.continued_execution_run_id
        if not previous or received_stream(started):
            break
        try:
            first = await _first(connection, workflow_id, previous)
        except RPCError as error:
            if not is_forgotten(error):
                raise
            break
        run_id = previous
    return Beginning(run_id, first.event_time.ToDatetime(tzinfo=UTC))


async def _first(connection: Connection, workflow_id: str, run_id: str) -> HistoryEvent:
    """Return a run's first event; its absence is believed after several answers."""
    for _ in range(UNKNOWN_TIMES - 1):
        await connection.until_calm()
        try:
            return await first_event(connection.client, workflow_id, run_id)
        except RPCError as error:
            if not is_forgotten(error):
                raise
        await asyncio.sleep(_AGAIN_SECONDS * random.uniform(1, 2))
    return await first_event(connection.client, workflow_id, run_id)
