"""Reads the rest of a Temporal run's stream after its end, and asks who could answer for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
from temporalio.service import RPCError

from wakeline.background import wait_at_most
from wakeline.errors import AttemptFencedError, SessionClosedError, UnavailableError
from wakeline.gateway.following.copying.copy import StreamCopy
from wakeline.gateway.following.copying.reader import StreamReader
from wakeline.gateway.following.following import Subject
from wakeline.gateway.following.life.answers import Answer, Copied
from wakeline.gateway.following.life.effects import DescribeRun, ReadRest
from wakeline.gateway.following.life.observations import ChainSeen, LastChance, NotSeen, Read, Seen, WorkerSeen
from wakeline.temporal.chains import describe, is_over
from wakeline.temporal.failures import is_forgotten

_log = structlog.get_logger(__name__)


class Rests:
    """Reads the rests of one run.

    Args:
        subject: The run.

    Attributes:
        last_chance: Set when a later run of the session waits for its turn, so that nothing is waited for any more.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._parts = subject.parts
        self.last_chance = asyncio.Event()

    async def read(self, effect: ReadRest, reader: StreamReader | None) -> Read | LastChance:
        """Read a rest, once.

        Args:
            effect: Which, when and until when.
            reader: Read the stream while the run was open; None if its end is in the log.
        """
        if effect.deadline is not None:
            await asyncio.sleep(effect.pause)
            return await self._read(effect, reader)
        await wait_at_most(effect.pause, self.last_chance.wait())
        async with self._place() as free:
            return await self._read(effect, reader) if free else LastChance()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[bool]:
        """Wait for a place among the reads of rests; False if a later run waits, which needs none."""
        places = self._parts.limits.late_reads
        waiting = asyncio.ensure_future(places.acquire())
        hurried = asyncio.ensure_future(self.last_chance.wait())
        try:
            await asyncio.wait([waiting, hurried], return_when=asyncio.FIRST_COMPLETED)
            yield waiting.done() and not self.last_chance.is_set()
        finally:
            hurried.cancel()
            if waiting.done() and not waiting.cancelled():
                places.release()
            waiting.cancel()

    async def _read(self, effect: ReadRest, reader: StreamReader | None) -> Read:
        assert reader is None or effect.unread is None, "expected an open run to have no other rest"
        run, copy, connection = self._subject.run, self._subject.copy, self._subject.connection
        if (unread := effect.unread) is not None:
            run = msgspec.structs.replace(
                run, run_id=unread.run_id, stream=unread.stream, stream_attempt=unread.stream_attempt
            )
            copy = StreamCopy(run, self._subject.teller, self._parts.accept, self._parts.runs, recorded=False)
        deadline, rested = effect.deadline, 0.0
        if reader is not None and deadline is not None:
            began = asyncio.get_running_loop().time()
            await connection.until_calm()
            rested = asyncio.get_running_loop().time() - began
            deadline += rested
        try:
            async with asyncio.timeout_at(deadline):
                if reader is None:
                    await copy.begin()
                copied = await copy.read(reader or StreamReader(connection, run.workflow_id, run.run_id), closed=True)
        except SessionClosedError:
            copied = Copied(Answer.SESSION_CLOSED)
        except TimeoutError:
            copied = Copied(Answer.NOBODY)
        except UnavailableError as error:
            if reader is None:
                raise  # our own log is away: Temporal need not be asked whether it has the run
            copied = Copied(Answer.NOBODY, reason=str(error))
        except AttemptFencedError:
            if reader is not None:
                raise  # another gateway has come further with the run
            return Read(run.run_id, Answer.NOBODY, fenced=True)
        if not copied.answer.is_final:
            _log.debug("cannot read the rest of a run", workflow_id=run.workflow_id, error=copied.reason)
        return Read(run.run_id, copied.answer, rested, connection.calm())

    async def describe_chain(self) -> ChainSeen | NotSeen:
        """Describe the workflow's latest run."""
        run = self._subject.run
        try:
            over, latest = await is_over(self._subject.connection.client, run.workflow_id, run.first_run_id)
        except RPCError as error:
            return NotSeen(is_forgotten(error))
        return ChainSeen(over, latest)

    async def describe_run(self, effect: DescribeRun) -> Seen | NotSeen:
        """Describe one Temporal run."""
        try:
            async with asyncio.timeout_at(effect.deadline):
                await describe(self._subject.connection.client, self._subject.run.workflow_id, effect.run_id)
        except TimeoutError:
            return NotSeen(absent=False)
        except RPCError as error:
            return NotSeen(is_forgotten(error))
        return Seen()

    async def ask_worker(self, run_id: str) -> WorkerSeen:
        """Query a Temporal run, to learn whether a worker is there."""
        reader = StreamReader(self._subject.connection, self._subject.run.workflow_id, run_id)
        polled = await reader.read(0, closed=True)
        return WorkerSeen(polled.answer.is_a_worker_s)
