"""Where the telling of a chain begins that is found when it has gone on already."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Final, NamedTuple

from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.service import RPCError

from wakeline.gateway.following.reaching.connection import Connection
from wakeline.gateway.following.watching.endings import UNKNOWN_TIMES, carries, first_event, is_forgotten

# Each is replayed by a worker once: a chain that has gone on for years is not read from its beginning.
MOST_BEFORE: Final = 10
# A device waits meanwhile.
_AGAIN_SECONDS: Final = 0.1
_GIVE_NONE: Final = (
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY,
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE,
)


class Beginning(NamedTuple):
    """A Temporal run of a chain.

    Attributes:
        run_id: Its id.
        started_at: When it started, by Temporal's clock.
    """

    run_id: str
    started_at: datetime


async def beginning(connection: Connection, workflow_id: str, run_id: str) -> Beginning:
    """The earliest run of a chain whose output is not in what a later one was given, and can still be had.

    At most `MOST_BEFORE` runs before the one given; a run that was handed its predecessor's stream has what they said.

    Raises:
        RPCError: Temporal cannot be asked now, or does not know the run.
    """
    first = await _first(connection, workflow_id, run_id)
    for _ in range(MOST_BEFORE):
        started = first.workflow_execution_started_event_attributes
        previous = started.continued_execution_run_id
        if not previous or _was_given_the_stream(started):
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
    """A run's first event; that it is not there is believed when it has been said more than once."""
    for _ in range(UNKNOWN_TIMES - 1):
        await connection.until_calm()
        try:
            return await first_event(connection.client, workflow_id, run_id)
        except RPCError as error:
            if not is_forgotten(error):
                raise
        await asyncio.sleep(_AGAIN_SECONDS * random.uniform(1, 2))
    return await first_event(connection.client, workflow_id, run_id)


def _was_given_the_stream(started: WorkflowExecutionStartedEventAttributes) -> bool:
    """Whether a run has the stream of the one before it, as far as can be seen: retry and cron give it none."""
    return started.initiator not in _GIVE_NONE and carries(started.input.payloads) is not False
