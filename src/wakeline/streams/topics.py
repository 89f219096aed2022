"""Typed topic handles: a topic's name and type, given once.

One client, or one stream, binds a topic to one type. Types are compared with `==`, so a subtype is another type, and
nothing is checked between processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from temporalio.api.common.v1 import Payload

from wakeline.errors.publishing import TopicTypeError
from wakeline.streams.options import Notices
from wakeline.streams.wire import WorkflowStreamItem

if TYPE_CHECKING:
    from wakeline.streams.client import WorkflowStreamClient
    from wakeline.streams.stream import WorkflowStream

T = TypeVar("T")


class TopicTypes:
    """The types that the topics of one client or stream are bound to."""

    def __init__(self) -> None:
        self._types: dict[str, Any] = {}

    def bind(self, name: str, type: Any) -> Any:
        """Bind a topic to a type, `None` meaning `Any`, and return the type.

        Raises:
            TopicTypeError: It is bound to another type, or `type` is `Payload`, which no converter decodes to.
        """
        bound: Any = Any if type is None else type
        if bound is Payload:
            raise TopicTypeError(
                f"Cannot bind topic {name!r} to type=Payload, which no converter decodes to; leave type out: "
                "any handle publishes a ready Payload, and subscribe(result_type=RawValue) reads one"
            )
        known = self._types.setdefault(name, bound)
        if known != bound:
            raise TopicTypeError(
                f"Topic {name!r} is already bound to type {known!r} here and cannot be bound to {bound!r} too"
            )
        return bound


class _Handle(Generic[T]):
    """A topic's name and type."""

    def __init__(self, name: str, type: type[T]) -> None:
        self._name = name
        self._type = type

    @property
    def name(self) -> str:
        """The topic."""
        return self._name

    @property
    def type(self) -> type[T]:
        """The type its values have."""
        return self._type


class TopicHandle(_Handle[T]):
    """One topic of a `WorkflowStreamClient`; made by its `topic` method."""

    def __init__(self, client: WorkflowStreamClient, name: str, type: type[T]) -> None:
        self._client = client
        super().__init__(name, type)

    def publish(self, value: T | Payload, *, force_flush: bool = False) -> None:
        """Convert a value and buffer it for sending; returns at once, and is thread-safe.

        Args:
            value: The value; a ready `Payload` is sent unchanged.
            force_flush: Send all buffered events now, without waiting for the batch interval or for the server.

        Raises:
            ValueRefusedError: The value cannot be converted. Nothing was buffered.
            ValueTooLargeError: The value fits no message. Nothing was buffered.
            PublishDroppedError: Earlier events were abandoned. This value was not buffered; publish it again.
            BufferFullError: As many events wait to be sent as may, and `when_full` is `error`, or is `block` and this
                thread is the one that sends. This value was not buffered.
        """
        self._client._publish(self._name, value, force_flush=force_flush)

    async def publish_wait(self, value: T | Payload, *, force_flush: bool = False) -> None:
        """Publish; wait for room first if `max_buffered_items` or `max_buffered_bytes` are reached.

        Args:
            value: The value; a ready `Payload` is sent unchanged.
            force_flush: Send all buffered events now, without waiting for the batch interval or for the server.

        Raises:
            ValueRefusedError: The value cannot be converted. Nothing was buffered.
            ValueTooLargeError: The value fits no message. Nothing was buffered.
            PublishDroppedError: Earlier events were abandoned. This value was not buffered; publish it again.
        """
        await self._client._publish_wait(self._name, value, force_flush=force_flush)

    def subscribe(
        self,
        from_offset: int = 0,
        *,
        poll_cooldown: timedelta = timedelta(milliseconds=100),
        **more: Unpack[Notices],
    ) -> AsyncIterator[WorkflowStreamItem[T]]:
        """Read this topic, decoded as its type; see `WorkflowStreamClient.subscribe`."""
        return self._client.subscribe(
            [self._name],
            from_offset,
            result_type=self._type,
            poll_cooldown=poll_cooldown,
            **more,
        )


class WorkflowTopicHandle(_Handle[T]):
    """One topic of a `WorkflowStream`; made by its `topic` method. A workflow cannot read it."""

    def __init__(self, stream: WorkflowStream, name: str, type: type[T]) -> None:
        self._stream = stream
        super().__init__(name, type)

    def publish(self, value: T | Payload) -> None:
        """Append a value to the stream; costs no history event.

        Args:
            value: The value; a ready `Payload` is sent unchanged.
        """
        self._stream._publish(self._name, value)
