"""The reading half of a stream's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeVar, Unpack, overload

from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import PayloadConverter

from wakeline.errors.publishing import TopicTypeError
from wakeline.streams.options import Notices, Reading
from wakeline.streams.subscription import Subscription
from wakeline.streams.wire import OFFSET_QUERY, WorkflowStreamItem, decode_payload

T = TypeVar("T")


class StreamReader:
    """The reading half of `WorkflowStreamClient`."""

    _handle: WorkflowHandle[Any, Any]
    _temporal: Client
    _follow: bool
    _converter: PayloadConverter

    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: type[T],
        **how: Unpack[Reading],
    ) -> AsyncIterator[WorkflowStreamItem[T]]: ...
    @overload
    def subscribe(
        self,
        topics: str | list[str] | None = ...,
        from_offset: int = ...,
        *,
        result_type: None = None,
        **how: Unpack[Reading],
    ) -> AsyncIterator[WorkflowStreamItem[Any]]: ...

    def subscribe(
        self,
        topics: str | list[str] | None = None,
        from_offset: int = 0,
        *,
        result_type: type | None = None,
        poll_cooldown: timedelta = timedelta(milliseconds=100),
        **more: Unpack[Notices],
    ) -> AsyncIterator[WorkflowStreamItem[Any]]:
        """Yield every event from an offset on, until the workflow ends.

        Later runs of the chain are read, too: after continue-as-new without a gap; after retry, cron and reset the
        stream of the new run from its beginning, because it need not publish the same events.

        Args:
            topics: One topic or several; none, or an empty list, for all.
            from_offset: First offset wanted; 0, or less, for the oldest that is retained. An offset that was
                truncated reads from the oldest too; one in the future waits for it.
            result_type: The type to decode values to. The converter's own choice by default; `RawValue` for the
                payload as it came.
            poll_cooldown: Sets the pace of reading. A reader polls after each workflow task in the run's history, and
                in silence every hundred times this, 10 seconds by default. A history that was longer than 5 MB when the
                reader came is not followed: the reader polls by itself, less often the longer no event comes, at least
                every ten times this. After an answer it rests for as long as the answer took, at least a twentieth of
                this; with 0 it does not rest. Between two polls by update it waits this. 100 milliseconds by default.
            retry_timeout: How long reading may fail with transient errors, such as a worker that is down. No limit by
                default: failures are logged and reading continues.
            on_end: Called with how the workflow closed, before the iterator ends.
            on_gap: Called before the next event if events were truncated before they were read, also those before the
                first, or if offsets restart with the run of a retry, cron or reset. A reader that gives it and names
                topics receives all topics from the host, because a gap cannot be seen otherwise.

        Raises:
            TopicTypeError: `result_type` is `Payload`, which no converter decodes to.
            StreamUnavailableError: Reading failed for `retry_timeout`.
            RPCError: There is no such workflow, or it may not be read.
        """
        if result_type is Payload:
            raise TopicTypeError(
                "Cannot subscribe with result_type=Payload, which no converter decodes to; use result_type=RawValue"
            )
        subscription = Subscription(
            self._temporal,
            self._handle.id,
            run_id=self._handle.run_id,
            follow=self._follow,
            topics=(topics,) if isinstance(topics, str) else tuple(topics or ()),
            offset=from_offset,
            poll_cooldown=poll_cooldown,
            **more,
        )
        return self._decoded(subscription, result_type)

    async def get_offset(self) -> int:
        """Return the stream's next offset: the number of all events, truncated ones included."""
        offset: int = await self._handle.query(OFFSET_QUERY, result_type=int)
        return offset

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
            # Leaving the loop early ends the calls under way now, not when the collector comes.
            await results.aclose()
