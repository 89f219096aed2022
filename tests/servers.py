"""Temporal dev servers: the one way in which tests start them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from temporalio.testing import WorkflowEnvironment

from wakeline.cli.processes import temporal_program

_STARTS = 3
# A server with the usual 100 spends a third of its time collecting garbage. Our processes inherit it: servers that they
# start, too.
os.environ.setdefault("GOGC", "400")
# It is up in a second where nobody else wants the machine. The SDK gives it five, a busy machine may take more.
_START_TIMEOUT = timedelta(seconds=30)

# A workflow may be started again, and continue as new, at once instead of after a second. Timers fire when they are due, and
# not up to a second later. A task that has failed again and again is tried again soon.
_PAUSES: Final = {
    "history_workflowIdReuseMinimalInterval": "0s",
    "history_timerProcessorMaxTimeShift": "50ms",
    "history_workflowTaskRetryMaxInterval": "1s",
}


@asynccontextmanager
async def temporal_server(**configuration: int | bool | str | list[str]) -> AsyncIterator[WorkflowEnvironment]:
    """An empty dev server on loopback.

    Args:
        configuration: The server's dynamic configuration, beside shorter pauses: `history_maxTotalUpdates=5` for
            `history.maxTotalUpdates`. A name with dots stays as it is.
    """
    configuration = {**_PAUSES, **configuration}
    values = [
        f"{name if '.' in name else name.replace('_', '.')}={json.dumps(value)}"
        for name, value in configuration.items()
    ]
    async with await _start([argument for value in values for argument in ("--dynamic-config-value", value)]) as server:
        yield server


async def _start(arguments: Sequence[str]) -> WorkflowEnvironment:
    starts = 0
    while True:
        starts += 1
        try:
            return await WorkflowEnvironment.start_local(
                dev_server_existing_path=temporal_program(),
                dev_server_log_level="error",
                dev_server_extra_args=arguments,
                dev_server_startup_timeout=_START_TIMEOUT,
            )
        except RuntimeError:
            # The port that was free when it was chosen may be taken by now.
            if starts == _STARTS:
                raise
