"""The output and the inputs that a reset has undone.

The activities that were scheduled after the reset point are superseded. So are the streams of the run that was reset and of the
runs that followed it, because the new run builds its stream from the beginning. Temporal applies the inputs after that point to
the new run again, unless the reset excludes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionSignaledEventAttributes
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from wakeline.events import publisher_of_activity
from wakeline.gateway.delivery import Accept
from wakeline.gateway.log import Publication
from wakeline.gateway.sessions import Run
from wakeline.streams.inputs import HEADER, LIFE_HEADER, temporal_id
from wakeline.temporal.chains import Start, start_of
from wakeline.temporal.failures import RPC_TIMEOUT, is_forgotten

_MOST_EVENTS: Final = 50_000  # as many as Temporal lets a history have, about
_MOST_RUNS: Final = 100
Signal: TypeAlias = WorkflowExecutionSignaledEventAttributes


class Key(NamedTuple):
    """An input in a history.

    Attributes:
        id: The key that the client made.
        life: What tells it from an earlier input with that key; empty for one that Wakeline did not send.
    """

    id: str
    life: str


class Reset(NamedTuple):
    """A reset, as the histories have it.

    Attributes:
        next_run_id: The run that it was found by: the one that it began, or a later one.
        base: The run that was reset.
        point: The event of that run after which the new one is another.
        way: The runs from the last one back to the one that was reset; none if that is not among them.
    """

    next_run_id: str
    base: str
    point: int
    way: Sequence[Start]


async def reset_of(client: Client, run: Run, next_run_id: str) -> Reset:
    """Return the reset of a run by which another one has begun.

    Raises:
        RPCError: Temporal cannot be asked now.
    """
    base, point = "", 0
    async for event in _history(client, run.workflow_id, next_run_id):
        failed = event.workflow_task_failed_event_attributes
        if failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
            base, point = failed.base_run_id, event.event_id
    return Reset(next_run_id, base, point, await _way_back(client, run, base))


async def supersede_undone(
    client: Client, accept: Accept, session: str, run: Run, reset: Reset, *, epoch: str | None
) -> None:
    """Supersede the output that a reset has undone, and fence the activities that it has undone.

    The stream that the run has come to is not among it: it goes on with another attempt. Doing it again says nothing again.
    Neither are those of an ended run which this one began as a reset of: they stay in the session as they were.

    Raises:
        RPCError: Temporal cannot be asked now.
        WakelineError: What `Accept.open_attempt` raises.
    """
    for run_id, activity in await _activities(client, run, reset):
        await _supersede(accept, session, publisher_of_activity(run_id, activity), run, activity, epoch)
    kept = {run.stream, *await _of_the_ended(client, run)}
    # Nothing of these may be in the log yet. They would be read once a worker is back, beside the output that replaces them.
    unread = {each.stream: each.stream_attempt for each in run.unread}
    for begun in [*reset.way, *await _carried(client, run, reset.way)]:
        for name in run.streams_of(begun.run_id, begun.original) - kept:
            await _supersede(accept, session, f"stream:{name}", run, None, epoch, least=unread.get(name, 0))


async def undone_inputs(client: Client, run: Run, reset: Reset) -> dict[Key, Signal | None]:
    """Return the inputs that a reset has undone: earlier runs had them, the new run does not.

    They are in the order of the histories, by their keys; an update is None.

    An update counts if it was completed. One that was not has no outcome yet, and is sent to the new run.

    Raises:
        RPCError: Temporal cannot be asked now.
    """
    before = _Inputs()
    for run_id in dict.fromkeys([reset.base, *(begun.run_id for begun in reversed(reset.way)), run.run_id]):
        async for event in _history(client, run.workflow_id, run_id):
            if run_id != reset.base or event.event_id > reset.point:
                before.read(event)
    after, missing, run_id = _Inputs(), before.done(), reset.next_run_id
    # There may be runs between the reset and the run that it was found by, and a reset among them.
    for _ in range(_MOST_RUNS):
        if not missing or run_id in ("", *run.run_ids):
            break
        async for event in _history(client, run.workflow_id, run_id):
            after.read(event)
        missing = {key: signal for key, signal in missing.items() if key not in after.arrived}
        begun = await _begun(client, run, run_id)
        run_id = "" if begun is None else begun.previous
    return missing


async def send_again(client: Client, run: Run, run_id: str, key: Key, signal: Signal) -> bool:
    """Send a signal that a reset has undone to the new run; return whether that run has it.

    The key and the life are in the request id and in the headers, so a signal that was sent again before is not sent twice.

    Raises:
        RPCError: Temporal cannot be asked now.
    """
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run_id),
        signal_name=signal.signal_name,
        input=signal.input,
        header=signal.header,
        identity=client.identity,
        request_id=temporal_id(*key),
    )
    try:
        await client.workflow_service.signal_workflow_execution(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False  # the run has ended
    return True


class _Inputs:
    """The inputs in a history, by their keys.

    Attributes:
        arrived: The signals, and None for each update that was accepted, or admitted again by a reset.
    """

    def __init__(self) -> None:
        self.arrived: dict[Key, Signal | None] = {}
        self._completed: set[str] = set()  # ids in Temporal

    def done(self) -> dict[Key, Signal | None]:
        """Return the signals that have arrived, and the updates that were completed."""
        return {
            key: signal
            for key, signal in self.arrived.items()
            if signal is not None or temporal_id(*key) in self._completed
        }

    def read(self, event: HistoryEvent) -> None:
        """Read the next event."""
        if event.HasField("workflow_execution_signaled_event_attributes"):
            signal = event.workflow_execution_signaled_event_attributes
            self._note(signal.header.fields, signal)
        elif event.HasField("workflow_execution_update_admitted_event_attributes"):
            request = event.workflow_execution_update_admitted_event_attributes.request
            self._note(request.input.header.fields, None)
        elif event.HasField("workflow_execution_update_accepted_event_attributes"):
            request = event.workflow_execution_update_accepted_event_attributes.accepted_request
            self._note(request.input.header.fields, None)
        elif event.HasField("workflow_execution_update_completed_event_attributes"):
            self._completed.add(event.workflow_execution_update_completed_event_attributes.meta.update_id)

    def _note(self, fields: Mapping[str, Payload], signal: Signal | None) -> None:
        if HEADER in fields:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):  # somebody else's header
                life = msgspec.json.decode(fields[LIFE_HEADER].data, type=str) if LIFE_HEADER in fields else ""
                self.arrived[Key(msgspec.json.decode(fields[HEADER].data, type=str), life)] = signal


async def _supersede(
    accept: Accept,
    session: str,
    publisher: str,
    run: Run,
    activity: str | None,
    epoch: str | None,
    *,
    least: int = 0,
) -> None:
    """Begin another attempt of a publisher, after that in the log or after `least`, if any."""
    position = await accept.position(session, publisher)
    attempt = max(least, 0 if position is None else position.attempt)
    if attempt:
        after = Publication(publisher, attempt + 1, supersedes=True, run=run.run, activity=activity)
        await accept.open_attempt(session, after, epoch=epoch)


async def _way_back(client: Client, run: Run, base: str) -> Sequence[Start]:
    reset = await _begun(client, run, base)
    way: list[Start] = []
    begun = await _begun(client, run, run.run_id)
    while reset is not None and begun is not None:
        way.append(begun)
        if begun.original == reset.original:
            return way
        begun = await _begun(client, run, begun.previous)
    return ()


async def _of_the_ended(client: Client, run: Run) -> set[str]:
    """Return the runs of the ended chain that this run began as a reset of."""
    ended: set[str] = set()
    run_id = run.run if run.chain else ""
    while run_id and len(ended) < _MOST_RUNS and (begun := await _begun(client, run, run_id)) is not None:
        ended.add(begun.original)
        run_id = begun.previous
    return ended


async def _carried(client: Client, run: Run, way: Sequence[Start]) -> list[Start]:
    """Return the runs whose stream was carried over to the one that was reset.

    A stream has the name of the run that it began with. None if the latest run still has that stream: it goes on.
    """
    carried: list[Start] = []
    begun = way[-1] if way and not all(later.received for later in way[:-1]) else None
    while begun is not None and begun.received and begun.previous and len(carried) < _MOST_RUNS:
        begun = await _begun(client, run, begun.previous)
        carried += [] if begun is None else [begun]
    return carried


async def _begun(client: Client, run: Run, run_id: str) -> Start | None:
    try:
        return await start_of(client, run.workflow_id, run_id) if run_id else None
    except RPCError as error:
        if not is_forgotten(error):
            raise
        return None


async def _activities(client: Client, run: Run, reset: Reset) -> list[tuple[str, str]]:
    """Run id and activity id of each activity that is undone."""
    undone: list[tuple[str, str]] = []
    for run_id in dict.fromkeys([reset.base, *(begun.run_id for begun in reset.way), run.run_id]):
        if not run_id:
            continue
        after = reset.point if run_id == reset.base else 0
        undone += [
            (run_id, event.activity_task_scheduled_event_attributes.activity_id)
            async for event in _history(client, run.workflow_id, run_id)
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and event.event_id > after
        ]
    return undone


async def _history(client: Client, workflow_id: str, run_id: str) -> AsyncIterator[HistoryEvent]:
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id, run_id=run_id)
    count = 0
    try:
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=RPC_TIMEOUT):
            count += 1
            if count > _MOST_EVENTS:
                return
            yield event
    except RPCError as error:
        if not is_forgotten(error):
            raise
