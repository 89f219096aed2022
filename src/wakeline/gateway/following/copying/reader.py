"""Reading a workflow's own stream (Workflow Streams), without wearing the workflow out.

The poll *query* answers at once and leaves no trace in the history, so it is what we read by. Hosts that do not have it are
read by the poll *update*, which waits in the workflow and counts against the run's 2,000 updates.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import structlog
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from wakeline.gateway.following.life.answers import Answer
from wakeline.gateway.reaching import Connection, decoded_item
from wakeline.streams.budget import UPDATES_PER_RUN, update_pause
from wakeline.streams.wire import POLL, PollInput, PollResult
from wakeline.temporal.queries import querying, when_not_busy
from wakeline.temporal.refusals import REFUSED, Refusal, refusal

# A worker that evicts a run may lose a query to it without a word: asking again soon beats waiting.
_FIRST_TIMEOUT: Final = 2.0
_LAST_TIMEOUT: Final = 10.0
_UPDATE_WAIT: Final = 20.0
# An update that finds an item is answered in about this time.
_UPDATE_SOON: Final = 0.5
_UPDATE_PAUSE: Final = 0.05
# The pause for a host that answers at once without events, because it is cleaning up.
_MOST_UPDATE_PAUSE: Final = 0.5
# All other refusals are those of nobody who could answer. Hosts answer with at most 1 MB, or with one item alone.
_ANSWERS: Final = {
    Refusal.NO_HANDLER: Answer.NO_STREAM,
    Refusal.NEVER_BEGAN: Answer.NEVER_BEGAN,
    Refusal.TOO_LARGE: Answer.TOO_LARGE,
}
_NO_KEY: Final = (
    "is encoded, and the gateway holds no key: set data_converter, or put the workers' codec into "
    "wakeline.streams.EnvelopeCodec"
)
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Item(msgspec.Struct, frozen=True):
    """One item of a stream, at its upstream offset."""

    offset: int
    topic: str
    payload: bytes


class Polled(NamedTuple):
    """The outcome of one poll of a stream.

    Attributes:
        answer: The answer; only `READ` comes with items.
        items: In order. The first may be past the offset that was asked for, if the workflow has truncated its log.
        next_offset: The offset to continue at.
        more: Whether there are more at once.
        reason: The error, for the log.
    """

    answer: Answer
    items: Sequence[Item] = ()
    next_offset: int = 0
    more: bool = False
    reason: str = ""


class StreamReader:
    """Reads one Temporal run's stream from any offset."""

    def __init__(self, connection: Connection, workflow_id: str, run_id: str) -> None:
        self._connection = connection
        self._workflow_id = workflow_id
        self._run_id = run_id
        self.by_update = False
        """Whether this host is read by updates, so that nothing can be read once the run is closed."""
        self._timeout = _FIRST_TIMEOUT
        self._updates = 0
        self._canceled = 0  # so often in a row the host has answered that it is canceled
        self._waiting: asyncio.Task[RawValue] | None = None
        self._converter = connection.converter_of(workflow_id)
        self._told = False

    @property
    def waits(self) -> bool:
        """Whether the host is read by updates, or an update waits in it."""
        return self.by_update or self._waiting is not None

    @property
    def _handle(self) -> WorkflowHandle[Any, Any]:
        return querying(self._connection.client).get_workflow_handle(self._workflow_id, run_id=self._run_id)

    async def until_answered(self, offset: int) -> None:
        """Wait at most 20 seconds for the answer to an update, which `read` returns next.

        Hosts with the query are not waited for.

        Args:
            offset: Upstream offset.
        """
        if self.waits:
            await self._connection.until_calm()
            await asyncio.wait([self._update_from(offset)], timeout=_UPDATE_WAIT)

    def pause(self, updates: int) -> float:
        """Seconds to leave before the next update of a run that is known to have taken so many."""
        own = min(_UPDATE_PAUSE * 2.0 ** min(self._canceled, 10), _MOST_UPDATE_PAUSE)
        return max(update_pause(max(updates, self._updates)), own)

    async def ask(self, query: str, kind: type[T]) -> T | None:
        """Ask the workflow something else by query; None if nobody could answer."""
        await self._connection.until_calm()
        asked = self._handle.query(query, result_type=kind, rpc_timeout=timedelta(seconds=_FIRST_TIMEOUT))
        try:
            answer: T = await self._connection.to_its_end(asked)
        except Exception as error:  # noqa: BLE001 - a worker may answer anything
            _log.debug("a workflow cannot be asked now", query=query, run_id=self._run_id, error=repr(error))
            return None
        return answer

    async def read(self, offset: int, *, closed: bool = False) -> Polled:
        """Read from an offset on; a host without the query may have nothing before `until_answered`.

        Args:
            offset: Upstream offset.
            closed: Whether the run has ended, so that only a query can reach it.
        """
        asked = PollInput(topics=[], from_offset=offset)
        await self._connection.until_calm()
        try:
            answer: RawValue | PollResult | None = None
            if not self.by_update:
                answer = await self._query(asked)
            if answer is None and closed:
                return Polled(Answer.UPDATES_ONLY if self.by_update else Answer.NO_STREAM)
            answer = answer or await self._update(offset)
            result = answer if isinstance(answer, PollResult) else self._decode(answer.payload)
            if result is None:
                return self._encoded(_NO_KEY)
            items = [Item(item.offset, item.topic, _decoded(item.data)) for item in result.items]
            if self._converter is not None:
                items = [
                    msgspec.structs.replace(item, payload=await decoded_item(self._converter, item.payload))
                    for item in items
                ]
        except REFUSED as error:
            return self._refused(error, closed=closed)
        except Exception as error:  # noqa: BLE001 - a worker may answer anything, and a codec may raise anything
            return self._encoded(f"cannot be decoded: {error!r}")
        self._timeout = _FIRST_TIMEOUT
        return Polled(Answer.READ, items, result.next_offset, result.more_ready)

    def stop(self) -> None:
        """Stop waiting for an update."""
        if self._waiting is not None:
            # The SDK makes an error of it, which is nobody's.
            self._waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting.cancel()

    def _refused(self, error: Exception, *, closed: bool) -> Polled:
        said = refusal(error)
        if said is Refusal.USED_UP:
            self._updates = UPDATES_PER_RUN
        if said is Refusal.NOT_READY and closed:
            said = Refusal.NEVER_BEGAN
        if said is Refusal.FAILED:
            self._tell_once(f"the workers of workflow {self._workflow_id!r} cannot tell its stream: {error}")
        answer = _ANSWERS.get(said, Answer.NOBODY)
        if answer is Answer.NOBODY:
            self._timeout = min(self._timeout * 2, _LAST_TIMEOUT)
        return Polled(answer, reason=str(error))

    def _decode(self, payload: Payload) -> PollResult | None:
        """Decode an answer; None if it is encoded, and the gateway has no data converter."""
        if self._converter is None and payload.metadata.get("encoding") != b"json/plain":
            return None
        converter = self._converter or DataConverter.default
        result: PollResult = converter.payload_converter.from_payload(payload, PollResult)
        return result

    def _encoded(self, why: str) -> Polled:
        reason = f"the stream of workflow {self._workflow_id!r} {why}"
        self._connection.remember(f"encoded: {reason}")
        self._tell_once(reason)
        return Polled(Answer.ENCODED, reason=reason)

    def _tell_once(self, what: str) -> None:
        if not self._told:
            self._told = True
            _log.warning(what, run_id=self._run_id)

    async def _query(self, asked: PollInput) -> RawValue | None:
        """Ask by query; None if the host is to be asked by update."""

        async def query() -> RawValue:
            timeout = timedelta(seconds=self._timeout)
            # Let the query finish: a worker logs a warning when it answers a query whose caller is gone.
            answer: RawValue = await self._connection.to_its_end(
                self._handle.query(POLL, asked, result_type=RawValue, rpc_timeout=timeout)
            )
            return answer

        try:
            return await when_not_busy(query, self._timeout)
        except WorkflowQueryFailedError as error:
            said = refusal(error)
            self.by_update = said is Refusal.NOT_BY_QUERY
            # A workflow without the query is not asked: an update would only wake it to be refused.
            if said not in (Refusal.NOT_BY_QUERY, Refusal.ENCODED):
                raise
            return None

    async def _update(self, offset: int, *, truncated: bool = False) -> RawValue | PollResult:
        """Ask by update, one at a time: an abandoned update keeps its place in the workflow."""
        seconds = _UPDATE_SOON if self._waiting is None else 0
        answered = self._update_from(0 if truncated else offset)
        done, _ = await asyncio.wait([answered], timeout=seconds)
        if not done:
            return PollResult(items=[], next_offset=offset)
        self._waiting = None
        result: RawValue | PollResult
        try:
            result = answered.result()
        except WorkflowUpdateFailedError as error:
            said = refusal(error)
            if said is Refusal.TRUNCATED:
                return await self._update(offset, truncated=True)
            if said is not Refusal.CANCELED:
                raise
            # The workflow was asked to cancel and cleans up: what it publishes meanwhile is there for the next update.
            result = PollResult(items=[], next_offset=offset)
            self._canceled += 1
        else:
            self._canceled = 0
        self.by_update = True
        self._updates += 1
        return result

    def _update_from(self, offset: int) -> asyncio.Task[RawValue]:
        """Return the update that waits in the workflow; begin one if there is none."""
        if self._waiting is None:
            asked = PollInput(topics=[], from_offset=offset)
            self._waiting = asyncio.create_task(self._handle.execute_update(POLL, asked, result_type=RawValue))
        return self._waiting


def _decoded(wire: str) -> bytes:
    try:
        return base64.b64decode(wire)
    except binascii.Error:
        return wire.encode(errors="replace")
