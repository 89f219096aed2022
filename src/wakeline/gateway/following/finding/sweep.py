"""Lists a namespace: workflows that have ended, and those that are to be followed.

One listing of the namespace's visibility serves any number of runs. Visibility may trail by a moment, so each listing begins
somewhat before the last one ended; and times are compared with Temporal's own only, never with our clock, which may be hours off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2s
from typing import Any, Final

import msgspec
import structlog
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.service import RPCError, RPCStatusCode

from wakeline.background import wait_at_most
from wakeline.errors import RecordConflictError, UnavailableError
from wakeline.gateway.following.finding.rules import fits, query_of
from wakeline.gateway.log import Engine, Record
from wakeline.gateway.reaching import Connection, Visibility, can_be_quoted, quoted, written
from wakeline.gateway.rules import Follow
from wakeline.gateway.runtime import is_logged

_IDS_AT_ONCE: Final = 100
_AT_A_TIME: Final = 32
_OVERLAP: Final = timedelta(seconds=30)
_REMEMBERED: Final = 50_000
_MOST_RUNS: Final = 4_000  # in one record
_INVALID: Final = RPCStatusCode.INVALID_ARGUMENT
_log = structlog.get_logger(__name__)


class _Position(msgspec.Struct, omit_defaults=True):
    """How far the gateways have come with a rule.

    Attributes:
        started: When the last workflow that they have found started.
        runs: The run ids of those that a listing from `_OVERLAP` before that has again.
    """

    started: datetime
    runs: list[str] = []


_position = msgspec.json.Decoder(_Position)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The callbacks of a sweep.

    Attributes:
        endings: Whether there are runs whose end is learned from sweeps.
        ended: Called with the ids of runs that have ended.
        wanted: The Workflow Ids that are waited for.
        found: Called for each workflow that is waited for, or that a rule is for, with that rule.
    """

    endings: Callable[[], bool]
    ended: Callable[[Container[str]], None]
    wanted: Callable[[], Awaitable[Sequence[str]]]
    found: Callable[[WorkflowExecutionInfo, Follow | None], Awaitable[None]]


class Sweep:
    """Sweeps one namespace.

    Args:
        connection: Temporal.
        engine: Keeps how far it has come, so that nothing is missed while no gateway runs.
        rules: Which workflows are followed by themselves; the first that lists one counts.
        swept: Its callbacks.
        seconds: From one sweep to the next.

    Attributes:
        visibility: Lists the workflows.
    """

    def __init__(
        self, connection: Connection, engine: Engine, rules: Sequence[Follow], swept: Swept, seconds: float
    ) -> None:
        self.visibility = Visibility(connection)
        self._connection = connection
        self._engine = engine
        self._rules = rules
        self._swept = swept
        self._seconds = seconds
        self._closed: datetime | None = None
        self._started: dict[str, datetime] = {}
        self._seen: dict[str, None] = {}
        self._troubles: dict[str, str] = {}
        self._at_once = asyncio.Event()
        self._at_a_time = asyncio.Semaphore(_AT_A_TIME)
        self._next_over = asyncio.Event()
        self._caught_up = asyncio.Event()
        if not rules:
            self._caught_up.set()

    async def caught_up(self) -> None:
        """Return when the rules have found earlier workflows; at once while Temporal is unavailable."""
        if self._connection.up():
            await self._caught_up.wait()

    def hurry(self) -> None:
        """Sweep now rather than when it is time."""
        self._at_once.set()

    async def once_more(self) -> None:
        """Wait for the end of a sweep that begins from now on; not while Temporal is unavailable."""
        if self._connection.up():
            over = self._next_over
            self.hurry()
            await over.wait()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._connection.until_up()
            await self._connection.until_calm()
            self._at_once.clear()
            over, self._next_over = self._next_over, asyncio.Event()
            await self._once()
            over.set()
            self._caught_up.set()  # even if something went wrong: who waits for it need not wait for what cannot be asked for
            await wait_at_most(self._seconds * random.uniform(0.9, 1.1), self._at_once.wait())

    async def _once(self) -> None:
        """Do every part of a sweep, whatever becomes of the others."""
        if self.visibility.newest is None and not await self._part("what is newest", self.visibility.find_newest()):
            return
        for rule in self._rules:
            await self._part(f"the rule {query_of(rule)}", self._find_by(rule), rule)
        self._caught_up.set()
        await self._part("what devices wait for", self._find_wanted())
        if self._swept.endings():
            await self._part("what has ended", self._find_endings())
        else:
            self._closed = None

    async def _part(self, what: str, work: Coroutine[Any, Any, None], rule: Follow | None = None) -> bool:
        """Do one part; log an error that lasts once."""
        if not self._connection.up():
            work.close()
            return False
        trouble, known, quiet = "", True, False
        try:
            await work
        except (RPCError, UnavailableError) as error:
            trouble, quiet = error.message, is_logged(error)
            if rule is not None and isinstance(error, RPCError) and error.status == _INVALID:
                self._connection.remember(f"invalid rule: {query_of(rule)}: {trouble}", 3 * self._seconds)
        except Exception as error:  # noqa: BLE001 - nothing may stop the sweeps
            trouble, known = repr(error), False
        if trouble and not quiet and trouble != self._troubles.get(what):
            namespace = self._connection.namespace
            _log.warning(
                "a namespace cannot be swept now", namespace=namespace, part=what, error=trouble, exc_info=not known
            )
        self._troubles[what] = trouble
        return not trouble

    async def _find_wanted(self) -> None:
        wanted = await self._swept.wanted()
        plain = [workflow_id for workflow_id in wanted if can_be_quoted(workflow_id)]
        recently = written(self.visibility.some_time_ago())
        for at in range(0, len(plain), _IDS_AT_ONCE):
            ids = ", ".join(map(quoted, plain[at : at + _IDS_AT_ONCE]))
            await self._find(f"WorkflowId IN ({ids}) AND StartTime >= '{recently}'", None)
        for workflow_id in set(wanted).difference(plain):
            await self._follow(await self.visibility.latest(workflow_id), None)

    async def _find_endings(self) -> None:
        since = self._closed or self.visibility.some_time_ago()
        latest = since
        ended: set[str] = set()
        try:
            async for info in self.visibility.listed(f"CloseTime >= '{written(since - _OVERLAP)}'"):
                latest = max(latest, info.close_time.ToDatetime(tzinfo=UTC))
                if self._is_new(f"closed {info.execution.run_id}"):
                    ended.add(info.execution.run_id)
        finally:  # what was listed before a page could not be had is not listed as new again
            if ended:
                self._swept.ended(ended)
        self._closed = latest

    async def _find_by(self, rule: Follow) -> None:
        """Find the workflows of a rule in the order of their starts: open ones, then later ones."""
        query = query_of(rule)
        key = self._key(query)
        since, record = self._started.get(key), await self._engine.get_record(key)
        if record is not None:
            # Another gateway may have come further. A run that was found once is not found again: its session may have been
            # deleted since.
            stored = _position.decode(record.value)
            since = max(since or stored.started, stored.started)
            for run_id in stored.runs:
                self._is_new(f"started {run_id}")
        elif since is None:
            since = self.visibility.some_time_ago()
            await self._find(f"({query}) AND ExecutionStatus = 'Running'", rule)
        listed = await self._find(f"({query}) AND StartTime >= '{written(since - _OVERLAP)}'", rule)
        # Written down only when all of it is followed: after a restart it is found again or known already.
        self._started[key] = since = max([since, *map(_start_of, listed)])
        runs = [info.execution.run_id for info in listed if _start_of(info) >= since - _OVERLAP]
        await self._write(key, _Position(since, runs[-_MOST_RUNS:]), record)

    async def _find(self, query: str, rule: Follow | None) -> list[WorkflowExecutionInfo]:
        """Have what is new of a listing followed; return the listing in the order of starts."""
        listed = [info async for info in self.visibility.listed(query) if rule is None or fits(rule, info)]
        listed.sort(key=lambda info: info.start_time.ToNanoseconds())
        await self._follow(listed, rule)
        return listed

    async def _follow(self, listed: Sequence[WorkflowExecutionInfo], rule: Follow | None) -> None:
        """Have what is new among these followed.

        Raises:
            UnavailableError: One of them cannot be followed now. The others are.
        """
        # A workflow may be waited for and match a rule, each with a session of its own.
        seen = "started" if rule is not None else "wanted"
        found = [info for info in listed if f"{seen} {info.execution.run_id}" not in self._seen]
        workflows: dict[str, list[WorkflowExecutionInfo]] = {}
        for info in found:
            workflows.setdefault(info.execution.workflow_id, []).append(info)
        failures = await asyncio.gather(*(self._follow_in_order(runs, rule, seen) for runs in workflows.values()))
        for failed in filter(None, failures):
            raise failed

    async def _follow_in_order(
        self, runs: list[WorkflowExecutionInfo], rule: Follow | None, seen: str
    ) -> UnavailableError | None:
        """Have the runs of one workflow followed, the earliest first."""
        async with self._at_a_time:
            for info in runs:
                try:
                    await self._swept.found(info, rule)
                except UnavailableError as error:
                    return error
                self._is_new(f"{seen} {info.execution.run_id}")
        return None

    async def find_runs_of(self, workflow_id: str) -> None:
        """Find the runs of one workflow that rules have not found yet, if Temporal is available.

        Raises:
            UnavailableError: Not all of it can be followed now.
        """
        if not can_be_quoted(workflow_id):
            return
        for query, rule in [(query_of(rule), rule) for rule in self._rules]:
            since = self._started.get(self._key(query))
            if since is not None:
                its = f"WorkflowId = {quoted(workflow_id)} AND StartTime >= '{written(since - _OVERLAP)}'"
                with suppress(RPCError):
                    await self._find(f"({query}) AND {its}", rule)

    def _key(self, query: str) -> str:
        return f"sweeps/{self._connection.namespace}/{blake2s(query.encode(), digest_size=8).hexdigest()}"

    async def _write(self, key: str, position: _Position, record: Record | None) -> None:
        value = msgspec.json.encode(position)
        if record is not None and record.value == value:
            return
        with suppress(RecordConflictError):  # another gateway sweeps, too
            await self._engine.put_record(key, value, revision=record.revision if record else 0)

    def _is_new(self, what: str) -> bool:
        """Whether it is seen for the first time, as far as can be remembered."""
        if what in self._seen:
            return False
        self._seen[what] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True


def _start_of(info: WorkflowExecutionInfo) -> datetime:
    return info.start_time.ToDatetime(tzinfo=UTC)
