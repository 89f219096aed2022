"""The stream that a workflow hosts: an append-only log, and handlers to publish and to read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, overload

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError

from wakeline.presentable import converted
from wakeline.streams.errors import StreamMisplacedError
from wakeline.streams.topics import TopicTypes, WorkflowTopicHandle
from wakeline.streams.wire import (
    MAX_POLL_BYTES,
    OFFSET_QUERY,
    POLL,
    PUBLISH_SIGNAL,
    STREAM_DRAINING,
    TRUNCATE_OUT_OF_RANGE,
    TRUNCATED_OFFSET,
    PollInput,
    PollResult,
    PublisherState,
    ReceivedBatch,
    WireItem,
    WorkflowStreamState,
    encode_payload,
    received_entry,
    wire_size,
)
from wakeline.text import whole

T = TypeVar("T")

# The server accepts 10,000 signals in a run; the rest is for publishers that send while the run continues as new.
_SIGNALS_SUGGESTED = 8_000
# A run's input must stay under the server's 2 MB; this leaves room for the rest of the input.
MAX_STATE_BYTES = 1_500_000


class WorkflowStream:
    """A workflow's event log. Construct exactly one, in `@workflow.init`.

    Offsets count all topics together and only grow, over truncation and continue-as-new alike.

    A signal or update handler of the workflow's class that runs in the very first workflow task may run before the
    events published by then are in the log: make it `async` and `await asyncio.sleep(0)` first.

    Attributes:
        malformed_entries: How many published entries were skipped because they held no payload, in this run.
    """

    malformed_entries: int

    def __init__(self, prior_state: WorkflowStreamState | None = None) -> None:
        """Take over carried state and register the stream's handlers.

        Args:
            prior_state: The result of `get_state` in the run before, or `None` in the first.

        Raises:
            StreamMisplacedError: This is not a workflow's `@workflow.init` method, or it has a stream already.
        """
        # Handlers must be there before the first signal is delivered, which only `__init__` guarantees.
        caller = sys._getframe(1).f_code.co_name
        if caller != "__init__" or not workflow.in_workflow():
            raise StreamMisplacedError(
                "WorkflowStream must be constructed directly from the workflow's @workflow.init method, "
                f"not from {caller!r}"
            )
        if workflow.get_signal_handler(PUBLISH_SIGNAL) is not None:
            raise StreamMisplacedError("WorkflowStream is already registered on this workflow")
        state = prior_state or WorkflowStreamState()
        # Kept in wire form: checked once when it comes, then copied into every answer without work.
        self._log = [WireItem(item.topic, item.data) for item in state.log]
        self._retained_bytes = sum(wire_size(item.topic, item.data) for item in self._log)
        self._signals = 0
        self._base_offset = state.base_offset
        self._publishers = dict(state.publishers)
        self._detaching = False
        self._types = TopicTypes()
        self.malformed_entries = 0
        workflow.set_signal_handler(PUBLISH_SIGNAL, self._on_publish)
        workflow.set_update_handler(POLL, self._on_poll, validator=self._on_poll_validate)
        workflow.set_query_handler(POLL, self._on_read)
        workflow.set_query_handler(OFFSET_QUERY, self._on_offset)

    @overload
    def topic(self, name: str) -> WorkflowTopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> WorkflowTopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> WorkflowTopicHandle[T] | WorkflowTopicHandle[Any]:
        """Return a handle to publish to a topic from this workflow.

        Args:
            name: The topic.
            type: The type of its values; left out, any.

        Raises:
            TopicTypeError: The topic has another type here, or `type` is `Payload`.
        """
        return WorkflowTopicHandle(self, name, self._types.bind(name, type))

    def truncate(self, up_to_offset: int) -> None:
        """Forget the events before an offset; readers behind it continue at the oldest one left.

        Args:
            up_to_offset: First offset to keep; one already forgotten changes nothing.

        Raises:
            ApplicationError: The offset is past the end; type `TruncateOutOfRange`.
        """
        if up_to_offset > self._end:
            # Not a ValueError: that would fail the workflow task, again and again, where this fails the caller.
            raise ApplicationError(
                f"cannot truncate to offset {up_to_offset}: the stream has {self._base_offset} to {self._end}",
                type=TRUNCATE_OUT_OF_RANGE,
            )
        if up_to_offset > self._base_offset:
            forgotten = self._log[: up_to_offset - self._base_offset]
            self._retained_bytes -= sum(wire_size(item.topic, item.data) for item in forgotten)
            del self._log[: len(forgotten)]
            self._base_offset = up_to_offset

    @property
    def continue_as_new_suggested(self) -> bool:
        """Whether to continue as new: Temporal suggests it, or most signals of the run are spent.

        After all of them the server accepts none, and only the workflow itself can publish.
        """
        return workflow.info().is_continue_as_new_suggested() or self._signals >= _SIGNALS_SUGGESTED

    @property
    def retained_bytes(self) -> int:
        """The bytes of the retained events, counted on the wire; `truncate` makes it less.

        Events over 1.5 MB, or the `max_state_bytes` of `continue_as_new`, are not carried into the next run.
        """
        return self._retained_bytes

    def get_state(
        self, *, publisher_ttl: timedelta = timedelta(seconds=900), max_bytes: int | None = MAX_STATE_BYTES
    ) -> WorkflowStreamState:
        """Return the state to carry into the next run.

        Args:
            publisher_ttl: How long after its last batch a publisher may still repeat it. Must be above the
                `max_retry_duration` of every client. 15 minutes by default.
            max_bytes: Bytes of events to carry, counted on the wire: the newest that fit are carried, with a warning
                in the log, because a larger input would fail this workflow's task for ever. 1.5 MB by default;
                `None` carries all, for a codec that compresses or stores payloads elsewhere.
        """
        kept = len(self._log) if max_bytes is None else self._newest_within(max_bytes)
        first = len(self._log) - kept
        if first:
            workflow.logger.warning(
                "Continue-as-new carries %d of %d events: more would not fit. Offsets before %d are gone.",
                kept,
                len(self._log),
                self._base_offset + first,
            )
        now = workflow.now()
        return WorkflowStreamState(
            log=self._log[first:],
            base_offset=self._base_offset + first,
            publishers={id: seen for id, seen in self._publishers.items() if now - seen.last_seen < publisher_ttl},
        )

    def detach_pollers(self) -> None:
        """Let every waiting update answer, and refuse new ones, so that the run can end.

        Publishing, queries and `get_state` go on. The recipe, when `continue_as_new` is not enough:
        `detach_pollers()`, then `await workflow.wait_condition(workflow.all_handlers_finished)`, then
        `workflow.continue_as_new(…)` with `get_state()` in the input.
        """
        self._detaching = True

    async def continue_as_new(
        self,
        build_args: Callable[[WorkflowStreamState], Sequence[Any]],
        *,
        publisher_ttl: timedelta = timedelta(seconds=900),
        max_state_bytes: int | None = MAX_STATE_BYTES,
    ) -> NoReturn:
        """Detach the pollers, wait for the handlers, and continue as new. Does not return.

        Args:
            build_args: Makes the next run's arguments from the state to carry.
            publisher_ttl: See `get_state`. 15 minutes by default.
            max_state_bytes: See `get_state`. 1.5 MB by default.
        """
        self.detach_pollers()
        await workflow.wait_condition(workflow.all_handlers_finished)
        state = self.get_state(publisher_ttl=publisher_ttl, max_bytes=max_state_bytes)
        workflow.continue_as_new(args=build_args(state))

    @property
    def _end(self) -> int:
        return self._base_offset + len(self._log)

    def _newest_within(self, max_bytes: int) -> int:
        left = max_bytes
        for count, item in enumerate(reversed(self._log)):
            left -= wire_size(item.topic, item.data)
            if left < 0:
                return count
        return len(self._log)

    def _publish(self, topic: str, value: Any) -> None:
        payload = value if isinstance(value, Payload) else converted(workflow.payload_converter().to_payload, value)
        self._append(whole(topic), encode_payload(payload))

    def _append(self, topic: str, data: str) -> None:
        self._log.append(WireItem(topic, data))
        self._retained_bytes += wire_size(topic, data)

    def _on_publish(self, batch: ReceivedBatch) -> None:
        self._signals += 1
        if batch.publisher_id:
            seen = self._publishers.get(batch.publisher_id)
            if seen is not None and batch.sequence <= seen.sequence:
                return
            self._publishers[batch.publisher_id] = PublisherState(batch.sequence, workflow.now())
        for entry in batch.items if isinstance(batch.items, list) else [batch.items]:
            try:
                topic, data = received_entry(entry)
            except ValueError as error:
                # Raising would fail the workflow task again and again: anyone who may signal could stop the workflow.
                self.malformed_entries += 1
                workflow.logger.warning(
                    "Skipped an entry %.200r from publisher %r: %s", entry, batch.publisher_id, error
                )
            else:
                self._append(topic, data)

    def _on_poll_validate(self, poll: PollInput) -> None:
        if self._detaching:
            raise ApplicationError("the run is about to continue as new; ask again", type=STREAM_DRAINING)

    async def _on_poll(self, poll: PollInput) -> PollResult:
        # The condition reads the base each time: a truncation may pass the offset while this waits.
        await workflow.wait_condition(
            lambda: poll.from_offset < self._base_offset or self._end > poll.from_offset or self._detaching
        )
        if poll.from_offset != 0 and poll.from_offset < self._base_offset:
            raise ApplicationError(
                f"offset {poll.from_offset} is truncated; the oldest is {self._base_offset}", type=TRUNCATED_OFFSET
            )
        return self._on_read(poll)

    def _on_read(self, poll: PollInput) -> PollResult:
        topics = set(poll.topics)
        items: list[WireItem] = []
        size = 0
        for index in range(max(0, poll.from_offset - self._base_offset), len(self._log)):
            item = self._log[index]
            if topics and item.topic not in topics:
                continue
            size += wire_size(item.topic, item.data)
            offset = self._base_offset + index
            if size > MAX_POLL_BYTES and items:
                return PollResult(items, next_offset=offset, more_ready=True)
            items.append(WireItem(item.topic, item.data, offset))
        return PollResult(items, next_offset=self._end)

    def _on_offset(self) -> int:
        return self._end
