"""The histories of a workflow's runs, as far as a reset can undo them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import structlog
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionSignaledEventAttributes
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.retry import Backoff
from wakeline.streams.inputs import HEADER, LIFE_HEADER, temporal_id
from wakeline.temporal.chains import Start, start_of
from wakeline.temporal.failures import RPC_TIMEOUT, is_transient, unless_forgotten

_MOST_EVENTS: Final = 50_000  # as many as Temporal lets a history have, about
_LONGEST_PAUSE: Final = 30.0
_LOGGED_FAILURES: Final = 10  # a failure in so many is logged as a warning, the first one among them
_log = structlog.get_logger(__name__)
Signal: TypeAlias = WorkflowExecutionSignaledEventAttributes
T = TypeVar("T")


class Key(NamedTuple):
    """An input in a history.

    Attributes:
        id: The key that the client made.
        life: What tells it from an earlier input with that key; empty for one that Wakeline did not send.
    """

    id: str
    life: str


class Past:
    """The events of a Temporal run that a reset may undo.

    Attributes:
        activities: The ids of the activities that were scheduled.
        arrived: The inputs by their keys: the signals, and None for each update that was accepted, or admitted again by a
            reset.
        base: The run that was reset to begin this one; empty if none was.
        point: The event of that run after which this one is another.
    """

    def __init__(self) -> None:
        self.activities: list[str] = []
        self.arrived: dict[Key, Signal | None] = {}
        self.base, self.point = "", 0
        self._completed: set[str] = set()  # updates, by their ids in Temporal

    def done(self) -> dict[Key, Signal | None]:
        """Return the signals that have arrived, and the updates that were completed."""
        return {
            key: signal
            for key, signal in self.arrived.items()
            if signal is not None or temporal_id(*key) in self._completed
        }

    def note(self, event: HistoryEvent) -> None:
        """Read the next event."""
        said: Any = getattr(event, kind := event.WhichOneof("attributes") or "", None)
        match kind:
            case "activity_task_scheduled_event_attributes":
                self.activities.append(said.activity_id)
            case "workflow_task_failed_event_attributes":
                if said.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
                    self.base, self.point = said.base_run_id, event.event_id
            case "workflow_execution_signaled_event_attributes":
                self._arrive(said.header.fields, said)
            case "workflow_execution_update_admitted_event_attributes":
                self._arrive(said.request.input.header.fields, None)
            case "workflow_execution_update_accepted_event_attributes":
                self._arrive(said.accepted_request.input.header.fields, None)
            case "workflow_execution_update_completed_event_attributes":
                self._completed.add(said.meta.update_id)

    def _arrive(self, fields: Mapping[str, Payload], signal: Signal | None) -> None:
        if HEADER in fields:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):  # somebody else's header
                life = msgspec.json.decode(fields[LIFE_HEADER].data, type=str) if LIFE_HEADER in fields else ""
                self.arrived[Key(msgspec.json.decode(fields[HEADER].data, type=str), life)] = signal


class Histories:
    """The histories of a workflow's runs; each is read to its end once.

    An attempt that Temporal fails before that is repeated from the first event.

    Args:
        subject: The workflow's run that was reset.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._client = subject.connection.client
        self._pasts: dict[tuple[str, int], Past] = {}
        self._starts: dict[str, Start | None] = {"": None}

    async def past(self, run_id: str, after: int = 0) -> Past:
        """Return the events after one of a run; none if Temporal does not have the run."""
        key = (run_id, after)
        if key not in self._pasts:
            read = until_answered(self._subject, partial(self._read, run_id, after))
            self._pasts[key] = await unless_forgotten(read) or Past()
        return self._pasts[key]

    async def start(self, run_id: str) -> Start | None:
        """Return how a run began; None if Temporal does not have it."""
        if run_id not in self._starts:
            workflow_id = self._subject.run.workflow_id
            read = until_answered(self._subject, partial(start_of, self._client, workflow_id, run_id))
            self._starts[run_id] = await unless_forgotten(read)
        return self._starts[run_id]

    async def _read(self, run_id: str, after: int) -> Past:
        past, workflow_id = Past(), self._subject.run.workflow_id
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        async for event in handle.fetch_history_events(skip_archival=True, rpc_timeout=RPC_TIMEOUT):
            if event.event_id > _MOST_EVENTS:
                break
            if event.event_id > after:
                past.note(event)
        return past


async def until_answered(subject: Subject, ask: Callable[[], Awaitable[T]], *, reading: bool = True) -> T:
    """Ask Temporal about a reset until it answers."""
    backoff = Backoff(2 * RETRY_SECONDS, _LONGEST_PAUSE)
    while True:
        try:
            return await ask()
        except RPCError as error:
            if not is_transient(error, reading=reading):
                raise
            log = _log.debug if backoff.failures % _LOGGED_FAILURES else _log.warning
            session, run = subject.session, subject.run.run
            log("Temporal does not answer about a reset now", session=session, run=run, error=error.message)
            await subject.connection.after_failure(backoff)
