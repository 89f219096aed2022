"""Carries each accepted input to its outcome, and reports both in the session's log."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from wakeline.background import cancel_all, wait_at_most
from wakeline.errors import (
    EpochChangedError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    UnavailableError,
    WorkflowNotFoundError,
)
from wakeline.events import INPUT_ACCEPTED, INPUT_COMPLETED, INPUT_REJECTED, check_data, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.following import Followers
from wakeline.gateway.inputs.asked import input_publisher
from wakeline.gateway.inputs.calls import EncodingFailedError
from wakeline.gateway.inputs.pending import Pending
from wakeline.gateway.inputs.refusals import Refusals
from wakeline.gateway.inputs.sending import look, send
from wakeline.gateway.inputs.starting import find, start
from wakeline.gateway.inputs.steps import (
    Aim,
    At,
    Failing,
    Outcome,
    Place,
    Seen,
    Step,
    StillOpen,
    Unanswered,
    advance,
    begin_at,
    place_after,
)
from wakeline.gateway.inputs.targets import Targets
from wakeline.gateway.inputs.unseen import stale, unseen
from wakeline.gateway.log import Engine, Publication
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.reaching import Connection
from wakeline.gateway.runtime import log_failure
from wakeline.gateway.sessions import Intent, Intents, Run, Settled
from wakeline.retry import Backoff

_FAILING_SECONDS: Final = 600.0
"""For so long an input is tried again that fails for another reason than Temporal or the store; then it is rejected.

So is an update of a run whose workflow tasks fail.
"""

_NO_NAMESPACE_SECONDS: Final = 60.0
_LONGEST_PAUSE: Final = 30.0
_OUTAGE_SECONDS: Final = 30.0
"""The longest wait for Temporal between two calls of an input; its connection is checked more often."""

# An update that makes the workflow's task fail adds nine events to the history each time that Temporal passes it on again.
_FIRST_FAILING_PAUSE: Final = 1.0
_LONGEST_FAILING_PAUSE: Final = 120.0
_LOST: Final = (EpochChangedError, SessionDeletedError, SessionNotFoundError)
_log = structlog.get_logger(__name__)


class Carrier:
    """The inputs that this gateway carries to their outcomes, each by one task.

    Args:
        intents: The record of inputs.
        engine: The log.
        accept: The way into it.
        targets: Know the connection to each namespace.
        followers: Follow what inputs start, and read what a workflow says after an input.
        metrics: Count outcomes.
        pending: Counts the inputs without an outcome.
    """

    def __init__(
        self,
        intents: Intents,
        engine: Engine,
        accept: Accept,
        targets: Targets,
        followers: Followers,
        metrics: Metrics,
        pending: Pending,
    ) -> None:
        self._intents = intents
        self._engine = engine
        self._accept = accept
        self._targets = targets
        self._followers = followers
        self._metrics = metrics
        self._pending = pending
        self._carrying: dict[tuple[str, str, str], tuple[Intent, asyncio.Task[Settled | None]]] = {}
        self._refusals = Refusals()
        self._updates: Counter[tuple[str, str]] = Counter()  # by namespace and workflow; other inputs count as none

    async def stop(self) -> None:
        """Stop; the next gateway carries on what is unfinished."""
        await cancel_all(*(task for _, task in self._carrying.values()))

    def updates(self, namespace: str, workflow_id: str) -> int:
        """Return how many updates of a workflow have no outcome yet."""
        return self._updates[namespace, workflow_id]

    def carry(self, intent: Intent, *, unsure: bool = True) -> asyncio.Task[Settled | None]:
        """Return the task that carries an input to its outcome; start it if none runs.

        Args:
            intent: The input.
            unsure: Whether it may have been sent already.
        """
        key = (intent.session, intent.epoch, intent.id)
        if key not in self._carrying:
            task = asyncio.create_task(self._carry_on(intent, unsure=unsure))
            self._carrying[key] = intent, task
            self._pending.begin(intent)
            self._updates[intent.namespace, intent.workflow_id] += intent.kind == "update"
            task.add_done_callback(lambda _: self._ended(key))
        return self._carrying[key][1]

    def _ended(self, key: tuple[str, str, str]) -> None:
        intent, _ = self._carrying.pop(key)
        self._refusals.forget(intent.session)
        self._pending.end(intent)
        workflow = (intent.namespace, intent.workflow_id)
        self._updates[workflow] -= intent.kind == "update"
        if not self._updates[workflow]:
            del self._updates[workflow]

    async def _carry_on(self, intent: Intent, *, unsure: bool) -> Settled | None:
        """Carry an input to its outcome through all failures; None if its session was deleted."""
        backoff, failing = Backoff(), Backoff(longest=_LONGEST_PAUSE)
        since: float | None = None
        while True:
            try:
                return await self._settled_or_forgotten(intent, unsure=unsure)
            except UnavailableError as error:
                log_failure(_log, "an input cannot be carried on now", error, session=intent.session)
                await backoff.wait()
            except WorkflowNotFoundError as error:  # its namespace is not in the settings any more
                _log.warning("an input waits", session=intent.session, input=intent.id, error=error.message)
                await asyncio.sleep(_NO_NAMESPACE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a codec may raise anything, and the input was accepted
                since = since or time.monotonic()
                over = time.monotonic() - since >= _FAILING_SECONDS
                then = "rejected" if over else "tried again"
                _log.exception(f"an input failed; it is {then}", session=intent.session, input=intent.id)
                if over:
                    with suppress(UnavailableError, *_LOST):
                        return await self._conclude(intent, _failed(error))
                await failing.wait()
            unsure = True

    async def _settled_or_forgotten(self, intent: Intent, *, unsure: bool) -> Settled | None:
        try:
            return await self._settle(intent, unsure=unsure)
        except _LOST:
            await self._intents.forget(intent.session, intent.epoch)
            return None

    async def _settle(self, intent: Intent, *, unsure: bool) -> Settled | None:
        offset = await self._report(intent, 0, INPUT_ACCEPTED, _accepted(intent))
        settled = await self._intents.find(intent.session, intent.id)
        if settled is None:
            return None  # another gateway has finished it, and the session was deleted since
        if not isinstance(settled, Settled):
            delivered = await self._undelivered(settled, offset) or await self._delivered(settled, unsure=unsure)
            if delivered is None:
                return await self._settle(intent, unsure=True)
            return await self._conclude(*delivered)
        return await self._concluded(intent, settled)

    async def _conclude(self, intent: Intent, outcome: Outcome) -> Settled:
        """Store an outcome, unless the input has one, and report the one that it has then."""
        await self._check_life(intent)
        settled = Settled(
            epoch=intent.epoch,
            digest=intent.digest,
            status=outcome.status,
            data=msgspec.Raw(check_data(msgspec.json.encode({"id": intent.id, **outcome.data}))),
            by=intent.by,
            closed_at=timestamp(),
            stale=outcome.stale,
            life=intent.life,
        )
        settled = await self._intents.settle(intent, settled)
        self._metrics.inputs.labels(intent.kind, settled.status).inc()
        return await self._concluded(intent, settled)

    async def _concluded(self, intent: Intent, settled: Settled) -> Settled:
        topic = INPUT_COMPLETED if settled.status == "completed" else INPUT_REJECTED
        await self._report(intent, 1, topic, settled.data)
        await self._intents.finish(intent, settled)
        self._followers.nudge(intent.workflow_id, intent.namespace or None)
        return settled

    async def _check_life(self, intent: Intent) -> None:
        """Raise if the session was deleted meanwhile.

        The next session of its name may have an input with the same key, whose outcome is another one.

        Raises:
            EpochChangedError: The session was deleted.
        """
        state = await self._engine.state(intent.session)
        if state is None or state.epoch != intent.epoch:
            raise EpochChangedError(f"session {intent.session!r} was deleted while it had an input under way")

    async def _undelivered(self, intent: Intent, offset: int | None) -> tuple[Intent, Outcome] | None:
        """Return the outcome of an input whose device had not seen all that counts before it."""
        if intent.expect is None:
            return None
        event = await unseen(self._engine, intent.session, intent.epoch, intent.expect, offset)
        if event is None:
            return None
        return intent, Outcome.rejected("Stale", stale(event, intent.expect).message, stale=event)

    async def _delivered(self, intent: Intent, *, unsure: bool) -> tuple[Intent, Outcome] | None:
        """Send an input, and look for it, until its outcome is certain.

        Returns:
            The intent as its record is then, and the outcome; None if another gateway has finished the input.
        """
        connection, backoff = self._targets.connection(intent.namespace), Backoff()
        refused = Backoff(longest=_LONGEST_PAUSE)  # until somebody changes a permission or a key
        failures = _Failures()
        place = Place(intent.run_id, intent.over)
        aim = begin_at(place, unsure=unsure)
        while True:
            seen = await _done(connection, intent, aim)
            if isinstance(seen, Failing) and await failures.are_too_many():
                seen = await _unaccepted(connection, intent, aim)
            if isinstance(seen, Unanswered) and not connection.up():
                await wait_at_most(_OUTAGE_SECONDS, connection.until_up())  # the inputs that wait may be very many
            if isinstance(seen, Unanswered) and seen.refused:
                self._refusals.log(intent.session, intent.id, seen.refused)
                await refused.wait()
            elif isinstance(seen, (Unanswered, StillOpen)):
                await backoff.wait()
            run = await self._followed(intent, seen.run_id) if isinstance(seen, At) else None
            after = advance(aim, seen, starts=intent.starting is not None)
            next_place = place_after(place, seen, after)
            if run is not None or next_place != place:
                # Written before the next call: a gateway that carries it on must not begin with the place before.
                aimed = await self._intents.aim(intent, next_place.run_id, run=run, over=next_place.over)
                if aimed is None:
                    return None
                intent, place = aimed, Place(aimed.run_id, aimed.over)
                if place != next_place:
                    after = begin_at(place)  # another gateway is further
                backoff.reset()
                failures = _Failures()
            if isinstance(after, Outcome):
                return intent, after
            aim = after

    async def _followed(self, intent: Intent, run_id: str) -> str:
        """Follow the run that an input has found or started into its session; return its name."""
        try:
            _, run = await self._followers.register(
                intent.workflow_id,
                intent.session,
                namespace=intent.namespace or None,
                run_id=run_id,
                life=intent.epoch,
            )
        except (
            WorkflowNotFoundError,
            SessionClosedError,
            SessionNotFoundError,
        ) as error:  # the input has arrived all the same
            _log.warning("a workflow that was started is not followed", session=intent.session, error=error.message)
            return run_id
        return run.run

    async def _report(self, intent: Intent, sequence: int, topic: str, data: bytes) -> int | None:
        """Append an event of an input once; return its offset, or None if the session was closed."""
        publication = Publication(input_publisher(intent.id), sequence=sequence)
        event = compose(topic, bytes(data), time=timestamp(), run=intent.run or None)
        with suppress(SessionClosedError):
            appended = await self._accept.append(intent.session, (event,), publication, epoch=intent.epoch)
            return appended.first_offset
        return None


class _Failures:
    """Paces the repetitions of an update while the workflow's tasks fail."""

    def __init__(self) -> None:
        self._backoff = Backoff(_FIRST_FAILING_PAUSE, _LONGEST_FAILING_PAUSE)
        self._since: float | None = None

    async def are_too_many(self) -> bool:
        """Wait before the next attempt, and return whether the tasks have failed for too long."""
        self._since = self._since or time.monotonic()
        await self._backoff.wait()
        return time.monotonic() - self._since >= _FAILING_SECONDS


async def _unaccepted(connection: Connection, intent: Intent, aim: Aim) -> Seen:
    """Return the rejection of an update that a failing workflow has not accepted.

    If the history has the update, or the run has ended, return that instead.
    """
    seen = await look(connection, intent, _run_of(intent, aim.run_id))
    if seen != StillOpen():
        return seen
    message = (
        f"the workflow's tasks have failed for {_FAILING_SECONDS:.0f} s, and it has not accepted the update; "
        "the worker's log says why"
    )
    return Outcome.rejected("UpdateNotAccepted", message)


async def _done(connection: Connection, intent: Intent, aim: Aim) -> Seen:
    """Do one step."""
    match aim.step:
        case Step.SEND:
            return await send(connection, intent, aim.run_id)
        case Step.LOOK:
            return await look(connection, intent, _run_of(intent, aim.run_id))
        case Step.START if intent.starting is not None:
            return await start(connection, intent, intent.starting, aim.run_id)
        case _:
            return await find(connection, intent, aim.run_id, unsure=aim.unsure)


def _failed(error: Exception) -> Outcome:
    """Return the outcome of an input that failed for too long."""
    if isinstance(error, EncodingFailedError):
        message = f"the gateway's payload codec could not encode the arguments for {_FAILING_SECONDS:.0f} s: {error}"
        return Outcome.rejected("EncodingFailed", message)
    message = f"the gateway could not send it for {_FAILING_SECONDS:.0f} s: {type(error).__name__}; it may have arrived"
    return Outcome.rejected("InputFailed", message)


def _accepted(intent: Intent) -> bytes:
    told: dict[str, object] = {"id": intent.id, "kind": intent.kind}
    told |= {"name": intent.name} if intent.name else {}
    told |= {"by": intent.by} if intent.by else {}
    told |= {"device": intent.device} if intent.device is not None else {}
    told |= {"shown": intent.shown} if intent.shown is not msgspec.UNSET else {}
    return msgspec.json.encode(told)


def _run_of(intent: Intent, run_id: str) -> Run:
    return Run(intent.workflow_id, intent.run, run_id, run_id, "", "", namespace=intent.namespace)
