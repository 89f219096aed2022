"""The client of a stream: publish to it and read it, from any process with a Temporal client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Self, TypeVar, overload

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter

from wakeline.streams.errors import PublishDroppedError, StreamMisplacedError, TopicTypeError
from wakeline.streams.flusher import Flusher
from wakeline.streams.subscription import StreamEnd, Subscription
from wakeline.streams.topics import TopicHandle, TopicTypes
from wakeline.streams.wire import OFFSET_QUERY, WorkflowStreamItem, decode_payload

T = TypeVar("T")


class WorkflowStreamClient:
    """Publishes to, and reads, the stream of one workflow.

    Publishing needs the client to be entered; leaving it sends all that is buffered:

        client = WorkflowStreamClient.create(temporal, "order-1")
        async with client:
            client.topic("status", type=Status).publish(Status("paid"))

    Reading does not:

        async for item in client.subscribe("status", result_type=Status):
            show(item.data)
    """

    def __init__(
        self,
        handle: WorkflowHandle[Any, Any],
        *,
        client: Client | None = None,
        batch_interval: timedelta = timedelta(seconds=2),
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = timedelta(seconds=600),
        on_dropped: Callable[[PublishDroppedError], None] | None = None,
    ) -> None:
        """Use a workflow handle; `create` is the usual way.

        Args:
            handle: The workflow. A handle with a run id reads that run alone, unless `client` is given.
            client: Whose payload converter converts values; the default converter without it.
            batch_interval: Least time between two batches. The first event after a pause does not wait. 2 seconds by
                default; 0.2 suits the output of a language model.
            max_batch_size: Events in one batch, at most; so many buffered are sent without waiting. No limit by
                default, other than about 1 MB a batch.
            max_retry_duration: How long a batch is tried again before it is given up. Must be below the host's
                `publisher_ttl`. 10 minutes by default.
            on_dropped: Is told of events that were given up, instead of the next publish, flush or exit raising it.
        """
        self._handle = handle
        # A handle has no public way to its client, and reading needs handles to other runs.
        self._temporal: Client = client if client is not None else handle._client
        self._follow = client is not None or handle.run_id is None
        converter = (DataConverter.default if client is None else client.data_converter).payload_converter
        self._converter = converter
        self._types = TopicTypes()
        self._flusher = Flusher(
            handle,
            converter,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            on_dropped=on_dropped,
        )

    @classmethod
    def create(
        cls,
        client: Client,
        workflow_id: str,
        *,
        batch_interval: timedelta = timedelta(seconds=2),
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = timedelta(seconds=600),
        on_dropped: Callable[[PublishDroppedError], None] | None = None,
    ) -> Self:
        """A client for the stream of a workflow; see the constructor for the arguments.

        Args:
            client: Temporal client.
            workflow_id: The workflow that hosts the stream.
            batch_interval: Least time between two batches. 2 seconds by default.
            max_batch_size: Events in one batch, at most. No limit by default.
            max_retry_duration: How long a batch is tried again. 10 minutes by default.
            on_dropped: Is told of events that were given up.
        """
        return cls(
            client.get_workflow_handle(workflow_id),
            client=client,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            on_dropped=on_dropped,
        )

    @classmethod
    def from_within_activity(
        cls,
        *,
        batch_interval: timedelta = timedelta(seconds=2),
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = timedelta(seconds=600),
        on_dropped: Callable[[PublishDroppedError], None] | None = None,
    ) -> Self:
        """A client for the stream of the workflow that scheduled the current activity.

        Args:
            batch_interval: Least time between two batches. 2 seconds by default.
            max_batch_size: Events in one batch, at most. No limit by default.
            max_retry_duration: How long a batch is tried again. 10 minutes by default.
            on_dropped: Is told of events that were given up.

        Raises:
            StreamMisplacedError: No workflow scheduled this activity.
            RuntimeError: This is not an activity.
        """
        workflow_id = activity.info().workflow_id
        if workflow_id is None:
            raise StreamMisplacedError(
                "expected an activity that a workflow scheduled, got a standalone one: "
                "pass it a Workflow Id and use WorkflowStreamClient.create(activity.client(), workflow_id)"
            )
        return cls.create(
            activity.client(),
            workflow_id,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            on_dropped=on_dropped,
        )

    async def __aenter__(self) -> Self:
        """Begin to send in the background."""
        await self._flusher.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Send what is buffered, then stop.

        Raises:
            PublishDroppedError: Events were given up, and no other error is on its way.
        """
        await self._flusher.stop(failing=kind is not None)

    @overload
    def topic(self, name: str) -> TopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> TopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> TopicHandle[T] | TopicHandle[Any]:
        """A handle to publish to, and read, one topic.

        Args:
            name: The topic.
            type: The type of its values; left out, any.

        Raises:
            TopicTypeError: The topic has another type here, or `type` is `Payload`.
        """
        return TopicHandle(self, name, self._types.bind(name, type))

    async def flush(self) -> None:
        """Send what was published until now and wait until the server has it.

        Tries again, for up to `max_retry_duration`, where that may help. Cancelling it loses nothing.

        Raises:
            PublishDroppedError: Events were given up since the last report.
        """
        await self._flusher.flush()

    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: type[T],
        poll_cooldown: timedelta = ...,
        retry_timeout: timedelta | None = ...,
        on_end: Callable[[StreamEnd], None] | None = ...,
    ) -> AsyncIterator[WorkflowStreamItem[T]]: ...
    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: None = None,
        poll_cooldown: timedelta = ...,
        retry_timeout: timedelta | None = ...,
        on_end: Callable[[StreamEnd], None] | None = ...,
    ) -> AsyncIterator[WorkflowStreamItem[Any]]: ...

    def subscribe(
        self,
        topics: str | list[str] | None = None,
        from_offset: int = 0,
        *,
        result_type: type | None = None,
        poll_cooldown: timedelta = timedelta(milliseconds=100),
        retry_timeout: timedelta | None = None,
        on_end: Callable[[StreamEnd], None] | None = None,
    ) -> AsyncIterator[WorkflowStreamItem[Any]]:
        """Every event from an offset on, until the workflow closes; continue-as-new is followed.

        Args:
            topics: One topic or several; none, or an empty list, for all.
            from_offset: First offset wanted; 0, or less, for the oldest that is retained. An offset that was
                truncated reads from the oldest too; one in the future waits for it.
            result_type: What to decode values to. The converter's own choice by default; `RawValue` for the payload
                as it came.
            poll_cooldown: Sets the pace of reading: a fifth of it while events come, slower in silence, up to ten
                times it. 100 milliseconds by default, which is 20 ms to 1 s. A host that is read by update waits it
                between polls.
            retry_timeout: How long reading may fail, for reasons that may pass, such as a worker that is down. No
                limit by default: it is logged and goes on.
            on_end: Is told how the workflow closed, before the iterator ends.

        Raises:
            TopicTypeError: `result_type` is `Payload`, which no converter decodes to.
            StreamUnavailableError: Reading failed for `retry_timeout`.
            RPCError: There is no such workflow, or it may not be read.
        """
        if result_type is Payload:
            raise TopicTypeError("result_type cannot be Payload, which no converter decodes to; use RawValue")
        subscription = Subscription(
            self._temporal,
            self._handle.id,
            run_id=self._handle.run_id,
            follow=self._follow,
            topics=(topics,) if isinstance(topics, str) else tuple(topics or ()),
            offset=from_offset,
            poll_cooldown=poll_cooldown,
            retry_timeout=retry_timeout,
            on_end=on_end,
        )
        return self._decoded(subscription, result_type)

    async def get_offset(self) -> int:
        """The stream's next offset: as many as were ever published, truncated ones included."""
        offset: int = await self._handle.query(OFFSET_QUERY, result_type=int)
        return offset

    def _publish(self, topic: str, value: Any, *, force_flush: bool) -> None:
        self._flusher.accept(topic, value, force_flush=force_flush)

    async def _decoded(
        self, subscription: Subscription, result_type: type | None
    ) -> AsyncIterator[WorkflowStreamItem[Any]]:
        results = subscription.results()
        try:
            async for result in results:
                for item in result.items:
                    payload = decode_payload(item.data)
                    data: Any = (
                        self._converter.from_payload(payload)
                        if result_type is None
                        else self._converter.from_payload(payload, result_type)
                    )
                    yield WorkflowStreamItem(item.topic, data, item.offset)
        finally:
            # Leaving the loop early must not wait for the collector to give up the calls that are under way.
            await results.aclose()
