"""The follower: executes the effects of one run's life, and observes what follows.

`life/` has the rules. A follower may be stopped at any moment: the next one makes the run's life again from its record
and appends the same events again, of which the log keeps one copy.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from wakeline.errors import (
    AttemptFencedError,
    EpochChangedError,
    RecordConflictError,
    SessionClosedError,
    UnavailableError,
)
from wakeline.events import RUN_CLOSED, RUN_STARTED, SESSION_SETTLED
from wakeline.gateway.following.following import Following, Subject
from wakeline.gateway.following.life import begin, reduce, reports
from wakeline.gateway.following.life import effects as do
from wakeline.gateway.following.life import observations as saw
from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.following.life.phases import Life, Now, Phase, Step
from wakeline.gateway.following.observing import Observer
from wakeline.gateway.following.rests import Rests
from wakeline.gateway.following.telling import RETRY_SECONDS
from wakeline.gateway.following.watching.attention import Attention
from wakeline.gateway.following.watching.resets import undo
from wakeline.gateway.reaching import describe_failure, describe_result
from wakeline.gateway.sessions import Run, RunState, Telling
from wakeline.temporal.endings import Ending

_RESULT_BYTES: Final = 16 * 1024
# The latest event of these says whether the session is settled.
_STANDING: Final = frozenset({RUN_STARTED, RUN_CLOSED, SESSION_SETTLED})
_log = structlog.get_logger(__name__)


class Follower:
    """Follows an open run to its end, or an ended one until the rest of its stream is read.

    Args:
        session: The session of its output.
        run: The run, as its record has it.
        parts: What followers share.
        life: The epoch of the session; None for the one that it has when `follow` begins.

    Attributes:
        session: The session of its output.
        telling: The change of the run that is being reported; None if there is none.
    """

    def __init__(self, session: str, run: Run, parts: Following, life: str | None = None) -> None:
        self.session = session
        self.telling: Telling | None = None
        self._subject = Subject(session, run, parts, life)
        self._parts = parts
        self._observer = Observer(self._subject)
        self._rests = Rests(self._subject)
        self._resting = not run.open
        self._details: dict[str, Any] = {}

    @property
    def run(self) -> Run:
        """The run as it stands."""
        return self._subject.run

    @property
    def life(self) -> str | None:
        """The life of the session that the run is followed into; None if that is not known yet."""
        return self._subject.teller.epoch

    @property
    def attention(self) -> Attention:
        """How closely the run is watched."""
        return self._observer.attention

    @property
    def state(self) -> RunState:
        """The present activity of the run, as far as is known."""
        return self._observer.state

    def nudge(self) -> None:
        """Check the workflow for new events soon."""
        self._observer.nudge()

    def hurry(self) -> None:
        """Read the rest of an ended run now or never: a later run of the session waits for its turn."""
        self._rests.last_chance.set()

    async def tell_result(self) -> None:
        """Report the result that the run completes with.

        The record is written here, because a change of it that is under way may not have this wish yet.
        """
        with suppress(RecordConflictError):  # another gateway reports it
            await self._subject.copy.change(result=True)

    async def announce(self) -> None:
        """Report that the run has begun; the log keeps one copy, before everything else of the run."""
        await self._subject.append(f"started:{self.run.run}", reports.started(self.run))

    async def follow(self) -> None:
        """Follow an open run to its end, or read the rest of an ended one; wait out each outage.

        Nothing can be appended to a session that was closed: then only the record learns of the end.

        Raises:
            EpochChangedError: The session was deleted.
        """
        started = await self._subject.teller.begin(f"started:{self.run.run}")
        life, effects = begin(self.run, self._parts.settings.drain_grace, started=started)
        try:
            while effects:
                if life.phase is not Phase.CLOSING:
                    life, effects = await self._step(life, effects)
                    continue
                self._details = await self._explained(life.ending)
                # Two runs that end at once would otherwise each see the other one as open.
                async with self._parts.runs.lock(self.session):
                    while effects:
                        life, effects = await self._step(life, effects)
        finally:
            await self._observer.report_state_of("")

    async def _step(self, life: Life, effects: tuple[do.Effect, ...]) -> Step:
        """Execute effects, and have the rules decide on the observation that they give."""
        observation: saw.Observation | None = None
        try:
            for effect in effects:
                observation = await self._execute(effect)
        except Exception as error:
            if not self._resting:
                raise  # the next follower continues from the record
            life, observation = replace(life, phase=Phase.RESTING), await self._failed(error)
        if observation is None:
            return life, ()
        now = Now(observation, self.run, asyncio.get_running_loop().time(), self._subject.copy.offset)
        after, effects = reduce(life, now)
        assert effects or after.phase is Phase.DONE, f"expected effects of {observation} in {life.phase}"
        return after, effects

    async def _failed(self, error: Exception) -> saw.Observation:
        """An error must neither lose the rest of an ended run nor keep a later run from its turn."""
        if isinstance(error, (SessionClosedError, EpochChangedError)):
            return saw.SessionGone()
        if isinstance(error, AttemptFencedError):
            return saw.Read(self.run.run_id, Answer.NOBODY, fenced=True)  # another gateway has abandoned the rest
        if not isinstance(error, UnavailableError):
            _log.error("the rest of a run cannot be added; it is tried again", run=self.run.run, exc_info=error)
        await asyncio.sleep(RETRY_SECONDS)
        return saw.Failed()

    async def _execute(self, effect: do.Effect) -> saw.Observation | None:
        """Execute an effect; return what it observes, if it asks for that."""
        match effect:
            case do.Append():
                await self._subject.append(effect.publisher, *effect.reports)
            case do.Expect():
                self.telling = Telling(effect.publisher, msgspec.structs.replace(self.run, **effect.changes))
                # Its activities may publish here before the record is written.
                self._parts.runs.names.know(self.session, self.telling.run)
            case do.Write():
                await self._subject.copy.change(**effect.changes)
            case do.Supersede():
                await undo(self._subject, effect.next_run_id, output=effect.output)
            case do.PassOver():
                await self._subject.copy.begin_further(effect.stream, effect.given)
            case do.ReportStateOf():
                await self._observer.report_state_of(effect.run_id)
            case do.Settle():
                self._parts.hub.settle(self.session)
            case do.Abandon():
                _log.warning("the rest of a run is abandoned, because a later one begins", run=self.run.run)
                await self._subject.abandon()
            case _:
                return await self._ask(effect)
        return None

    async def _ask(self, effect: do.Question) -> saw.Observation:
        match effect:
            case do.AwaitTurn():
                await self._parts.earlier(self.session, self.run)
                return saw.TurnCame()
            case do.Follow():
                self.telling = None  # the record has the change by now
                return await self._observer.follow()
            case do.ReadRest():
                return await self._rests.read(effect, self._observer.reader)
            case do.DescribeChain():
                return await self._rests.describe_chain()
            case do.DescribeRun():
                return await self._rests.describe_run(effect)
            case do.AskWorker():
                return await self._rests.ask_worker(effect.run_id)
            case do.CheckSession():
                return await self._check_session(effect)

    async def _check_session(self, effect: do.CheckSession) -> saw.Standing:
        accept, last = self._parts.accept, None
        reported = await self._subject.teller.told(f"closed:{self.run.run}")
        runs = await self._parts.runs.of(self.session)
        others = [other for other in runs if other.run != self.run.run and other.open]
        # The log may have an end that the record does not have yet.
        ended = [await accept.position(self.session, f"closed:{other.run}") is not None for other in others]
        if reported and all(ended):
            latest = await accept.latest(self.session, _STANDING)
            last = latest[0] if latest is not None and latest[1] == RUN_CLOSED else None
        return saw.Standing(effect.again, reported, len(others), all(ended), last, self._details)

    async def _explained(self, ending: Ending | None) -> dict[str, Any]:
        """Return a run's failure and its result, in their reported form."""
        connection, details = self._subject.connection, dict[str, Any]()
        converter_of = connection.converter_of_activity if self.run.activity else connection.converter_of
        converter = converter_of(self.run.workflow_id)
        if ending is not None and ending.failure is not None:
            details["failure"] = await describe_failure(converter, ending.failure)
        if ending is not None and ending.result is not None and await self._wants_result():
            details |= await describe_result(converter, ending.result, _RESULT_BYTES)
        return details

    async def _wants_result(self) -> bool:
        """Return whether to report the result; another gateway may have recorded that."""
        recorded = None if self.run.result else await self._parts.runs.latest(self.session, self.run.run)
        return self.run.result or (recorded is not None and recorded.result)
