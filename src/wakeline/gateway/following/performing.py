"""Performs the effects of a run's life that change the log and the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog
from temporalio.service import RPCError

from wakeline.errors import AttemptFencedError, SessionClosedError
from wakeline.events import INPUT_UNDONE, compose, timestamp
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.effects import Append, Expect, Supersede
from wakeline.gateway.following.life.reports import SETTLED
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.watching.resets import Reset, reset_of, send_again, supersede_undone, undone_inputs
from wakeline.gateway.log import Publication
from wakeline.gateway.sessions import Run, Telling
from wakeline.retry import Backoff
from wakeline.temporal.failures import is_transient

_LONGEST_PAUSE: Final = 30.0
_LOGGED_FAILURES: Final = 10  # a failure in so many is logged as a warning, the first one among them
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Performer:
    """Performs effects on one run.

    Args:
        subject: The run.

    Attributes:
        telling: The change of the run that is being reported; None if there is none.
    """

    def __init__(self, subject: Subject) -> None:
        self.telling: Telling | None = None
        self._subject = subject
        self._parts = subject.parts

    async def append(self, effect: Append) -> None:
        """Append events, once."""
        teller = self._subject.teller
        events = [
            compose(report.topic, b"{}", time=timestamp())  # it belongs to no run
            if report is SETTLED
            else teller.event(report.topic, report.data, key=report.key)
            for report in effect.reports
        ]
        await teller.tell(effect.publisher, *events)

    def expect(self, effect: Expect) -> None:
        """Show the change as soon as it is in the log."""
        self.telling = Telling(effect.publisher, msgspec.structs.replace(self._subject.run, **effect.changes))

    async def abandon(self) -> None:
        """Refuse what is left of the run's streams from now on.

        A gateway that was stopped may have it in its hands, and would append it after the later run's first event.
        """
        run, teller = self._subject.run, self._subject.teller
        attempts = {f"stream:{unread.stream}": unread.stream_attempt for unread in run.unread}
        attempts |= {f"stream:{run.stream}": run.stream_attempt, f"drained:{run.run}": 1}
        for publisher, attempt in attempts.items():
            refused = Publication(publisher, attempt + 1, run=run.run)
            with suppress(SessionClosedError, AttemptFencedError):
                await self._parts.accept.open_attempt(self._subject.session, refused, epoch=teller.epoch)

    async def supersede(self, effect: Supersede) -> None:
        """Mark what a reset has undone."""
        client, accept, before = self._parts.connection.client, self._parts.accept, self._subject.run
        if effect.output:
            reset = await self._asked(partial(reset_of, client, before, effect.next_run_id))
            with suppress(SessionClosedError):
                session, epoch = self._subject.session, self._subject.teller.epoch
                await self._asked(partial(supersede_undone, client, accept, session, before, reset, epoch=epoch))
            await self._undo(before, reset)
            return
        runs = await self._parts.runs.of(self._subject.session)
        for ended in [run for run in runs if run.first_run_id == before.chain and not run.open][-1:]:
            await self._undo(ended, await self._asked(partial(reset_of, client, ended, effect.next_run_id)))

    async def _undo(self, before: Run, reset: Reset) -> None:
        """Send the session's inputs that a reset has undone to the new run, or report them."""
        run_id = reset.next_run_id
        client, resend = self._parts.connection.client, self._parts.settings.inputs.after_reset == "send"
        data: list[dict[str, str]] = []
        for key, signal in (await self._asked(partial(undone_inputs, client, before, reset))).items():
            found = await self._parts.intents.find(self._subject.session, key.id)
            if found is None or found.life != key.life:
                continue  # an input of another session, or a forgotten one whose key another one has
            sent = False
            if resend and signal is not None:
                sent = await self._asked(partial(send_again, client, before, run_id, key, signal), reading=False)
            if not sent:
                data.append({"id": key.id, "run_id": run_id})
        if data:
            await self._subject.teller.tell(
                f"undone:{run_id}", *(self._subject.teller.event(INPUT_UNDONE, each) for each in data)
            )

    async def _asked(self, ask: Callable[[], Awaitable[T]], *, reading: bool = True) -> T:
        """Ask Temporal until it answers, without reading again what was read before the failure."""
        backoff = Backoff(2 * RETRY_SECONDS, _LONGEST_PAUSE)
        while True:
            try:
                return await ask()
            except RPCError as error:
                if not is_transient(error, reading=reading):
                    raise
                session, run = self._subject.session, self._subject.run.run
                log = _log.debug if backoff.failures % _LOGGED_FAILURES else _log.warning
                log("Temporal does not answer about a reset now", session=session, run=run, error=error.message)
                await self._parts.connection.after_failure(backoff)
