"""Publishing and reading in threads without an event loop, such as `def` activities."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast, overload

from wakeline.blocking import LoopThread
from wakeline.streams.options import Reading
from wakeline.streams.topics import TopicHandle
from wakeline.streams.wire import WorkflowStreamItem

if TYPE_CHECKING:
    from wakeline.streams.client import WorkflowStreamClient

T = TypeVar("T")

sending = LoopThread("wakeline-streams")


class SyncWorkflowStreamClient:
    """Publishes to the stream of one workflow, and reads it, from any number of threads.

        with SyncWorkflowStreamClient(WorkflowStreamClient.create(temporal, "order-1")) as stream:
            stream.topic("status", type=Status).publish(Status("paid"))

    Sends in a thread of its own, which all such clients of the process share. Leaving the block sends all that is
    buffered and waits until the server has it. Reading needs no block:

        for item in stream.subscribe("status", result_type=Status):
            show(item.data)
    """

    def __init__(self, client: WorkflowStreamClient) -> None:
        """Wrap a client; `WorkflowStreamClient.from_within_activity_sync` makes one for an activity.

        Args:
            client: Publishes and reads; from here on, only this object may enter it.
        """
        self._client = client

    def __enter__(self) -> Self:
        """Begin to send in the background."""
        sending.call(self._client.__aenter__())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Send what is buffered, then stop.

        Raises:
            PublishDroppedError: Events were abandoned, and no other error is being raised.
        """
        sending.call(self._client.__aexit__(kind))

    @overload
    def topic(self, name: str) -> TopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> TopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> TopicHandle[T] | TopicHandle[Any]:
        """Return a handle whose `publish` is thread-safe; see `WorkflowStreamClient.topic`."""
        return self._client.topic(name, type=cast(Any, type))

    def flush(self) -> None:
        """Send all published events and wait for the server; see `WorkflowStreamClient.flush`.

        Raises:
            PublishDroppedError: Events were abandoned since the last report.
        """
        sending.call(self._client.flush())

    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: type[T],
        **how: Unpack[Reading],
    ) -> Iterator[WorkflowStreamItem[T]]: ...
    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: None = None,
        **how: Unpack[Reading],
    ) -> Iterator[WorkflowStreamItem[Any]]: ...

    def subscribe(
        self,
        topics: str | list[str] | None = None,
        from_offset: int = 0,
        *,
        result_type: type | None = None,
        **how: Unpack[Reading],
    ) -> Iterator[WorkflowStreamItem[Any]]:
        """Yield every event from an offset on; see `WorkflowStreamClient.subscribe`.

        Leaving the loop early stops reading. `on_end` and `on_gap` are called in another thread, while this one waits.
        """
        items = self._client.subscribe(topics, from_offset, result_type=cast(Any, result_type), **how)
        return sending.iterate(cast(AsyncGenerator[WorkflowStreamItem[Any], None], items))

    def get_offset(self) -> int:
        """Return the stream's next offset; see `WorkflowStreamClient.get_offset`."""
        return sending.call(self._client.get_offset())
