"""Which run a workflow has come to: whatever has been recorded of its chain, and however long its beginning takes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.api.workflow.v1 import WorkflowExecutionInfo

from tests.support import publish
from wakeline.errors import TemporalUnavailableError
from wakeline.gateway.following.finding import finder
from wakeline.gateway.following.finding.finder import Finder, Found
from wakeline.gateway.log import NewSession, SessionState
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.sessions import Run, Runs
from wakeline.temporal.chains import Start

ENDED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED


class Latest:
    """A connection to a Temporal that has one workflow, whose second run of a chain is the latest."""

    namespace = "default"
    converter: Any = None
    info = WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id="order", run_id="second"), first_run_id="first", status=ENDED
    )

    def __init__(self) -> None:
        described = SimpleNamespace(raw_description=SimpleNamespace(workflow_execution_info=self.info))

        async def describe(**_: Any) -> Any:
            return described

        self.client: Any = SimpleNamespace(get_workflow_handle=lambda *_, **__: SimpleNamespace(describe=describe))

    async def until_calm(self) -> None:
        """It is."""

    def up(self) -> bool:
        return True


async def test_a_chain_whose_beginning_temporal_is_too_busy_to_tell_is_not_waited_for_with_the_session_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Busy:
        async def until_calm(self) -> None:
            await asyncio.sleep(3600)

    monkeypatch.setattr(finder, "_BEGINNING_SECONDS", 0.05)
    engine, busy = MemoryEngine(), Busy()
    runs = Runs(engine)
    namespaces: Any = SimpleNamespace(main=busy)
    info = WorkflowExecutionInfo(execution=WorkflowExecution(workflow_id="order", run_id="third"), first_run_id="first")
    connection: Any = busy  # all of one that is used here
    found = Found(connection, info, None)
    async with asyncio.timeout(60), runs.lock("order"):
        with pytest.raises(TemporalUnavailableError):
            await Finder(namespaces, engine, runs).enter("order", found)
    assert await runs.of("order") == []


async def test_a_run_whose_end_was_reported_and_is_not_recorded_yet_is_not_taken_for_a_reset() -> None:
    engine = MemoryEngine()
    runs = Runs(engine)
    connection: Any = Latest()
    namespaces: Any = SimpleNamespace(main=connection)
    await publish(engine, "order", None, topic="$run.continued", publisher="continued:second", sequence=0)
    await publish(engine, "order", None, topic="$run.closed", publisher="closed:first", sequence=0)
    # Another gateway has reported this end a moment ago.
    run = Run("order", "first", "first", "first", "Order", "2026-11-21T05:14:43.123Z")
    await runs.put("order", run)
    entered = await Finder(namespaces, engine, runs).enter("order", Found(connection, connection.info, None))
    assert (entered.run.run, await runs.of("order")) == ("first", [run])


@pytest.mark.parametrize(
    ("known", "run_id", "reads"),
    [
        pytest.param([], "first", [], id="a workflow that has just started"),
        pytest.param(["first"], "first", [], id="a run that is known"),
        pytest.param([], "second", ["closed:first"], id="a chain that is found late"),
        pytest.param(["first"], "second", ["closed:first"], id="a later run of a chain that is known"),
    ],
)
async def test_the_log_is_asked_only_for_what_matters(
    known: list[str], run_id: str, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = MemoryEngine(), list[str]()
    runs, connection = Runs(engine), Latest()
    await engine.create_session(NewSession("order"))
    for name in known:
        await runs.put("order", Run("order", name, name, name, "Order", "2026-11-21T05:14:43.123Z"))
    state = engine.state

    async def counted(session: str, *, publisher: str | None = None) -> SessionState | None:
        asked.extend([publisher] if publisher is not None else [])
        return await state(session, publisher=publisher)

    async def beginning(*_: Any) -> Start:
        started = WorkflowExecutionStartedEventAttributes(original_execution_run_id="first")
        return Start("first", datetime(2026, 11, 21, tzinfo=UTC), started)

    monkeypatch.setattr(engine, "state", counted)
    monkeypatch.setattr(finder, "beginning", beginning)
    info = WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id="order", run_id=run_id), first_run_id="first", status=ENDED
    )
    found = Found(cast(Any, connection), info, None)
    finding = Finder(cast(Any, SimpleNamespace(main=connection)), engine, runs)
    entered = await finding.enter("order", found)
    assert (entered.run.run, asked) == ("first", reads)
    asked.clear()
    await finding.learn("order", found)
    assert len(asked) <= 1
