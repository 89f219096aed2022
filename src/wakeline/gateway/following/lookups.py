"""Lookups of workflows in the background: at most one at a time for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from typing import Any, Final

import structlog

from wakeline.background import TaskPerKey
from wakeline.errors import UnavailableError, WakelineError, WorkflowNotFoundError
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.retry import Backoff
from wakeline.temporal.failures import UNKNOWN_TIMES

_LONGEST_PAUSE: Final = 30.0
_log = structlog.get_logger(__name__)


class Lookups(TaskPerKey):
    """Tasks by key; a key is the name of a workflow, or a tuple that has it in the second place."""

    def of(self, workflow_ids: Container[str]) -> list[asyncio.Task[Any]]:
        """Return the tasks that look one of these workflows up."""
        named = [(key[1] if isinstance(key, tuple) else key, task) for key, task in self.running.items()]
        return [task for name, task in named if isinstance(name, str) and name in workflow_ids]


async def until_followed(work: Callable[[], Awaitable[None]], **fields: object) -> WakelineError | None:
    """Retry until a named workflow is followed, or cannot be; log errors, which no caller sees.

    Args:
        work: Has the workflow followed.
        fields: Further fields of the log lines.

    Returns:
        Why it is not followed; None if it is, or after a defect.
    """
    backoff, absent = Backoff(2 * RETRY_SECONDS, _LONGEST_PAUSE), 0
    while True:
        try:
            await work()
        except (UnavailableError, WorkflowNotFoundError) as error:
            absent = absent + 1 if isinstance(error, WorkflowNotFoundError) else 0
            if absent == UNKNOWN_TIMES:
                _log.info("a workflow that was named is not followed", error=error.message, **fields)
                return error
            _log.debug("a workflow that was named is looked up again", error=error.message, **fields)
        except WakelineError as error:
            _log.info("a workflow that was named is not followed", error=error.message, **fields)
            return error
        except Exception:  # noqa: BLE001 - a parent workflow waits for the end of this
            _log.exception("a workflow that was named is not followed", **fields)
            return None
        else:
            return None
        await backoff.wait()
