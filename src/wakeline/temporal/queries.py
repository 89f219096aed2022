"""Queries, and updates, that are tried once.

A workflow that has a task under way takes one query until the task is done and refuses more: it is busy. It also
refuses an update while as many as may wait in it. The SDK tries such a call again after a second, then two, and so on,
which a reader of live events would notice. So the SDK is kept from trying again, and whoever asks decides.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from temporalio.client import Client
from temporalio.service import RPCError, ServiceClient

from wakeline.exit import end_in_order
from wakeline.retry import Backoff
from wakeline.temporal.refusals import Refusal, refusal

T = TypeVar("T")

_LONGEST_WAIT = 0.15


class _TriedOnce:
    """The part of a service client that queries and updates go through."""

    def __init__(self, service: ServiceClient) -> None:
        self.config = service.config
        self.worker_service_client = service.worker_service_client
        self.workflow_service = self
        self._service = service

    async def query_workflow(self, request: Any, *, retry: bool = False, **options: Any) -> Any:
        """Query a workflow, whatever is said of trying again."""
        return await self._service.workflow_service.query_workflow(request, retry=False, **options)

    async def update_workflow_execution(self, request: Any, *, retry: bool = False, **options: Any) -> Any:
        """Begin an update, whatever is said of trying again."""
        return await self._service.workflow_service.update_workflow_execution(request, retry=False, **options)

    async def poll_workflow_execution_update(self, request: Any, **options: Any) -> Any:
        """Wait for an update that has begun."""
        return await self._service.workflow_service.poll_workflow_execution_update(request, **options)


_of_client: weakref.WeakKeyDictionary[Client, Client] = weakref.WeakKeyDictionary()


def querying(client: Client) -> Client:
    """Return the same client for queries and updates alone; each is tried once.

    It has the interceptors and converters of the client.
    """
    if client not in _of_client:
        end_in_order()
        config = client.config(active_config=True)
        config["service_client"] = cast(ServiceClient, _TriedOnce(client.service_client))
        # They have had their say in the configuration.
        config["plugins"] = []
        _of_client[client] = Client(**config)
    return _of_client[client]


async def when_not_busy(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Ask until the workflow is not too busy to answer, but not after so many seconds."""
    deadline = time.monotonic() + seconds
    # A task takes some milliseconds; readers that are refused together must not return together.
    backoff = Backoff(0.01, _LONGEST_WAIT, jitter=1)
    while True:
        try:
            return await ask()
        except RPCError as error:
            if refusal(error) is not Refusal.BUSY or time.monotonic() > deadline:
                raise
        await backoff.wait()
