"""The client of a stream: publishes and reads, in any process with a Temporal client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self, TypeVar, Unpack, overload

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter

from wakeline.exit import end_in_order
from wakeline.streams.errors import StreamMisplacedError
from wakeline.streams.flusher import Flusher
from wakeline.streams.options import Buffering, Publishing
from wakeline.streams.reader import StreamReader
from wakeline.streams.sync import SyncWorkflowStreamClient
from wakeline.streams.topics import TopicHandle, TopicTypes

T = TypeVar("T")


class WorkflowStreamClient(StreamReader):
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
        **more: Unpack[Buffering],
    ) -> None:
        """Use a workflow handle; `create` is the usual way.

        Args:
            handle: The workflow. A handle with a run id reads that run alone, unless `client` is given.
            client: Whose payload converter converts values; the default converter without it.
            batch_interval: Least time between two batches. The first event after a pause does not wait. 2 seconds by
                default; 0.2 suits the output of a language model.
            max_batch_size: The most events in one batch; so many buffered are sent without waiting. No limit by
                default, other than about 1 MB a batch.
            max_retry_duration: How long a batch is retried before it is abandoned. Must be below the host's
                `publisher_ttl`. 10 minutes by default.
            on_dropped: Called with the error when events were abandoned; without it, the next publish, flush or exit
                raises the error.
            on_flushed: Called with the Workflow Id when the server has accepted a batch, so that readers may poll the
                stream; such as `Nudger.nudge` of `wakeline.publisher`. It must not wait, and its errors are only
                logged. In an activity of a worker with `WakelinePlugin` it is that plugin's by default.
            max_buffered_items: Events that may wait to be sent, beside the batch on its way. No limit by default; over
                64 MB a warning is logged.
            max_buffered_bytes: Bytes on the wire that may wait so.
            when_full: What `publish` does when no more may wait. `block`, the default: a thread other than the one that
                sends waits, and on that one it raises `BufferFullError`, where `publish_wait` waits. `error`: it raises
                `BufferFullError`. `drop_oldest`: the oldest waiting event is discarded. `coalesce`: the latest waiting
                event of the same topic is replaced; without one, it raises.
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
            **more,
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
        **more: Unpack[Buffering],
    ) -> Self:
        """Return a client for the stream of a workflow; see the constructor for the arguments.

        Args:
            client: Temporal client.
            workflow_id: The workflow that hosts the stream.
            batch_interval: Least time between two batches. 2 seconds by default.
            max_batch_size: The most events in one batch. No limit by default.
            max_retry_duration: How long a batch is retried. 10 minutes by default.
            **more: As for the constructor.
        """
        end_in_order()
        return cls(
            client.get_workflow_handle(workflow_id),
            client=client,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            **more,
        )

    @classmethod
    def from_within_activity(
        cls,
        *,
        batch_interval: timedelta = timedelta(seconds=2),
        max_batch_size: int | None = None,
        max_retry_duration: timedelta = timedelta(seconds=600),
        **more: Unpack[Buffering],
    ) -> Self:
        """Return a client for the stream of the workflow that scheduled the current activity.

        Args:
            batch_interval: Least time between two batches. 2 seconds by default.
            max_batch_size: The most events in one batch. No limit by default.
            max_retry_duration: How long a batch is retried. 10 minutes by default.
            **more: As for the constructor.

        Raises:
            StreamMisplacedError: No workflow scheduled this activity.
            RuntimeError: This is not an activity.
        """
        workflow_id = _workflow_of_activity()
        return cls.create(
            activity.client(),
            workflow_id,
            batch_interval=batch_interval,
            max_batch_size=max_batch_size,
            max_retry_duration=max_retry_duration,
            **more,
        )

    @classmethod
    def from_within_activity_sync(
        cls,
        client: Client,
        **options: Unpack[Publishing],
    ) -> SyncWorkflowStreamClient:
        """Return a client for a `def` activity: for threads without an event loop.

        It is entered by `with`.

        Args:
            client: Temporal client; Temporal gives none to such activities, so the worker's program passes it on.
            **options: As for the constructor; `on_dropped` and `on_flushed` are called in another thread.

        Raises:
            StreamMisplacedError: No workflow scheduled this activity.
            RuntimeError: This is not an activity.
        """
        return SyncWorkflowStreamClient(cls.create(client, _workflow_of_activity(), **options))

    async def __aenter__(self) -> Self:
        """Begin to send in the background."""
        await self._flusher.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Send what is buffered, then stop.

        Raises:
            PublishDroppedError: Events were abandoned, and no other error is being raised.
        """
        await self._flusher.stop(failing=kind is not None)

    @overload
    def topic(self, name: str) -> TopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> TopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> TopicHandle[T] | TopicHandle[Any]:
        """Return a handle to publish to, and read, one topic.

        Args:
            name: The topic.
            type: The type of its values; left out, any.

        Raises:
            TopicTypeError: The topic has another type here, or `type` is `Payload`.
        """
        return TopicHandle(self, name, self._types.bind(name, type))

    async def flush(self) -> None:
        """Send all events that were published before, and wait until the server has them.

        Transient errors are retried for up to `max_retry_duration`. Cancelling it loses nothing.

        Raises:
            PublishDroppedError: Events were abandoned since the last report.
        """
        await self._flusher.flush()

    @property
    def discarded_events(self) -> int:
        """The number of events that made room for later ones, by `drop_oldest` or `coalesce`."""
        return self._flusher.buffer.discarded

    def _publish(self, topic: str, value: Any, *, force_flush: bool) -> None:
        self._flusher.accept(topic, value, force_flush=force_flush)

    async def _publish_wait(self, topic: str, value: Any, *, force_flush: bool) -> None:
        await self._flusher.accept_waiting(topic, value, force_flush=force_flush)


def _workflow_of_activity() -> str:
    workflow_id = activity.info().workflow_id
    if workflow_id is None:
        raise StreamMisplacedError(
            "expected an activity that a workflow scheduled, this one is standalone and has no parent workflow: "
            "pass it a Workflow Id and use WorkflowStreamClient.create(activity.client(), workflow_id)"
        )
    return workflow_id
