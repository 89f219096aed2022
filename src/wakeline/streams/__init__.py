"""Workflow Streams: a durable, offset-addressed event channel that a workflow hosts.

The names and the wire are those of `temporalio.contrib.workflow_streams`: a program moves over by changing one
import, and either side may run the other library. Start with `WorkflowStream` in the workflow and
`WorkflowStreamClient` everywhere else.

Beyond those names: `StreamEnd` reports how a subscription ended, `StreamGap` the events that are missing, `HandledInputs`
which inputs a workflow has handled, `WorkflowRequests` asks people, and `errors` has every error that is raised here.
"""

from temporalio import workflow

# The workflow sandbox imports a module again for each workflow. Passing ours through keeps one copy of every class,
# so that state carried by continue-as-new is an instance of the class the worker knows, and spares that cost.
with workflow.unsafe.imports_passed_through():
    from wakeline.errors.publishing import BufferFullError, StreamError, TopicTypeError, ValueRefusedError
    from wakeline.streams.client import WorkflowStreamClient
    from wakeline.streams.codec import EnvelopeCodec
    from wakeline.streams.errors import (
        DroppedEvent,
        PublishDroppedError,
        SignalLimitError,
        StreamMisplacedError,
        StreamUnavailableError,
        ValueTooLargeError,
    )
    from wakeline.streams.inputs import HandledInputs, input_key
    from wakeline.streams.notices import StreamEnd, StreamGap
    from wakeline.streams.requests import RequestOutcome, RequestsState, WorkflowRequests
    from wakeline.streams.stream import WorkflowStream
    from wakeline.streams.sync import SyncWorkflowStreamClient
    from wakeline.streams.topics import TopicHandle, WorkflowTopicHandle
    from wakeline.streams.wire import (
        PollInput,
        PollResult,
        PublishEntry,
        PublisherState,
        PublishInput,
        WorkflowStreamItem,
        WorkflowStreamState,
    )

__all__ = [
    "BufferFullError",
    "DroppedEvent",
    "EnvelopeCodec",
    "HandledInputs",
    "PollInput",
    "PollResult",
    "PublishDroppedError",
    "PublishEntry",
    "PublishInput",
    "PublisherState",
    "RequestOutcome",
    "RequestsState",
    "SignalLimitError",
    "StreamEnd",
    "StreamError",
    "StreamGap",
    "StreamMisplacedError",
    "StreamUnavailableError",
    "SyncWorkflowStreamClient",
    "TopicHandle",
    "TopicTypeError",
    "ValueRefusedError",
    "ValueTooLargeError",
    "WorkflowRequests",
    "WorkflowStream",
    "WorkflowStreamClient",
    "WorkflowStreamItem",
    "WorkflowStreamState",
    "WorkflowTopicHandle",
    "input_key",
]
