"""What type checkers make of `wakeline.streams`. Never run: `test_typing.py` has mypy and pyright read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, assert_type

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import RawValue

from wakeline.errors import WakelineError
from wakeline.streams import (
    DroppedEvent,
    PublishDroppedError,
    SignalLimitError,
    StreamEnd,
    StreamGap,
    SyncWorkflowStreamClient,
    TopicHandle,
    WorkflowStream,
    WorkflowStreamClient,
    WorkflowStreamItem,
    WorkflowStreamState,
    WorkflowTopicHandle,
)


@dataclass
class Status:
    state: str


@dataclass
class HostInput:
    stream_state: WorkflowStreamState | None = None


@workflow.defn
class Host:
    @workflow.init
    def __init__(self, input: HostInput) -> None:
        self.stream = WorkflowStream(prior_state=input.stream_state)

    @workflow.run
    async def run(self, input: HostInput) -> None:
        topic = self.stream.topic("status", type=Status)
        assert_type(topic, WorkflowTopicHandle[Status])
        assert_type(self.stream.topic("any"), WorkflowTopicHandle[Any])
        topic.publish(Status("paid"))
        topic.publish(Payload())
        topic.publish("paid")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(self.stream.continue_as_new_suggested, bool)
        assert_type(self.stream.retained_bytes, int)
        assert_type(self.stream.get_state(max_bytes=None), WorkflowStreamState)
        self.stream.truncate(3)
        await self.stream.continue_as_new(lambda state: [HostInput(state)], publisher_ttl=timedelta(hours=1))


async def publish(client: Client) -> None:
    stream = WorkflowStreamClient.create(
        client,
        "order-1",
        batch_interval=timedelta(milliseconds=200),
        max_batch_size=100,
        max_retry_duration=timedelta(minutes=1),
        on_dropped=lambda error: print(error.events),
        max_buffered_items=1_000,
        max_buffered_bytes=1_000_000,
        when_full="coalesce",
    )
    WorkflowStreamClient.create(client, "order-1", when_full="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with stream as entered:
        assert_type(entered, WorkflowStreamClient)
        topic = stream.topic("status", type=Status)
        assert_type(topic, TopicHandle[Status])
        assert_type(topic.type, type[Status])
        assert_type(stream.topic("any"), TopicHandle[Any])
        topic.publish(Status("paid"), force_flush=True)
        topic.publish(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await topic.publish_wait(Status("paid"))
        await topic.publish_wait("paid")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await stream.flush()
    assert_type(await stream.get_offset(), int)
    assert_type(stream.discarded_events, int)


def publish_from_a_thread(client: Client) -> None:
    with WorkflowStreamClient.from_within_activity_sync(client, when_full="drop_oldest") as stream:
        assert_type(stream, SyncWorkflowStreamClient)
        assert_type(stream.topic("status", type=Status), TopicHandle[Status])
        assert_type(stream.topic("any"), TopicHandle[Any])
        stream.topic("status", type=Status).publish(Status("paid"))
        stream.flush()
    assert_type(stream.get_offset(), int)
    assert_type(stream.subscribe(), Iterator[WorkflowStreamItem[Any]])
    for item in stream.subscribe("status", 3, result_type=Status, on_end=lambda end: print(end.failure)):
        assert_type(item.data, Status)
    stream.subscribe(result_type=Status("paid"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType,reportCallIssue]


async def read(client: Client, handle: WorkflowHandle[Any, Any]) -> None:
    def ended(end: StreamEnd) -> None:
        assert_type(end.status, WorkflowExecutionStatus)
        assert_type(end.drained, bool)

    def jumped(gap: StreamGap) -> None:
        assert_type(gap.reason, Literal["truncated", "retry", "cron", "reset"])
        assert_type((gap.wanted, gap.resumed, gap.run_id), tuple[int, int, str])

    stream = WorkflowStreamClient(handle, client=client)
    typed = stream.subscribe("status", 3, result_type=Status, on_end=ended, on_gap=jumped)
    assert_type(typed, AsyncIterator[WorkflowStreamItem[Status]])
    async for item in typed:
        assert_type(item.data, Status)
        assert_type((item.topic, item.offset), tuple[str, int])
    assert_type(stream.subscribe(["a", "b"]), AsyncIterator[WorkflowStreamItem[Any]])
    assert_type(stream.subscribe(result_type=RawValue), AsyncIterator[WorkflowStreamItem[RawValue]])
    assert_type(stream.topic("n", type=int).subscribe(on_gap=jumped), AsyncIterator[WorkflowStreamItem[int]])
    stream.subscribe(on_end=jumped)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: PublishDroppedError) -> None:
    caught: WakelineError | TimeoutError = error
    for event in error.events:
        assert_type(event, DroppedEvent)
        assert_type(event.payload, Payload)
    if isinstance(caught, SignalLimitError):
        assert_type(caught.code, str)
