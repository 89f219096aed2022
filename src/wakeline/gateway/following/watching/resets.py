"""The output and the inputs that a reset has undone.

The activities that were scheduled after the reset point are superseded. So are the streams of the run that was reset and of the
runs that followed it, because the new run builds its stream from the beginning. Temporal applies the inputs after that point to
the new run again, unless the reset excludes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.service import RPCError, RPCStatusCode

from wakeline.errors import SessionClosedError
from wakeline.events import INPUT_UNDONE, publisher_of_activity
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.watching.past import Histories, Key, Past, Signal, until_answered
from wakeline.gateway.log import Publication
from wakeline.gateway.sessions import Intents, Run
from wakeline.streams.inputs import temporal_id
from wakeline.temporal.chains import Start
from wakeline.temporal.failures import RPC_TIMEOUT

_MOST_RUNS: Final = 100


class Reset(NamedTuple):
    """A reset, as the histories have it.

    Attributes:
        base: The run that was reset.
        point: The event of that run after which the new one is another.
        way: The runs from the last one back to the one that was reset; none if that is not among them.
    """

    base: str
    point: int
    way: Sequence[Start]


async def undo(subject: Subject, next_run_id: str, *, output: bool) -> None:
    """Mark the output that a reset has undone, and send its inputs again or report them.

    Args:
        subject: The run.
        next_run_id: The run that the reset began.
        output: Whether the run's own output is meant, and not only the inputs of the chain that had ended before it.
    """
    histories, run = Histories(subject), subject.run
    if not output:
        runs = await subject.parts.runs.of(subject.session)
        ended = [other for other in runs if other.first_run_id == run.chain and not other.open]
        if not ended:
            return
        run = ended[-1]
    begun = await histories.past(next_run_id)
    reset = Reset(begun.base, begun.point, await _way_back(histories, run, begun.base))
    if output:
        activities, streams = await _undone_output(histories, run, reset)
        with suppress(SessionClosedError):
            for publisher, activity in activities.items():
                await _supersede(subject, publisher, activity)
            for publisher, least in streams.items():
                await _supersede(subject, publisher, None, least)
    await _return_inputs(subject, next_run_id, await _undone_inputs(histories, run, next_run_id, reset))


async def _undone_output(histories: Histories, run: Run, reset: Reset) -> tuple[dict[str, str], dict[str, int]]:
    """Return the publishers whose output a reset has undone.

    The stream that the run has come to is not among them: it goes on with another attempt. Doing it again says nothing again.
    Neither are those of an ended run which this one began as a reset of: they stay in the session as they were.

    Returns:
        Those of activities, each with its activity; and those of streams, each with the last attempt that may be read later.
    """
    activities: dict[str, str] = {}
    for run_id, past in await _undone(histories, run, reset):
        activities |= {publisher_of_activity(run_id, activity): activity for activity in past.activities}
    kept = {run.stream, *await _of_the_ended(histories, run)}
    # Nothing of these may be in the log yet. They would be read once a worker is back, beside the output that replaces them.
    unread = {each.stream: each.stream_attempt for each in run.unread}
    streams: dict[str, int] = {}
    for begun in [*reset.way, *await _carried(histories, reset.way)]:
        streams |= {
            f"stream:{name}": unread.get(name, 0) for name in run.streams_of(begun.run_id, begun.original) - kept
        }
    return activities, streams


async def _undone_inputs(histories: Histories, run: Run, next_run_id: str, reset: Reset) -> dict[Key, Signal | None]:
    """Return the inputs that a reset has undone: earlier runs had them, the new run does not.

    They are in the order of the histories, by their keys; an update is None.

    An update counts if it was completed. One that was not has no outcome yet, and is sent to the new run.
    """
    missing: dict[Key, Signal | None] = {}
    for _, past in await _undone(histories, run, reset):
        missing |= past.done()
    run_id = next_run_id
    # There may be runs between the reset and the run that it was found by, and a reset among them.
    for _ in range(_MOST_RUNS):
        if not missing or run_id in ("", *run.run_ids):
            break
        after = await histories.past(run_id)
        missing = {key: signal for key, signal in missing.items() if key not in after.arrived}
        begun = await histories.start(run_id)
        run_id = "" if begun is None else begun.previous
    return missing


async def _undone(histories: Histories, run: Run, reset: Reset) -> list[tuple[str, Past]]:
    """Return the events that a reset has undone, by their runs, the earliest first."""
    run_ids = dict.fromkeys([reset.base, *(begun.run_id for begun in reversed(reset.way)), run.run_id])
    return [
        (run_id, await histories.past(run_id, reset.point if run_id == reset.base else 0))
        for run_id in run_ids
        if run_id
    ]


async def _way_back(histories: Histories, run: Run, base: str) -> Sequence[Start]:
    reset = await histories.start(base)
    way: list[Start] = []
    begun = await histories.start(run.run_id)
    while reset is not None and begun is not None:
        way.append(begun)
        if begun.original == reset.original:
            return way
        begun = await histories.start(begun.previous)
    return ()


async def _of_the_ended(histories: Histories, run: Run) -> set[str]:
    """Return the runs of the ended chain that this run began as a reset of."""
    ended: set[str] = set()
    run_id = run.run if run.chain else ""
    while len(ended) < _MOST_RUNS and (begun := await histories.start(run_id)) is not None:
        ended.add(begun.original)
        run_id = begun.previous
    return ended


async def _carried(histories: Histories, way: Sequence[Start]) -> list[Start]:
    """Return the runs whose stream was carried over to the one that was reset.

    A stream has the name of the run that it began with. None if the latest run still has that stream: it goes on.
    """
    carried: list[Start] = []
    begun = way[-1] if way and not all(later.received for later in way[:-1]) else None
    while begun is not None and begun.received and len(carried) < _MOST_RUNS:
        begun = await histories.start(begun.previous)
        carried += [] if begun is None else [begun]
    return carried


async def _supersede(subject: Subject, publisher: str, activity: str | None, least: int = 0) -> None:
    """Begin another attempt of a publisher, after that in the log or after `least`, if any."""
    accept, session = subject.parts.accept, subject.session
    position = await accept.position(session, publisher)
    attempt = max(least, 0 if position is None else position.attempt)
    if attempt:
        after = Publication(publisher, attempt + 1, supersedes=True, run=subject.run.run, activity=activity)
        await accept.open_attempt(session, after, epoch=subject.teller.epoch)


async def _return_inputs(subject: Subject, run_id: str, undone: Mapping[Key, Signal | None]) -> None:
    """Send the session's inputs among these to a run again, or report them."""
    resend = subject.parts.settings.inputs.after_reset == "send"
    reported: list[dict[str, str]] = []
    for key, signal in undone.items():
        found = await Intents(subject.parts.engine).find(subject.session, key.id)
        if found is None or found.life != key.life:
            continue  # an input of another session, or a forgotten one whose key another one has
        sent = False
        if resend and signal is not None:
            sent = await until_answered(subject, partial(_send_again, subject, run_id, key, signal), reading=False)
        if not sent:
            reported.append({"id": key.id, "run_id": run_id})
    if reported:
        teller = subject.teller
        await teller.tell(f"undone:{run_id}", *(teller.event(INPUT_UNDONE, each) for each in reported))


async def _send_again(subject: Subject, run_id: str, key: Key, signal: Signal) -> bool:
    """Send a signal that a reset has undone to the new run; return whether that run has it.

    The key and the life are in the request id and in the headers, so a signal that was sent again before is not sent twice.
    """
    client = subject.connection.client
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=subject.run.workflow_id, run_id=run_id),
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
