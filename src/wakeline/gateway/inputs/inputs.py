"""Accepts inputs, and waits for their outcomes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from wakeline.background import begin, cancel_all
from wakeline.errors import (
    EpochChangedError,
    InputConflictError,
    InputNotFoundError,
    LimitReachedError,
)
from wakeline.gateway.access import Grant
from wakeline.gateway.delivery import Accept
from wakeline.gateway.following import Followers
from wakeline.gateway.inputs.arguments import Arguments
from wakeline.gateway.inputs.asked import Asked, input_publisher
from wakeline.gateway.inputs.budgets import Budgets
from wakeline.gateway.inputs.carrying import Carrier
from wakeline.gateway.inputs.pending import Pending
from wakeline.gateway.inputs.targets import Rule, Target, Targets
from wakeline.gateway.inputs.unseen import check_seen, stale
from wakeline.gateway.log import Engine
from wakeline.gateway.metrics import Metrics
from wakeline.gateway.ownership import Ownership
from wakeline.gateway.reaching import Namespaces
from wakeline.gateway.runtime import supervised
from wakeline.gateway.sessions import Intent, Intents, Runs, Settled
from wakeline.gateway.settings import Settings


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
        self._budgets = Budgets({"signal": settings.run_total_signals, "update": settings.run_total_updates})
        self._arguments = Arguments(settings.inputs.schemas)
        self._targets = Targets(settings.inputs.start, engine, runs, namespaces, followers)
        self._ownership = ownership
        self._settings = settings
        self._pending = Pending(settings.inputs, metrics)
        self._carrier = Carrier(intents, engine, accept, self._targets, followers, metrics, self._pending)
        # By namespace and workflow: the updates that are being accepted.
        self._arriving: Counter[tuple[str, str]] = Counter()
        self._accepting: set[asyncio.Task[Any]] = set()
        self._resuming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Carry on the inputs that a gateway has accepted and not finished."""
        self._resuming = supervised("inputs", self._resume)

    async def stop(self) -> None:
        """Stop; the next gateway carries on what is unfinished."""
        await cancel_all(self._resuming, *self._accepting)
        await self._carrier.stop()

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

    async def deliver(self, session: str, asked: Asked, by: str, *, epoch: str | None = None) -> None:
        """Accept an input as `send` does, and wait until it has an outcome, however long that takes.

        Args:
            session: The session's name.
            asked: The input.
            by: The user; empty for none.
            epoch: Send it only in this life of the session; None for any.

        Raises:
            EpochChangedError: The session lives in another epoch.
            WakelineError: The errors of `send`.
        """
        found = await self._kept(session, asked, by, epoch)
        if not isinstance(found, Settled):
            await asyncio.shield(found)

    async def accept(self, session: str, asked: Asked, by: str) -> None:
        """Accept an input as `deliver` does, and return once it would survive this gateway."""
        await self._kept(session, asked, by, None)

    async def _kept(
        self, session: str, asked: Asked, by: str, epoch: str | None
    ) -> Settled | asyncio.Task[Settled | None]:
        return await asyncio.shield(begin(self._accepted(session, asked, by, None, epoch), self._accepting))

    async def find(self, session: str, key: str, by: str | None) -> Settled | None:
        """Return an input's outcome; None if it has none yet.

        Args:
            session: The session's name.
            key: The input's key.
            by: The user who must have sent it; None for any user.

        Raises:
            InputNotFoundError: No input of the session has this key, or another user has sent it.
            StaleError: It was not sent, because its device had not seen an event that counts.
        """
        found = await self._recorded(session, key)
        if found is None or by not in (None, found.by):
            raise InputNotFoundError(f"there is no input {key!r} in session {session!r}")
        return _fresh(found) if isinstance(found, Settled) else None

    async def _accepted(
        self, session: str, asked: Asked, by: str, rule: Rule | None, epoch: str | None = None
    ) -> Settled | asyncio.Task[Settled | None]:
        digest = asked.digest(by)
        found = await self._recorded(session, asked.id)
        if found is not None:
            return self._carried(found, asked, digest, is_new=False)
        with self._pending.room(session, asked, by):
            return await self._created(session, asked, by, digest, rule, epoch)

    async def _recorded(self, session: str, key: str) -> Intent | Settled | None:
        """Return an input as it was recorded; None if it is left from an earlier life."""
        found = await self._intents.find(session, key)
        if found is None:
            return None
        state = await self._engine.state(session, publisher=input_publisher(key))
        if state is None or (state.epoch != found.epoch and state.position is None):  # a restored one has the publisher
            await self._intents.forget(session, found.epoch)
            return None
        return found

    async def _created(
        self, session: str, asked: Asked, by: str, digest: str, rule: Rule | None, epoch: str | None
    ) -> Settled | asyncio.Task[Settled | None]:
        """Write the intent of an input that is new here, and carry it."""
        target = await self._target(session, asked, rule)
        if epoch not in (None, target.epoch):
            raise EpochChangedError(f"expected session {session!r} in epoch {epoch}, it lives in {target.epoch}")
        with self._counted(asked, target):
            intent = await self._intent(session, asked, by, digest, rule, target)
            found = await self._intents.create(intent)
            # It may be that of another gateway, which may have sent it.
            return self._carried(found, asked, digest, is_new=found == intent)

    def _carried(
        self, found: Intent | Settled, asked: Asked, digest: str, *, is_new: bool
    ) -> Settled | asyncio.Task[Settled | None]:
        if found.digest != digest:
            raise InputConflictError(f"expected the input {asked.id!r} as it was sent before, got another one")
        return found if isinstance(found, Settled) else self._carrier.carry(found, unsure=not is_new)

    async def _target(self, session: str, asked: Asked, rule: Rule | None) -> Target:
        """Return the run that is meant.

        Raises:
            WakelineError: The input cannot be accepted.
        """
        starts = rule if asked.kind == "start" else None
        if starts is None or asked.args:  # those of a rule are not the client's
            self._arguments.check(asked.permission if starts is None else starts.permission, asked)
        target = await self._targets.of(session, asked, rule)
        await check_seen(self._engine, session, target.epoch, asked.expect)
        return target

    @contextmanager
    def _counted(self, asked: Asked, target: Target) -> Iterator[None]:
        """Count an update as one of its run while it is accepted, inside the block.

        Raises:
            LimitReachedError: The run has as many as are allowed.
        """
        place, most = (target.namespace, target.workflow_id), self._settings.run_updates
        if asked.kind == "update" and self._arriving[place] + self._carrier.updates(*place) >= most:
            raise LimitReachedError(f"expected at most {most} updates of one run under way", retry_after=1)
        self._arriving[place] += asked.kind == "update"
        try:
            yield
        finally:
            self._arriving[place] -= asked.kind == "update"
            if not self._arriving[place]:
                del self._arriving[place]

    async def _intent(
        self, session: str, asked: Asked, by: str, digest: str, rule: Rule | None, target: Target
    ) -> Intent:
        """Return a new intent, after the budget of its run was charged.

        Raises:
            LimitReachedError: The run has had as many as Temporal accepts.
        """
        starts = rule if asked.kind == "start" else None
        if target.run_id:
            connection = self._targets.connection(target.namespace)
            await self._budgets.take(connection, target.workflow_id, target.run_id, asked.kind)
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
            shown=msgspec.UNSET if asked.shown is None else msgspec.Raw(msgspec.json.encode(asked.shown)),
            accepted_at=time.time(),
            **msgspec.structs.asdict(target),
        )

    async def _resume(self) -> None:
        """Carry on what this gateway owns and nobody has moved for the time of a lease."""
        seen: dict[tuple[str, str], int] = {}
        while True:
            revisions: dict[tuple[str, str], int] = {}
            async for intent, revision in self._intents.unfinished():
                key = (intent.session, intent.id)
                revisions[key] = revision
                left = not self._engine.shared or seen.get(key) == revision
                if left and self._ownership.owns(intent.session):
                    self._carrier.carry(intent)
            seen = revisions
            if not self._engine.shared:
                return
            await asyncio.sleep(self._settings.lease)


def _fresh(settled: Settled | None) -> Settled | None:
    """Return an outcome.

    Raises:
        StaleError: It is that the input was not sent, because its device had not seen an event that counts.
    """
    if settled is not None and settled.stale is not None:
        raise stale(settled.stale)
    return settled
