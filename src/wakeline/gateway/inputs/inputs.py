"""Accepts inputs, carries each to its outcome, and reports both in the session's log."""

from __future__ import annotations

import asyncio
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
    RequestInvalidError,
    RunClosedError,
    SessionClosedError,
    SessionDeletedError,
    SessionNotFoundError,
    UnavailableError,
    WorkflowNotFoundError,
)
from wakeline.events import INPUT_ACCEPTED, INPUT_COMPLETED, INPUT_REJECTED, check_data, compose, timestamp
from wakeline.gateway.delivery import Accept
from wakeline.gateway.following import Connection, Followers, Namespaces
from wakeline.gateway.inputs.asked import Asked
from wakeline.gateway.inputs.sending import look, send
from wakeline.gateway.inputs.steps import Aim, Outcome, Step, advance
from wakeline.gateway.log import Engine, Publication
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import Intent, Intents, Run, Runs, Settled, key_hash
from wakeline.gateway.settings import Settings
from wakeline.retry import Backoff

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
        settings: The limits.
        metrics: Count outcomes.
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
        self._runs = runs
        self._namespaces = namespaces
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

    async def send(self, session: str, asked: Asked, by: str) -> Settled | None:
        """Accept an input, and wait for its outcome.

        Args:
            session: The session's name.
            asked: The input, which was checked.
            by: The user; empty if no token is required.

        Returns:
            The outcome; None if it is not there in time: `find` has it later.

        Raises:
            InputConflictError: Another input has this key.
            RunClosedError: The run has ended.
            WakelineError: There is no such session or run, or the input cannot be accepted now.
        """
        # To its end even if the caller leaves: an intent that is written is carried on here.
        found = await asyncio.shield(begin(self._accepted(session, asked, by), self._accepting))
        if isinstance(found, Settled):
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(asked.wait):
                return await asyncio.shield(found)
        return None

    async def find(self, session: str, key: str) -> Settled | None:
        """Return an input's outcome; None if it has none yet.

        Raises:
            InputNotFoundError: No input of the session has this key.
        """
        found = await self._intents.find(session, key)
        if found is None:
            raise InputNotFoundError(f"there is no input {key!r} in session {session!r}")
        return found if isinstance(found, Settled) else None

    async def _accepted(self, session: str, asked: Asked, by: str) -> Settled | asyncio.Task[Settled | None]:
        digest = asked.digest(by)
        found = await self._intents.find(session, asked.id)
        is_new = found is None
        if found is None:
            found = await self._intents.create(await self._intent(session, asked, by, digest))
        if found.digest != digest:
            raise InputConflictError(f"expected the input {asked.id!r} as it was sent before, got another one")
        return found if isinstance(found, Settled) else self._carry(found, unsure=not is_new)

    async def _intent(self, session: str, asked: Asked, by: str, digest: str) -> Intent:
        """Return a new intent for the run that is meant.

        Raises:
            WakelineError: It cannot be accepted.
        """
        run = await self._run(session, asked.run)
        state = await self._engine.state(session)
        if state is None:
            raise SessionNotFoundError(f"there is no session {session!r}")
        if state.closed:
            raise SessionClosedError(f"session {session!r} is closed")
        self._connection(run.namespace)
        under_way = sum(of.run == run.run and of.kind == "update" for of, _ in self._carrying.values())
        if asked.kind == "update" and under_way >= self._settings.run_updates:
            raise LimitReachedError(
                f"expected at most {self._settings.run_updates} updates of one run under way", retry_after=1
            )
        return Intent(
            session=session,
            epoch=state.epoch,
            id=asked.id,
            digest=digest,
            kind=asked.kind,
            name=asked.name,
            args=msgspec.Raw(asked.arguments),
            run=run.run,
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            namespace=run.namespace,
            by=by,
            device=asked.device,
        )

    async def _run(self, session: str, named: str | None) -> Run:
        """Return the run that an input is for: the named one, or the open one."""
        runs = await self._runs.of(session)
        if not any(run.open for run in runs):
            await self._followers.watch(session)  # it may have been started since
            runs = await self._runs.of(session)
        if not runs and await self._engine.state(session) is None:
            raise SessionNotFoundError(f"there is no session {session!r}")
        if named is not None:
            runs = [run for run in runs if named in run.run_ids]
        if not runs:
            raise WorkflowNotFoundError(f"expected a run of session {session!r}, got {named or 'none'}")
        opened = [run for run in runs if run.open]
        if not opened:
            raise RunClosedError(f"expected an open run of session {session!r}; the last one is {runs[-1].status}")
        own = [run for run in opened if run.workflow_id == session] or opened
        if len(own) > 1:
            raise RequestInvalidError(
                f"expected the name of a run, because session {session!r} has {len(own)} open ones",
                hint="Send the name of one of the session's runs as run.",
            )
        return own[0]

    def _connection(self, namespace: str) -> Connection:
        if namespace and namespace not in self._namespaces:
            raise WorkflowNotFoundError(f"expected a namespace that this gateway follows, got {namespace!r}")
        return self._namespaces[namespace] if namespace else self._namespaces.main

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
            except Exception:  # noqa: BLE001 - a codec may raise anything, and the input was accepted
                _log.exception("an input failed; it is tried again", session=intent.session, input=intent.id)
            unsure = True
            await backoff.wait()

    async def _settle(self, intent: Intent, *, unsure: bool) -> Settled | None:
        await self._report(intent, 0, INPUT_ACCEPTED, _accepted(intent))
        settled = await self._intents.find(intent.session, intent.id)
        if settled is None:
            return None  # another gateway has finished it, and the session was deleted since
        if not isinstance(settled, Settled):
            outcome = await self._delivered(settled, unsure=unsure)
            data = msgspec.Raw(check_data(msgspec.json.encode({"id": intent.id, **outcome.data})))
            settled = Settled(epoch=intent.epoch, digest=intent.digest, status=outcome.status, data=data)
            settled = await self._intents.settle(intent, settled)
            self._metrics.inputs.labels(intent.kind, settled.status).inc()
        topic = INPUT_COMPLETED if settled.status == "completed" else INPUT_REJECTED
        await self._report(intent, 1, topic, settled.data)
        await self._intents.finish(intent)
        self._followers.nudge(intent.workflow_id, intent.namespace or None)
        return settled

    async def _delivered(self, intent: Intent, *, unsure: bool) -> Outcome:
        """Send an input, and look for it, until its outcome is certain."""
        connection, backoff = self._connection(intent.namespace), Backoff()
        aim = Aim(Step.SEND, intent.run_id, unsure)
        while True:
            if aim.step is Step.SEND:
                seen = await send(connection, intent, aim.run_id)
            else:
                seen = await look(connection, intent, _run_of(intent, aim.run_id))
            after = advance(aim, seen)
            if isinstance(after, Outcome):
                return after
            if after.run_id != aim.run_id:
                # Written before it is sent there: a gateway that carries it on must not begin with the run before.
                aimed = await self._intents.aim(intent, after.run_id)
                if aimed is not None:
                    intent = aimed
                    after = msgspec.structs.replace(after, run_id=aimed.run_id)
                backoff.reset()
            elif after.step is aim.step:
                await backoff.wait()
            aim = after

    async def _report(self, intent: Intent, sequence: int, topic: str, data: bytes) -> None:
        """Append an event of an input once; none if the session was closed."""
        publication = Publication(f"input:{key_hash(intent.id)}", sequence=sequence)
        event = compose(topic, bytes(data), time=timestamp(), run=intent.run)
        with suppress(SessionClosedError):
            await self._accept.append(intent.session, (event,), publication, epoch=intent.epoch)

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


def _accepted(intent: Intent) -> bytes:
    told: dict[str, str] = {"id": intent.id, "kind": intent.kind}
    told |= {"name": intent.name} if intent.name else {}
    told |= {"by": intent.by} if intent.by else {}
    told |= {"device": intent.device} if intent.device is not None else {}
    return msgspec.json.encode(told)


def _run_of(intent: Intent, run_id: str) -> Run:
    return Run(intent.workflow_id, intent.run, run_id, run_id, "", "", namespace=intent.namespace)
