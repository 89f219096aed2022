"""Accepts inputs, carries each to its outcome, and reports both in the session's log."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from wakeline.background import begin, cancel_all
from wakeline.errors import (
    EpochChangedError,
    InputConflictError,
    InputNotFoundError,
    LimitReachedError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    StaleError,
    UnavailableError,
    WorkflowNotFoundError,
)
from wakeline.events import INPUT_ACCEPTED, INPUT_COMPLETED, INPUT_REJECTED, check_data, compose, timestamp
from wakeline.gateway.access import Grant
from wakeline.gateway.delivery import Accept
from wakeline.gateway.following import Connection, Followers, Namespaces
from wakeline.gateway.inputs.arguments import Arguments
from wakeline.gateway.inputs.asked import Asked
from wakeline.gateway.inputs.sending import look, send
from wakeline.gateway.inputs.starting import find, start
from wakeline.gateway.inputs.steps import (
    Aim,
    At,
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
from wakeline.gateway.inputs.targets import Rule, Targets
from wakeline.gateway.inputs.unseen import unseen
from wakeline.gateway.log import Engine, Publication
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import Intent, Intents, Run, Runs, Settled, key_hash
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff

_NO_NAMESPACE_SECONDS: Final = 60.0
_LOST: Final = (EpochChangedError, SessionDeletedError, SessionNotFoundError)
_log = structlog.get_logger(__name__)


class Inputs:
    """The inputs of all sessions that this gateway accepts or owns.

    Args:
        intents: The record of inputs.
        engine: The log.
        accept: The way into it.
        runs: The record of each session's runs.
        namespaces: Temporal.
        followers: Find a session's workflow, and read what it says after an input.
        ownership: Decides which gateway carries on what another one left.
        settings: The limits, and the rules.
        metrics: Count outcomes.

    Raises:
        SettingsInvalidError: A rule cannot be followed, or a schema is not valid.
    """

    def __init__(
        self,
        intents: Intents,
        engine: Engine,
        accept: Accept,
        runs: Runs,
        namespaces: Namespaces,
        followers: Followers,
        ownership: Ownership,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._intents = intents
        self._engine = engine
        self._accept = accept
        self._arguments = Arguments(settings.inputs.schemas)
        self._targets = Targets(settings.inputs.start, engine, runs, namespaces, followers)
        self._followers = followers
        self._ownership = ownership
        self._settings = settings
        self._metrics = metrics
        self._carrying: dict[tuple[str, str, str], tuple[Intent, asyncio.Task[Settled | None]]] = {}
        self._accepting: set[asyncio.Task[Any]] = set()
        self._resuming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Carry on the inputs that a gateway has accepted and not finished."""
        self._resuming = supervised("inputs", self._resume)

    async def stop(self) -> None:
        """Stop; the next gateway carries on what is unfinished."""
        await cancel_all(self._resuming, *self._accepting)
        await cancel_all(*(task for _, task in self._carrying.values()))

    def check(self, session: str, asked: Asked, grant: Grant) -> Rule | None:
        """Check that an input can be sent, and that a token allows it.

        Returns:
            The rule by which it starts its workflow; None if it starts none.

        Raises:
            WakelineError: It cannot be sent, or is not allowed.
        """
        asked.check()
        return self._targets.rule(session, asked, grant)

    async def send(self, session: str, asked: Asked, by: str, rule: Rule | None = None) -> Settled | None:
        """Accept an input, and wait for its outcome.

        Args:
            session: The session's name.
            asked: The input, which was checked.
            by: The user; empty if no token is required.
            rule: The rule by which it starts its workflow; see `check`.

        Returns:
            The outcome; None if it is not there in time: `find` has it later.

        Raises:
            InputConflictError: Another input has this key.
            RunClosedError: The run has ended.
            StaleError: The device had not seen an event that counts.
            WakelineError: There is no such session or run, or the input cannot be accepted now.
        """
        # To its end even if the caller leaves: an intent that is written is carried on here.
        found = await asyncio.shield(begin(self._accepted(session, asked, by, rule), self._accepting))
        if isinstance(found, Settled):
            return _fresh(found)
        with suppress(TimeoutError):
            async with asyncio.timeout(asked.wait):
                return _fresh(await asyncio.shield(found))
        return None

    async def find(self, session: str, key: str) -> Settled | None:
        """Return an input's outcome; None if it has none yet.

        Raises:
            InputNotFoundError: No input of the session has this key.
            StaleError: It was not sent, because its device had not seen an event that counts.
        """
        found = await self._intents.find(session, key)
        if found is None:
            raise InputNotFoundError(f"there is no input {key!r} in session {session!r}")
        return _fresh(found) if isinstance(found, Settled) else None

    async def _accepted(
        self, session: str, asked: Asked, by: str, rule: Rule | None
    ) -> Settled | asyncio.Task[Settled | None]:
        digest = asked.digest(by)
        found = await self._intents.find(session, asked.id)
        is_new = False
        if found is None:
            intent = await self._intent(session, asked, by, digest, rule)
            found = await self._intents.create(intent)
            is_new = found == intent  # and not that of another gateway, which may have sent it
        if found.digest != digest:
            raise InputConflictError(f"expected the input {asked.id!r} as it was sent before, got another one")
        return found if isinstance(found, Settled) else self._carry(found, unsure=not is_new)

    async def _intent(self, session: str, asked: Asked, by: str, digest: str, rule: Rule | None) -> Intent:
        """Return a new intent for the run that is meant.

        Raises:
            WakelineError: It cannot be accepted.
        """
        starts = rule if asked.kind == "start" else None
        if starts is None or asked.args:  # those of a rule are not the client's
            self._arguments.check(asked.permission if starts is None else starts.permission, asked)
        target = await self._targets.of(session, asked, rule)
        if asked.expect is not None:
            offset = await unseen(self._engine, session, target.epoch, asked.expect)
            if offset is not None:
                raise _stale(offset)
        place = (target.namespace, target.workflow_id)
        updates = [of for of, _ in self._carrying.values() if of.kind == "update"]
        under_way = sum((of.namespace, of.workflow_id) == place for of in updates)
        if asked.kind == "update" and under_way >= self._settings.run_updates:
            raise LimitReachedError(
                f"expected at most {self._settings.run_updates} updates of one run under way", retry_after=1
            )
        return Intent(
            session=session,
            id=asked.id,
            digest=digest,
            kind=asked.kind,
            name=asked.name if starts is None else starts.name,
            args=msgspec.Raw(b"[]" if asked.kind == "start" else asked.arguments),
            by=by,
            device=asked.device,
            expect=asked.expect,
            accepted_at=time.time(),
            **msgspec.structs.asdict(target),
        )

    def _carry(self, intent: Intent, *, unsure: bool = True) -> asyncio.Task[Settled | None]:
        """Return the task that carries an input to its outcome; start it if none runs.

        Args:
            intent: The input.
            unsure: Whether it may have been sent already.
        """
        key = (intent.session, intent.epoch, intent.id)
        if key not in self._carrying:
            task = asyncio.create_task(self._carry_on(intent, unsure=unsure))
            self._carrying[key] = intent, task
            task.add_done_callback(lambda _: self._carrying.pop(key, None))
        return self._carrying[key][1]

    async def _carry_on(self, intent: Intent, *, unsure: bool) -> Settled | None:
        """Carry an input to its outcome through all failures; None if its session was deleted."""
        backoff = Backoff()
        while True:
            try:
                return await self._settle(intent, unsure=unsure)
            except _LOST:
                await self._intents.forget(intent.session, intent.epoch)
                return None
            except UnavailableError as error:
                _log.warning("an input cannot be carried on now", session=intent.session, error=error.message)
            except WorkflowNotFoundError as error:  # its namespace is not in the settings any more
                _log.warning("an input waits", session=intent.session, input=intent.id, error=error.message)
                await asyncio.sleep(_NO_NAMESPACE_SECONDS)
            except Exception:  # noqa: BLE001 - a codec may raise anything, and the input was accepted
                _log.exception("an input failed; it is tried again", session=intent.session, input=intent.id)
            unsure = True
            await backoff.wait()

    async def _settle(self, intent: Intent, *, unsure: bool) -> Settled | None:
        offset = await self._report(intent, 0, INPUT_ACCEPTED, _accepted(intent))
        settled = await self._intents.find(intent.session, intent.id)
        if settled is None:
            return None  # another gateway has finished it, and the session was deleted since
        if not isinstance(settled, Settled):
            delivered = await self._undelivered(settled, offset) or await self._delivered(settled, unsure=unsure)
            if delivered is None:
                return await self._settle(intent, unsure=True)
            intent, outcome = delivered
            await self._check_life(intent)
            data = msgspec.Raw(check_data(msgspec.json.encode({"id": intent.id, **outcome.data})))
            settled = Settled(
                epoch=intent.epoch, digest=intent.digest, status=outcome.status, data=data, stale=outcome.stale
            )
            settled = await self._intents.settle(intent, settled)
            self._metrics.inputs.labels(intent.kind, settled.status).inc()
        topic = INPUT_COMPLETED if settled.status == "completed" else INPUT_REJECTED
        await self._report(intent, 1, topic, settled.data)
        await self._intents.finish(intent)
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
        """Return the outcome of an input whose device had not seen all that counts before the input's own event."""
        if intent.expect is None:
            return None
        event = await unseen(self._engine, intent.session, intent.epoch, intent.expect, offset)
        if event is None:
            return None
        failure = {"message": _stale(event).message, "type": "Stale"}
        return intent, Outcome("rejected", {"failure": failure}, stale=event)

    async def _delivered(self, intent: Intent, *, unsure: bool) -> tuple[Intent, Outcome] | None:
        """Send an input, and look for it, until its outcome is certain.

        Returns:
            The intent as its record is then, and the outcome; None if another gateway has finished the input.
        """
        connection, backoff = self._targets.connection(intent.namespace), Backoff()
        place = Place(intent.run_id, intent.over)
        aim = begin_at(place, unsure=unsure)
        while True:
            seen = await _done(connection, intent, aim)
            if isinstance(seen, (Unanswered, StillOpen)):
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
            if isinstance(after, Outcome):
                return intent, after
            aim = after

    async def _followed(self, intent: Intent, run_id: str) -> str:
        """Follow the run that an input has found or started into its session; return its name."""
        try:
            _, run = await self._followers.register(
                intent.workflow_id, intent.session, namespace=intent.namespace or None, run_id=run_id
            )
        except (WorkflowNotFoundError, SessionClosedError) as error:  # the input has arrived all the same
            _log.warning("a workflow that was started is not followed", session=intent.session, error=error.message)
            return run_id
        return run.run

    async def _report(self, intent: Intent, sequence: int, topic: str, data: bytes) -> int | None:
        """Append an event of an input once; return its offset, or None if the session was closed."""
        publication = Publication(f"input:{key_hash(intent.id)}", sequence=sequence)
        event = compose(topic, bytes(data), time=timestamp(), run=intent.run or None)
        with suppress(SessionClosedError):
            appended = await self._accept.append(intent.session, (event,), publication, epoch=intent.epoch)
            return appended.first_offset
        return None

    async def _resume(self) -> None:
        """Carry on what this gateway owns and nobody has moved for the time of a lease."""
        seen: dict[tuple[str, str], int] = {}
        while True:
            found = await self._intents.unfinished()
            revisions = {(intent.session, intent.id): revision for intent, revision in found}
            for intent, revision in found:
                key = (intent.session, intent.id)
                left = not self._engine.shared or seen.get(key) == revision
                if left and self._ownership.owns(intent.session):
                    self._carry(intent)
            seen = revisions
            if not self._engine.shared:
                return
            await asyncio.sleep(self._settings.lease)


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


def _fresh(settled: Settled | None) -> Settled | None:
    """Return an outcome.

    Raises:
        StaleError: It is that the input was not sent, because its device had not seen an event that counts.
    """
    if settled is not None and settled.stale is not None:
        raise _stale(settled.stale)
    return settled


def _stale(offset: int) -> StaleError:
    return StaleError(f"expected a device that has seen event {offset} of the session", offset=offset)


def _accepted(intent: Intent) -> bytes:
    told: dict[str, str] = {"id": intent.id, "kind": intent.kind}
    told |= {"name": intent.name} if intent.name else {}
    told |= {"by": intent.by} if intent.by else {}
    told |= {"device": intent.device} if intent.device is not None else {}
    return msgspec.json.encode(told)


def _run_of(intent: Intent, run_id: str) -> Run:
    return Run(intent.workflow_id, intent.run, run_id, run_id, "", "", namespace=intent.namespace)
