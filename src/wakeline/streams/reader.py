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
    """What `WorkflowStreamClient` reads with."""

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
        """Every event from an offset on, until the workflow ends.

        Runs that follow are followed: by continue-as-new without a seam; by retry, cron and reset with the stream of
        the new run from its beginning, because what it publishes is not what the run before did.

        Args:
            topics: One topic or several; none, or an empty list, for all.
            from_offset: First offset wanted; 0, or less, for the oldest that is retained. An offset that was
                truncated reads from the oldest too; one in the future waits for it.
            result_type: What to decode values to. The converter's own choice by default; `RawValue` for the payload
                as it came.
            poll_cooldown: Sets the pace of reading. A reader asks when the run's history tells that there may be
                something, and unasked every hundred times this, 10 seconds by default. A run whose history was longer
                than 5 MB when the reader came tells nothing: there it asks by itself, less often the longer nothing
                comes, every ten times this at the least. After an answer it rests for as long as the answer took, a
                twentieth of this at the least; with 0 it does not rest. A host that is read by update waits this
                between polls. 100 milliseconds by default.
            retry_timeout: How long reading may fail, for reasons that may pass, such as a worker that is down. No
                limit by default: it is logged and goes on.
            on_end: Is told how the workflow closed, before the iterator ends.
            on_gap: Is told, before the event that comes next, that events were truncated before they were read, also
                those before the first, or that offsets begin anew with the run of a retry, cron or reset. A reader that
                gives it and names topics is sent all topics, because nothing less shows a gap.

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
        """The stream's next offset: as many as were ever published, truncated ones included."""
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
            # Leaving the loop early must not wait for the collector to give up the calls that are under way.
            await results.aclose()
