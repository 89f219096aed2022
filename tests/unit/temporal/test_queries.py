"""A query is tried once by the SDK, and again by us while the workflow is busy."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode

from wakeline.temporal import queries

BUSY = RPCError("consistent query buffer is full, this may be caused by", RPCStatusCode.RESOURCE_EXHAUSTED, b"")
LIMITED = RPCError("namespace rate limit exceeded", RPCStatusCode.RESOURCE_EXHAUSTED, b"")


class Workflow:
    """Answers as it is told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def ask(self) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_busy_workflow_is_asked_again() -> None:
    begun = time.monotonic()
    assert await queries.when_not_busy(Workflow(BUSY, BUSY, 3).ask, 60) == 3
    assert time.monotonic() - begun < 30


async def test_it_is_not_asked_for_ever() -> None:
    with pytest.raises(RPCError, match="query buffer is full"):
        await queries.when_not_busy(Workflow(BUSY).ask, 0.1)


async def test_another_refusal_is_for_the_caller() -> None:
    with pytest.raises(RPCError, match="rate limit"):
        await queries.when_not_busy(Workflow(LIMITED, 3).ask, 5)


async def test_the_sdk_does_not_try_again() -> None:
    seen: list[Any] = []

    class Service:
        async def query_workflow(self, request: Any, **options: Any) -> Any:
            seen.append((request, options))

    service: Any = SimpleNamespace(
        config=ConnectConfig(target_host=""), worker_service_client=None, workflow_service=Service()
    )
    client = Client(service, namespace="n")
    querying = queries.querying(client)
    assert querying is queries.querying(client)
    assert querying.namespace == "n"
    request: Any = "request"
    await querying.workflow_service.query_workflow(request, retry=True, timeout=None)
    assert seen == [("request", {"retry": False, "timeout": None})]
